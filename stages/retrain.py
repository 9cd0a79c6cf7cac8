"""Train the network with the hyperparameters that the search found (or the baseline's, as a control) and compare.

Reads `seed`, `train`, `retrain` and `compare`, data/tune/hyperparameters.json and what `baseline` wrote; writes
metrics/retrain.json, metrics/plots/retrain.csv, data/retrain, and the comparison: metrics/comparison.json and
metrics/plots/confusion.csv.
"""

from pathlib import Path

from pydantic import ValidationError

from stages import console, params
from stages.files import read_json
from stages.params import Hyperparameters
from stages.search.cluster import Cluster


def main() -> None:
    settings = params.load()
    path = Path("data") / settings.retrain.from_ / "hyperparameters.json"
    try:
        hyperparameters = Hyperparameters.model_validate(read_json(path))
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise console.UserError(f"{path} does not fit the model: {reason}; `dvc repro --force tune`") from None
    baseline = read_json(Path("metrics/baseline.json"))
    with Cluster(settings.runtime.workers) as cluster:
        from stages import comparison  # TensorFlow, which workers import at the same time
        from stages.protocol import in_words, train_and_test

        comparison.check(settings)
        tuned = train_and_test("retrain", hyperparameters, settings, cluster)
    compared = comparison.compare(settings, baseline, tuned)
    print(in_words("baseline", baseline))
    print(in_words("retrain", tuned))
    print(f"comparison: {' '.join(compared['summary'])}")


if __name__ == "__main__":
    console.run(main)
