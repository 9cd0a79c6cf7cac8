"""Train the network with the hyperparameters that the search found (or the baseline's, as a control).

Reads `seed`, `baseline`, `train`, `retrain` and `compare`, data/tune/network.json and the outputs of
`baseline`; writes metrics/retrain.json, metrics/plots/retrain.csv, data/retrain, and the comparison with the
baseline: metrics/comparison.json and metrics/plots/{answer,confusion}.csv.
"""

from pathlib import Path

from stages.base import console, packages, params
from stages.base.files import read_json
from stages.comparison import comparison
from stages.comparison.replicates import final_runner, result_line, train_and_test
from stages.compute.cluster import connect

ROWS = "verdict|parameters.ratio|best.score"  # the metrics to decide by


def main() -> None:
    settings = params.load()
    packages.check("numerics", "training")
    network = read_json(Path("data") / settings.retrain.from_ / "network.json")
    tuned, epochs = network["hyperparameters"], settings.train.epochs
    if settings.retrain.from_ == "tune" and settings.retrain.epochs:
        epochs = network["epochs"] if settings.retrain.epochs == "best" else settings.retrain.epochs
    comparison.check(settings)
    with connect(settings.runtime.workers) as client, final_runner(client, settings) as runner:
        trained = train_and_test("retrain", tuned, epochs, settings, runner)
        compared = comparison.compare(settings, tuned, epochs, runner)
    console.result(result_line("retrain", trained))
    console.result(f"comparison: {' '.join(compared['summary'])}")
    print(f"what changed since the last commit:\ndvc metrics diff | grep -E '{ROWS}'")


if __name__ == "__main__":
    console.run(main)
