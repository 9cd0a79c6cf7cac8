"""Search for hyperparameters: KerasTuner's oracles ask, validation examples decide, no test example is read.

Reads `seed`, `tune`, `train.batch_size` and `baseline` (for what is not in the space); writes
data/tune/hyperparameters.json, metrics/tune.json and metrics/plots/{trials,space}.csv. The trainings run on a
Dask cluster and are kept in the store.
"""

from stages.base import console, packages, params
from stages.compute.cluster import connect


def main() -> None:
    settings = params.load()
    packages.check("numerics", "training", "search")
    with connect(settings.runtime.workers) as client:
        from stages.search.tuning import tune  # imports TensorFlow, beside the workers

        tune(settings, client)


if __name__ == "__main__":
    console.run(main)
