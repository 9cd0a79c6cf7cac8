"""One protocol for baseline and retrain, so that their numbers compare: same data, same budget, same seed, same keys."""

import statistics
from pathlib import Path

import pandas as pd

from stages import splits, training
from stages.console import UserError
from stages.files import write_csv, write_json
from stages.params import Hyperparameters, Params
from stages.training import Part


def train_and_test(name: str, hyperparameters: Hyperparameters, settings: Params) -> dict[str, object]:
    """Train on train + validation for `train.epochs`, then touch the test images once.

    Writes metrics/NAME.json, metrics/plots/NAME.csv (a row an epoch), data/NAME/model.keras and data/NAME/hyperparameters.json.

    Returns:
        What is in metrics/NAME.json. `train_accuracy` and `train_loss` are the last epoch's running means with dropout on, as
        Keras reports them; `seconds_per_epoch` is the median without the first epoch, which also warms up the machine.

    Raises:
        UserError: the training diverged.
    """
    prepared = Path("data/prepared")
    data = splits.join(splits.load(prepared / "train"), splits.load(prepared / "validation"))
    chosen = hyperparameters.model_dump()
    state = training.train(chosen, data, epochs=settings.train.epochs, batch_size=settings.train.batch_size, seed=settings.seed)
    if state.failure:
        raise UserError(f"{name}: {state.failure} with {chosen}; a lower learning_rate usually helps")
    network = training.build(chosen, data.images.shape[1:], data.classes, settings.seed, state)
    test_accuracy, test_loss = training.evaluator(network)(Part.of(splits.load(prepared / "test")))
    metrics = {
        **chosen,
        "parameters": state.parameters,
        "epochs": state.epoch,
        "train_accuracy": state.history["accuracy"][-1],
        "train_loss": state.history["loss"][-1],
        "test_accuracy": test_accuracy,
        "test_loss": test_loss,
        "seconds_per_epoch": round(statistics.median(state.seconds[1:] or state.seconds), 3),
    }
    training.save(network, Path("data") / name / "model.keras")
    write_json(Path("data") / name / "hyperparameters.json", chosen)
    history = pd.DataFrame({"epoch": range(1, state.epoch + 1), **state.history})
    write_csv(Path("metrics/plots") / f"{name}.csv", history)
    write_json(Path("metrics") / f"{name}.json", metrics)
    return metrics


def in_words(name: str, metrics: dict[str, object]) -> str:
    """Return the result of `train_and_test` in one line."""
    return (
        f"{name}: {metrics['units']} units, {metrics['parameters']:,} parameters, "
        f"test accuracy {metrics['test_accuracy']:.4f}, {metrics['seconds_per_epoch']:.2f} s per epoch"
    )
