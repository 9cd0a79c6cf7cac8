"""Search for the hyperparameters: KerasTuner's oracles ask, the validation examples decide, the test examples are never read.

Reads `seed`, `tune`, `train.batch_size` and `baseline` (for what is not in the space); writes data/tune/hyperparameters.json,
metrics/tune.json and metrics/plots/{trials,space}.csv. The trainings run on a Dask cluster and are kept in the store.
"""

from stages.base import console, packages, params
from stages.compute.cluster import Cluster


def main() -> None:
    settings = params.load()
    packages.check("numerics", "training", "search")
    with Cluster(settings.runtime.workers) as cluster:
        from stages.search.tuning import tune  # starts TensorFlow, which workers must not share

        tune(settings, cluster)


if __name__ == "__main__":
    console.run(main)
