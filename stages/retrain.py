"""Train the network with the hyperparameters that the search found (or the baseline's, as a control) and compare.

Reads `seed`, `baseline`, `train`, `retrain` and `compare`, data/tune/hyperparameters.json and what `baseline` wrote; writes
metrics/retrain.json, metrics/plots/retrain.csv, data/retrain, and the comparison: metrics/comparison.json and
metrics/plots/confusion.csv.
"""

from pathlib import Path

from pydantic import ValidationError

from stages.base import console, packages, params
from stages.base.files import read_json
from stages.base.hyperparameters import Hyperparameters
from stages.compute.cluster import Cluster


def main() -> None:
    settings = params.load()
    packages.check("numerics", "training")
    found = hyperparameters(settings.retrain.from_)
    with Cluster(settings.runtime.workers) as cluster:
        from stages.comparison import comparison  # starts TensorFlow, which workers must not share
        from stages.compute.replicates import summary, train_and_test

        comparison.check(settings)
        tuned = train_and_test("retrain", found, settings, cluster)
    compared = comparison.compare(settings, found)
    print(summary("retrain", tuned))
    print(f"comparison: {' '.join(compared['summary'])}")


def hyperparameters(stage: str) -> Hyperparameters:
    """Return the hyperparameters that `stage` wrote; UserError if they are missing or not those of the network."""
    path = Path("data") / stage / "hyperparameters.json"
    try:
        return Hyperparameters.model_validate(read_json(path))
    except ValidationError as error:
        mistake = error.errors()[0]
        reason = ": ".join([*map(str, mistake["loc"]), mistake["msg"]])
        raise console.UserError(
            f"{path} does not fit the network: {reason}; `dvc repro --force {stage}` makes it again"
        ) from None


if __name__ == "__main__":
    console.run(main)
