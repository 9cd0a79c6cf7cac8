"""Train the network with the hyperparameters the search found (or the baseline's, as a control) and compare.

Reads `seed`, `baseline`, `train`, `retrain` and `compare`, data/tune/hyperparameters.json and what `baseline`
wrote; writes metrics/retrain.json, metrics/plots/retrain.csv, data/retrain, and the comparison:
metrics/comparison.json and metrics/plots/confusion.csv.
"""

from pathlib import Path

from pydantic import ValidationError

from stages.base import console, packages, params
from stages.base.files import read_json
from stages.base.hyperparameters import Hyperparameters
from stages.comparison import comparison
from stages.comparison.replicates import result_line, runner, train_and_test
from stages.compute.cluster import connect


def main() -> None:
    settings = params.load()
    packages.check("numerics", "training")
    tuned = hyperparameters(settings.retrain.from_)
    comparison.check(settings)
    with connect(settings.runtime.workers) as client, runner(client, settings) as trainings:
        trained = train_and_test("retrain", tuned, settings, trainings)
        compared = comparison.compare(settings, tuned, trainings)
    print(result_line("retrain", trained))
    print(f"comparison: {' '.join(compared['summary'])}")


def hyperparameters(stage: str) -> dict[str, object]:
    """Return the hyperparameters that `stage` wrote; UserError if they are missing or not the network's."""
    path = Path("data") / stage / "hyperparameters.json"
    try:
        return Hyperparameters.model_validate(read_json(path)).model_dump()
    except ValidationError as error:
        mistake = error.errors()[0]
        reason = ": ".join([*map(str, mistake["loc"]), mistake["msg"]])
        raise console.UserError(
            f"{path} does not fit the network: {reason}; `dvc repro --force {stage}` makes it again"
        ) from None


if __name__ == "__main__":
    console.run(main)
