"""Baseline and tuned network compared: is the tuned one as good, smaller, faster?

Both were trained by the same function on the same data with the same budget over the same seeds; see compute/replicates.py.
The statistics are in inference.py. How long both take is measured here, in turn in one process.
"""

import timeit
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix

from stages.base import splits
from stages.base.console import UserError, decimals
from stages.base.files import read_json, write_csv, write_json
from stages.base.hyperparameters import Hyperparameters
from stages.base.params import Params
from stages.base.splits import Split
from stages.comparison import inference
from stages.compute.replicates import listed
from stages.training.backend import keras
from stages.training.score import NAME
from stages.training.trainer import Subset, Trainer, build, predictor

NETWORKS = ("baseline", "retrain")
EPOCH_PART = 40  # a fortieth of an epoch is timed, in many rounds
BATCH = 1000  # examples; predictions of one and of so many are timed


def check(settings: Params) -> None:
    """Raise UserError unless what `baseline` left belongs to these params."""
    try:
        shape = np.load("data/baseline/scores.npy", mmap_mode="r", allow_pickle=False).shape
    except (OSError, ValueError, EOFError):
        raise UserError("data/baseline/scores.npy is missing or damaged; `dvc repro baseline` makes it") from None
    trained = read_json(Path("data/baseline/hyperparameters.json"))
    if trained != settings.baseline.model_dump():
        raise UserError(
            f"data/baseline was trained with {listed(trained)}, but baseline in params.yaml is "
            f"{listed(settings.baseline.model_dump())}; `dvc repro baseline` makes it again"
        )
    expected = settings.train.replicates, len(splits.load(splits.PREPARED / "test").labels)
    if shape != expected:
        raise UserError(
            f"data/baseline/scores.npy holds {' x '.join(map(str, shape))} scores, but train.replicates and the test "
            f"examples ask for {expected[0]} x {expected[1]}; `dvc repro baseline` makes it again"
        )


def compare(settings: Params, tuned: Hyperparameters) -> dict:
    """Return the comparison, from data/baseline, data/retrain and both networks' hyperparameters.

    Writes it to metrics/comparison.json, and metrics/plots/confusion.csv: how many test examples of each class the kept tuned
    network takes for which class or, where labels are numbers, each label and its prediction. A ratio is the baseline's figure
    to the tuned one's. What the machine decides has `seconds` in its name, except for the speed in `summary`.
    """
    test = splits.load(splits.PREPARED / "test")
    scores = [np.load(f"data/{name}/scores.npy", allow_pickle=False) for name in NETWORKS]
    difference = inference.difference_of_scores(*scores)
    outputs = splits.load(splits.TRAINED_ON[0]).outputs
    networks = [
        build(hyperparameters.model_dump(), test.inputs.shape[1:], outputs, settings.seed)
        for hyperparameters in (settings.baseline, tuned)
    ]
    sizes = [network.count_params() for network in networks]
    predictors = [predictor(network) for network in networks]
    seconds_per_epoch = compare_seconds(*parts_of_epochs(settings, networks), rounds=15)
    inputs = test.inputs[np.arange(BATCH) % len(test.inputs)]
    of_one, of_many = (
        compare_seconds([timed(partial(predict, inputs[:examples]), times) for predict in predictors], 1000, rounds=15)
        for examples, times in ((1, 25), (BATCH, 4))
    )
    compared: dict = {
        "verdict": inference.verdict(difference, settings.compare.margin),
        "superior": "yes" if difference.low > 0 else "no",
        "margin": settings.compare.margin,
        f"test_{NAME}": {
            "baseline": float(scores[0].mean(dtype=np.float64)),
            "tuned": float(scores[1].mean(dtype=np.float64)),
            "difference": difference.estimate,
            "low": difference.low,
            "high": difference.high,
        },
        "parameters": {"baseline": sizes[0], "tuned": sizes[1], "ratio": float(f"{sizes[0] / sizes[1]:.4g}")},
        "seconds_per_epoch": seconds_per_epoch,
        "milliseconds_per_prediction": of_one,
        f"milliseconds_per_{BATCH}_predictions": of_many,
    }
    compared["summary"] = summary(compared, settings.baseline, tuned)
    predicted = {"actual": test.labels, "predicted": np.load("data/retrain/predictions.npy", allow_pickle=False)[0]}
    if test.classes:
        matrix = confusion_matrix(*predicted.values(), labels=range(outputs))
        predicted = dict(zip(predicted, np.indices(matrix.shape).reshape(2, -1), strict=True)) | {"examples": matrix.ravel()}
    write_csv("metrics/plots/confusion.csv", pd.DataFrame(predicted))
    write_json("metrics/comparison.json", compared)
    return compared


def parts_of_epochs(settings: Params, networks: list[keras.Model]) -> tuple[list[Callable[[], float]], float]:
    """Return functions that train each of `networks` on a part of an epoch and return its seconds, and how many parts it has.

    An epoch is all of train + validation; a part are the first examples of train.
    """
    train, validation = (splits.load(folder) for folder in splits.TRAINED_ON)
    examples = len(train.labels) + len(validation.labels)
    size = min(-(-examples // EPOCH_PART), len(train.labels))
    data = Subset.of(Split(train.inputs[:size], train.labels[:size]))

    def part(network: keras.Model) -> Callable[[], float]:
        trainer = Trainer(network, data, batch_size=settings.train.batch_size, seed=settings.seed)
        return lambda: trainer.train_epoch(0, {NAME: [], "loss": []})

    return [part(network) for network in networks], examples / size


def timed(function: Callable[[], object], times: int) -> Callable[[], float]:
    """Return a function that calls `function` so many times and returns the seconds that one call took."""
    return lambda: timeit.timeit(function, number=times) / times


def compare_seconds(functions: list[Callable[[], float]], factor: float, *, rounds: int) -> dict[str, float]:
    """Return the seconds that the baseline's and the tuned network's function return, after a first round that warms up.

    Each round calls both in turn. `baseline` and `tuned` are medians, in seconds times `factor`; `ratio` is the median of the
    rounds' ratios, `ratio_low` and `ratio_high` are their quartiles.
    """
    seconds = [[function() for function in functions] for _ in range(rounds + 1)]
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
    score, margin, form = compared[f"test_{NAME}"], compared["margin"], f"+{decimals(compared['margin'])}"
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
        f"test {NAME.replace('_', ' ')} {score['difference']:{form}}",
        f"(95 % interval {score['low']:{form}} to {score['high']:{form}}):",
        f"{conclusion}{', and superior' if compared['superior'] == 'yes' else ''}",
    ]


def fewer(ratio: float) -> str:
    """Return in words how many fewer the tuned network has, from the baseline's to the tuned one's: `19 % fewer` for 1.231."""
    if ratio < 0.5:
        return f"{1 / ratio:.3g} times as many"
    percent = round(100 * (1 - 1 / ratio))
    return "as many" if percent == 0 else f"{abs(percent)} % {'fewer' if percent > 0 else 'more'}"
