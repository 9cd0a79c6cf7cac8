"""Train the network with the numbers that somebody typed.

Reads `seed`, `baseline` and `train`; writes metrics/baseline.json, metrics/plots/baseline.csv and data/baseline.
"""

from stages import console, params
from stages.search.cluster import Cluster


def main() -> None:
    settings = params.load()
    with Cluster(settings.runtime.workers) as cluster:
        from stages.protocol import in_words, train_and_test  # TensorFlow, which workers import at the same time

        print(in_words("baseline", train_and_test("baseline", settings.baseline, settings, cluster)))


if __name__ == "__main__":
    console.run(main)
