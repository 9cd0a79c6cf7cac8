"""Baseline and tuned network compared: is the tuned one as good, smaller, faster?

Both were trained by the same function on the same data with the same budget over the same seeds; see compute/replicates.py.
The statistics are in inference.py. How long both take is measured here, in turn in one process.
"""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix

from stages.base import splits
from stages.base.console import UserError
from stages.base.files import write_csv, write_json
from stages.base.hyperparameters import Hyperparameters
from stages.base.params import Params
from stages.base.splits import Split
from stages.comparison import inference
from stages.compute.replicates import PREPARED, listed
from stages.training.backend import keras, tf
from stages.training.trainer import Subset, Trainer, build

NETWORKS = ("baseline", "retrain")
EPOCH_PART = 10  # a tenth of an epoch is timed
_MULTIPLYING = [".*MatMul.*", ".*Conv.*", ".*Einsum.*"]  # operations that consist of multiply-adds


def check(settings: Params) -> None:
    """Raise UserError unless what `baseline` left belongs to these params."""
    try:
        shape = np.load("data/baseline/predictions.npy", mmap_mode="r", allow_pickle=False).shape
        Path("data/baseline/model.keras").stat()
    except (OSError, ValueError) as error:
        name = getattr(error, "filename", None) or "data/baseline/predictions.npy"
        raise UserError(f"{name} is missing or damaged; `dvc repro baseline` makes it") from None
    expected = settings.train.replicates, len(splits.load(PREPARED / "test").labels)
    if shape != expected:
        raise UserError(
            f"data/baseline/predictions.npy holds {shape[0]} x {shape[-1]} predictions, but train.replicates and the test "
            f"images ask for {expected[0]} x {expected[1]}; `dvc repro baseline` makes it again"
        )


def compare(settings: Params, baseline: Hyperparameters, tuned: Hyperparameters) -> dict[str, object]:
    """Return the comparison, from data/baseline, data/retrain and both networks' hyperparameters.

    Writes it to metrics/comparison.json, and metrics/plots/confusion.csv: how many test images of each class the kept tuned
    network takes for which class. A ratio is the baseline's figure to the tuned one's. What the machine decides has `seconds`
    in its name, except for the speed in `summary`.
    """
    test = splits.load(PREPARED / "test")
    predictions = [np.load(f"data/{name}/predictions.npy", allow_pickle=False) for name in NETWORKS]
    right = [classes == test.labels for classes in predictions]
    difference = inference.difference_of_accuracies(*right)
    kept = [keras.models.load_model(f"data/{name}/model.keras") for name in NETWORKS]
    seconds_per_epoch = compare_seconds(*epochs(settings, baseline, tuned), rounds=7)
    per_prediction = compare_seconds([predictor(network) for network in kept], 1000, rounds=15, times=100)
    compared = {
        "verdict": inference.verdict(difference, settings.compare.margin),
        "superior": "yes" if difference.low > 0 else "no",
        "margin": settings.compare.margin,
        "test_accuracy": {
            "baseline": float(right[0].mean()),
            "tuned": float(right[1].mean()),
            "difference": difference.estimate,
            "low": difference.low,
            "high": difference.high,
        },
        "parameters": ratio(*(network.count_params() for network in kept)),
        "multiply_adds_per_image": ratio(*map(multiply_adds, kept)),
        "seconds_per_epoch": seconds_per_epoch,
        "milliseconds_per_prediction": per_prediction,
    }
    compared["summary"] = summary(compared, baseline, tuned)
    matrix = confusion_matrix(test.labels, predictions[1][0])
    actual, predicted = np.indices(matrix.shape).reshape(2, -1)
    write_csv("metrics/plots/confusion.csv", pd.DataFrame({"actual": actual, "predicted": predicted, "images": matrix.ravel()}))
    write_json("metrics/comparison.json", compared)
    return compared


def ratio(baseline: float, tuned: float) -> dict[str, float]:
    """Return both figures and the baseline's to the tuned one's."""
    return {"baseline": baseline, "tuned": tuned, "ratio": float(f"{baseline / tuned:.4g}")}


def multiply_adds(network: keras.Model) -> int:
    """Return the multiply-adds of one image's prediction: half of the operations that TensorFlow's profiler counts."""
    image = tf.TensorSpec((1, *network.input_shape[1:]), tf.float32)
    graph = tf.function(lambda images: network(images, training=False)).get_concrete_function(image).graph
    options = tf.compat.v1.profiler.ProfileOptionBuilder(tf.compat.v1.profiler.ProfileOptionBuilder.float_operation())
    options = options.with_accounted_types(_MULTIPLYING).with_empty_output().build()
    return tf.compat.v1.profiler.profile(graph, options=options).total_float_ops // 2


def epochs(settings: Params, baseline: Hyperparameters, tuned: Hyperparameters) -> tuple[list[Callable[[], object]], float]:
    """Return functions that train the baseline and the tuned network on a part of an epoch, and how many parts it has.

    An epoch is all of train + validation; a part are the first images of train.
    """
    train, validation = (splits.load(PREPARED / name) for name in ("train", "validation"))
    images = len(train.labels) + len(validation.labels)
    size = min(-(-images // EPOCH_PART), len(train.labels))
    data = Subset.of(Split(train.images[:size], train.labels[:size]))

    def epoch(hyperparameters: Hyperparameters) -> Callable[[], object]:
        network = build(hyperparameters.model_dump(), train.images.shape[1:], train.classes, settings.seed)
        trainer = Trainer(network, data, batch_size=settings.train.batch_size, seed=settings.seed)
        return lambda: trainer.train_epoch(0, {"accuracy": [], "loss": []})

    return [epoch(baseline), epoch(tuned)], images / size


def predictor(network: keras.Model) -> Callable[[], tf.Tensor]:
    """Return a function that classifies one image: its probabilities (1, classes)."""
    call = tf.function(lambda image: network(image, training=False), autograph=False)
    image = tf.zeros((1, *network.input_shape[1:]))
    return lambda: call(image)


def compare_seconds(
    functions: list[Callable[[], object]], factor: float = 1, *, rounds: int, times: int = 1
) -> dict[str, float]:
    """Return how long the baseline's and the tuned network's function take, after a first round that warms up.

    Each round calls both in turn, `times` times each. `baseline` and `tuned` are medians, in seconds times `factor`; `ratio` is
    the median of the rounds' ratios, `ratio_low` and `ratio_high` are their quartiles.
    """
    seconds = []
    for _ in range(rounds + 1):
        taken = []
        for function in functions:
            start = time.perf_counter()
            for _ in range(times):
                function()
            taken.append((time.perf_counter() - start) / times)
        seconds.append(taken)
    baseline, tuned = np.transpose(seconds[1:]) * factor
    low, middle, high = np.percentile(baseline / tuned, [25, 50, 75])
    figures = {
        "baseline": np.median(baseline),
        "tuned": np.median(tuned),
        "ratio": middle,
        "ratio_low": low,
        "ratio_high": high,
    }
    return {name: float(f"{figure:.4g}") for name, figure in figures.items()}


def summary(compared: dict, baseline: Hyperparameters, tuned: Hyperparameters) -> list[str]:
    """Return the comparison as one sentence, in parts to be joined by spaces.

    As a list it is in the file and in Git's diffs of it, but not in DVC's tables, which it would make as wide as it is.
    """
    before, after = baseline.model_dump(), tuned.model_dump()
    names = [name for name in after if before[name] != after[name]]
    accuracy, margin = compared["test_accuracy"], compared["margin"]
    speed = compared["seconds_per_epoch"]["ratio"]
    conclusion = {
        "non_inferior": f"not inferior by more than {margin}",
        "inferior": f"inferior by more than {margin}",
        "inconclusive": f"too uncertain to say whether it is inferior by more than {margin}",
    }[compared["verdict"]]
    return [
        f"{listed({name: after[name] for name in names})} instead of {listed({name: before[name] for name in names})}:"
        if names
        else "the same hyperparameters:",
        f"{fewer(compared['parameters']['ratio'])} parameters,",
        "as fast per epoch," if f"{speed:.1f}" == "1.0" else f"{speed:.1f} times as fast per epoch,",
        f"test accuracy {accuracy['difference']:+.4f} (95 % interval {accuracy['low']:+.4f} to {accuracy['high']:+.4f}):",
        f"{conclusion}{', and superior' if compared['superior'] == 'yes' else ''}",
    ]


def fewer(ratio: float) -> str:
    """Return in words how many fewer the tuned network has, from the baseline's to the tuned one's: `19 % fewer` for 1.231."""
    percent = round(100 * (1 - 1 / ratio))
    return "as many" if percent == 0 else f"{abs(percent)} % {'fewer' if percent > 0 else 'more'}"
