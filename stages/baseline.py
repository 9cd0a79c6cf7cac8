"""Train the network with the quickstart's hyperparameters, which are those under `baseline` in params.yaml.

Reads `seed`, `baseline` and `train`; writes metrics/baseline.json, metrics/plots/baseline.csv and data/baseline.
"""

from stages.base import console, packages, params
from stages.compute.cluster import Cluster


def main() -> None:
    settings = params.load()
    packages.check("numerics", "training")
    with Cluster(settings.runtime.workers) as cluster:
        from stages.compute.replicates import summary, train_and_test  # starts TensorFlow, which workers must not share

        print(summary("baseline", train_and_test("baseline", settings.baseline, settings, cluster)))


if __name__ == "__main__":
    console.run(main)
