"""Baseline and tuned network compared: is the tuned one as good, smaller, faster?

Both were trained by the same function on the same data with the same budget over the same seeds: see
replicates.py. The statistics are in inference.py. How long both take is measured on a worker, in turn.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix

from stages.base import splits
from stages.base.console import UserError, decimals
from stages.base.files import read_json, write_csv, write_json
from stages.base.params import Params
from stages.base.section import listed
from stages.comparison import inference
from stages.compute.runner import Runner
from stages.training.score import NAME

NETWORKS = ("baseline", "retrain")


def check(settings: Params) -> None:
    """Raise UserError unless what `baseline` left belongs to these params."""
    try:
        shape = np.load("data/baseline/scores.npy", mmap_mode="r", allow_pickle=False).shape
    except (OSError, ValueError, EOFError):
        raise UserError(
            "data/baseline/scores.npy is missing or damaged; `dvc repro baseline` makes it"
        ) from None
    trained = read_json(Path("data/baseline/hyperparameters.json"))
    if trained != settings.baseline.model_dump():
        raise UserError(
            f"data/baseline was trained with {listed(trained)}, but baseline in params.yaml is "
            f"{listed(settings.baseline.model_dump())}; `dvc repro baseline` makes it again"
        )
    expected = settings.train.replicates, len(splits.load(splits.TEST).labels)
    if shape != expected:
        raise UserError(
            f"data/baseline/scores.npy holds {' x '.join(map(str, shape))} scores, but train.replicates and "
            f"the test examples ask for {expected[0]} x {expected[1]}; `dvc repro baseline` makes it again"
        )


def compare(settings: Params, tuned: dict[str, object], runner: Runner) -> dict:
    """Return the comparison, from data/baseline, data/retrain and both networks' hyperparameters.

    Writes it to metrics/comparison.json, and metrics/plots/confusion.csv: how many test examples of each
    class the kept tuned network takes for which class or, where labels are numbers, each label and its
    prediction. A ratio is the baseline's figure to the tuned one's. What the machine decides has `seconds` in
    its name, except for the speed in `summary`.
    """
    test = splits.load(splits.TEST)
    scores = [np.load(f"data/{name}/scores.npy", allow_pickle=False) for name in NETWORKS]
    difference = inference.difference_of_scores(*scores)
    baseline = settings.baseline.model_dump()
    measured = runner.ask("compare", networks={"baseline": baseline, "tuned": tuned})
    sizes = measured.pop("parameters")
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
        "parameters": {**sizes, "ratio": float(f"{sizes['baseline'] / sizes['tuned']:.4g}")},
        **measured,
    }
    compared["summary"] = sentence(compared, baseline, tuned)
    predicted = {
        "actual": test.labels,
        "predicted": np.load("data/retrain/predictions.npy", allow_pickle=False)[0],
    }
    if test.classes:
        matrix = confusion_matrix(*predicted.values(), labels=range(splits.load(splits.TRAINING).outputs))
        predicted = dict(zip(predicted, np.indices(matrix.shape).reshape(2, -1), strict=True)) | {
            "examples": matrix.ravel()
        }
    write_csv("metrics/plots/confusion.csv", pd.DataFrame(predicted))
    write_json("metrics/comparison.json", compared)
    return compared


def sentence(compared: dict, before: dict[str, object], after: dict[str, object]) -> list[str]:
    """Return the comparison as one sentence, in parts to be joined by spaces.

    As a list it is in the file and in Git's diffs of it, but not in DVC's tables, which it would widen.
    """
    names = [name for name in after if before[name] != after[name]]
    new, old = (listed({name: each[name] for name in names}) for each in (after, before))
    score, margin, form = compared[f"test_{NAME}"], compared["margin"], f"+{decimals(compared['margin'])}"
    speed = compared["seconds_per_epoch"]["ratio"]
    conclusion = {
        "non_inferior": f"not inferior by more than {margin}",
        "inferior": f"inferior by more than {margin}",
        "inconclusive": f"too uncertain to say whether it is inferior by more than {margin}",
    }[compared["verdict"]]
    return [
        f"{new} instead of {old}:" if names else "the same hyperparameters:",
        f"{fewer(compared['parameters']['ratio'])} parameters,",
        "as fast per epoch," if f"{speed:.1f}" == "1.0" else f"{speed:.1f} times as fast per epoch,",
        f"test {NAME.replace('_', ' ')} {score['difference']:{form}}",
        f"(95 % interval {score['low']:{form}} to {score['high']:{form}}):",
        f"{conclusion}{', and superior' if compared['superior'] == 'yes' else ''}",
    ]


def fewer(ratio: float) -> str:
    """Say how many fewer the tuned network has, from the baseline's to its own: `19 % fewer` for 1.231."""
    if ratio < 0.5:
        return f"{1 / ratio:.3g} times as many"
    percent = round(100 * (1 - 1 / ratio))
    return "as many" if percent == 0 else f"{abs(percent)} % {'fewer' if percent > 0 else 'more'}"
