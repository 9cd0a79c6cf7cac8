"""Train the network with the hyperparameters that the search found (or the baseline's, as a control) and compare.

Reads `seed`, `train` and `retrain`, data/tune/hyperparameters.json and metrics/baseline.json; writes metrics/retrain.json,
metrics/plots/retrain.csv, data/retrain and metrics/comparison.json.
"""

import json
from pathlib import Path

from pydantic import ValidationError

from stages import console, params
from stages.files import write_json
from stages.params import Hyperparameters
from stages.protocol import in_words, train_and_test

COMPARED = ("test_accuracy", "parameters", "seconds_per_epoch")


def read_json(path: Path) -> dict:
    """Return the content of `path`; UserError if it is not there or is no JSON."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise console.UserError(f"{path} is missing; `dvc repro` makes it") from None
    except ValueError as error:
        raise console.UserError(f"{path} is no JSON ({error}); delete it and run `dvc repro`") from None


def compare(baseline: dict, tuned: dict) -> dict[str, dict[str, float]]:
    """Return baseline, tuned and change (tuned - baseline) of each figure in `COMPARED`."""
    return {
        name: {"baseline": baseline[name], "tuned": tuned[name], "change": round(tuned[name] - baseline[name], 6)}
        for name in COMPARED
    }


def main() -> None:
    settings = params.load()
    path = Path("data") / settings.retrain.from_ / "hyperparameters.json"
    try:
        hyperparameters = Hyperparameters.model_validate(read_json(path))
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise console.UserError(f"{path} does not fit the model: {reason}; `dvc repro --force tune`") from None
    baseline = read_json(Path("metrics/baseline.json"))
    tuned = train_and_test("retrain", hyperparameters, settings)
    comparison = compare(baseline, tuned)
    write_json("metrics/comparison.json", comparison)
    print(in_words("baseline", baseline))
    print(in_words("retrain", tuned))
    print(
        f"comparison: parameters {comparison['parameters']['change']:+,}, test accuracy "
        f"{comparison['test_accuracy']['change']:+.4f}, seconds per epoch {comparison['seconds_per_epoch']['change']:+.2f}"
    )


if __name__ == "__main__":
    console.run(main)
