"""Search for hyperparameters with KerasTuner's oracles, by the validation score; test examples are not read.

Reads `seed`, `tune` and `baseline` (for hyperparameters that are not in the space); writes
data/tune/network.json, metrics/tune.json and metrics/plots/{trials,space}.csv. The trainings run on Dask
workers and are kept in the store.
"""

from stages.base import console, packages, params
from stages.compute.cluster import connect
from stages.compute.runner import Runner
from stages.search.scoring import scoring_of


def main() -> None:
    settings = params.load()
    packages.check("numerics", "training", "search")
    scoring, epochs = scoring_of(settings), settings.tune.max_epochs
    stopping = scoring.early_stopping
    with (
        connect(settings.runtime.workers) as client,
        Runner(client, settings, scoring.subsets, early_stopping=stopping, max_epochs=epochs) as runner,
    ):
        print("tune: workers and KerasTuner are starting", flush=True)
        from stages.search.tuning import tune  # imports TensorFlow while the workers start

        tune(settings, scoring, runner)


if __name__ == "__main__":
    console.run(main)
