"""Train the network with the first tutorial's hyperparameters: those under `baseline` in params.yaml.

Reads `seed`, `baseline` and `train`; writes metrics/baseline.json, metrics/plots/baseline.csv, data/baseline.
"""

from stages.base import console, packages, params
from stages.comparison.replicates import final_runner, result_line, train_and_test
from stages.compute.cluster import connect
from stages.training.evaluation import check_names


def main() -> None:
    settings = params.load()
    packages.check("numerics", "training")
    check_names(settings.tune)
    with connect(settings.runtime.workers) as client, final_runner(client, settings) as runner:
        trained = train_and_test("baseline", settings.baseline, settings.train.epochs, settings, runner)
    console.result(result_line("baseline", trained))


if __name__ == "__main__":
    console.run(main)
