"""Compares the tuned network with the baseline: is it as good, smaller, faster?

Both were trained by the same function on the same data with the same seeds: see replicates.py. The statistics
are in inference.py. The times of both are measured in turns on one worker: see measure.py.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from stages.base import console, splits
from stages.base.console import UserError, decimals, say
from stages.base.files import read_json, write_csv, write_json
from stages.base.params import Params
from stages.base.section import listed
from stages.comparison import inference
from stages.compute.runner import Runner
from stages.training.evaluation import PARTS
from stages.training.score import NAME

MOST_POINTS, MOST_CLASSES = 10_000, 100  # in the plot of predictions
FEW = 10  # a margin of fewer answers, right or wrong, settles little


def check(settings: Params) -> None:
    """Raise UserError unless the outputs of `baseline` belong to these params."""
    try:
        shape = np.load("data/baseline/scores.npy", mmap_mode="r", allow_pickle=False).shape
    except (OSError, ValueError, EOFError):
        state = "is missing or damaged; `dvc repro baseline` makes it"
        raise UserError(f"data/baseline/scores.npy {state}") from None
    baseline = read_json(Path("data/baseline/network.json"))
    trained = {**baseline["hyperparameters"], "train.epochs": baseline["epochs"], "seed": baseline["seed"]}
    wanted = {**settings.baseline, "train.epochs": settings.train.epochs, "seed": settings.seed}
    if trained != wanted:
        raise UserError(
            f"data/baseline was trained with {listed(trained)}, but params.yaml has {listed(wanted)}; "
            "`dvc repro baseline` makes it again"
        )
    test = splits.load(splits.TEST)
    count, what = len(test.labels), "test examples"
    if test.groups is not None:
        count, what = len(np.unique(test.groups)), "groups of test examples"
    expected = settings.train.replicates, count
    if shape not in (expected, (expected[0], min(PARTS, count))):
        raise UserError(
            f"data/baseline/scores.npy holds {' x '.join(map(str, shape))} scores, but train.replicates and "
            f"the {what} ask for {expected[0]} x {expected[1]}; `dvc repro baseline` makes it again"
        )


def compare(settings: Params, tuned: dict[str, object], epochs: int, runner: Runner) -> dict:
    """Return the comparison of data/baseline with data/retrain.

    Writes it to metrics/comparison.json, and the tables of `answer` and `predictions` to
    metrics/plots/answer.csv and confusion.csv. A ratio is the baseline's figure divided by the tuned
    network's. Figures that depend on the machine have `seconds` in their names, except in `summary`.

    Args:
        tuned: the hyperparameters of data/retrain.
        epochs: how many it was trained for.
    """
    scores = [np.load(f"data/{name}/scores.npy", allow_pickle=False) for name in ("baseline", "retrain")]
    networks = {
        "baseline": {"hyperparameters": settings.baseline, "epochs": settings.train.epochs},
        "tuned": {"hyperparameters": tuned, "epochs": epochs},
    }
    same = networks["baseline"] == networks["tuned"]
    difference = inference.difference_of_scores(*scores, same=same)
    measured = runner.ask("compare", networks=networks)
    sizes, margin = measured.pop("parameters"), settings.compare.margin
    examples, of_each = len(splits.load(splits.TEST).labels), difference.right_or_wrong and not same
    if of_each and difference.examples == examples and (answers := margin * examples) < FEW:
        share = f"{answers:.3g} of {examples:,} test examples"
        advice = "test on more examples, or set a larger margin if you can"
        say(f"note: compare.margin {margin} is {share}; fewer than {FEW} decide little: {advice}")
    verdict = inference.verdict(difference, margin)
    compared: dict = {
        "verdict": verdict,
        "superior": "yes" if difference.low > 0 else "no",
        "worse": "yes" if difference.high < 0 else "no",
        "margin": margin,
    }
    if verdict == "inconclusive":
        compared["probability_within_margin"] = round(inference.probability_within(difference, margin), 3)
        compared["replicates_to_settle"] = inference.replicates_to_settle(difference, margin)
    compared[f"test_{NAME}"] = {
        "baseline": float(scores[0].mean(dtype=np.float64)),
        "tuned": float(scores[1].mean(dtype=np.float64)),
        "difference": difference.estimate,
        "low": difference.low,
        "high": difference.high,
    }
    compared["epochs"] = {name: network["epochs"] for name, network in networks.items()}
    compared["parameters"] = {**sizes, "ratio": float(f"{sizes['baseline'] / sizes['tuned']:.4g}")}
    compared |= measured
    compared["summary"] = sentence(compared, settings.baseline, tuned)
    write_csv("metrics/plots/answer.csv", answer(compared))
    write_csv("metrics/plots/confusion.csv", predictions())
    write_json("metrics/comparison.json", compared)
    return compared


def answer(compared: dict) -> pd.DataFrame:
    """Return the table of the plot "The answer": a row for each `figure`, with `value`, `low` and `high`.

    The first row is the difference of scores, with `margin` and `verdict`. The others are the tuned network's
    size and times in percent of the baseline's.
    """
    score = compared[f"test_{NAME}"]
    interval = {"value": score["difference"], "low": score["low"], "high": score["high"]}
    decided = {"margin": compared["margin"], "verdict": compared["verdict"]}
    rows = [{"figure": f"test_{NAME}", **interval, **decided}]
    columns = {"ratio": "value", "ratio_high": "low", "ratio_low": "high"}
    for name, figures in compared.items():
        if isinstance(figures, dict) and "ratio" in figures and name != "seconds_per_epoch":
            ratios = {column: figures[ratio] for ratio, column in columns.items() if ratio in figures}
            percent = {column: float(f"{100 / ratio:.4g}") for column, ratio in ratios.items()}
            rows.append({"figure": name, **percent})
    return pd.DataFrame(rows)


def predictions() -> pd.DataFrame:
    """Return the table of the saved tuned network's predictions for the test examples.

    If labels are classes, of examples or of their pixels or words, that is `confusion`. If they are numbers,
    it has a row for each, with `actual` and `predicted`, at most `MOST_POINTS` of them.
    """
    labels, training = splits.load(splits.TEST).labels, splits.load(splits.TRAINING)
    predicted = np.load("data/retrain/predictions.npy", allow_pickle=False)[0]
    if "f" not in (labels.dtype.kind, predicted.dtype.kind):
        names = splits.about()["class_names"]
        if not names or (training.several_labels and len(names) == labels.shape[1]):  # names of labels
            names = range(int(training.labels.max()) + 1)
        return confusion(labels.ravel(), predicted.ravel(), np.array(names))
    chosen = np.unique(np.linspace(0, labels.size - 1, MOST_POINTS).astype(int))
    return pd.DataFrame({"actual": labels.reshape(-1)[chosen], "predicted": predicted.reshape(-1)[chosen]})


def confusion(actual: np.ndarray, predicted: np.ndarray, names: np.ndarray) -> pd.DataFrame:
    """Return a row for each pair of an `actual` and a `predicted` class: how many `examples` have it.

    Pairs without examples are included, since the plot takes the order of classes from the rows. With more
    than `MOST_CLASSES` classes, the table has the most frequent mistakes only, at most half as many, and the
    right answers for the classes that they mix up.
    """
    classes, most = len(names), MOST_CLASSES // 2
    named = (predicted < classes) & (actual >= 0)  # there may be more outputs than classes, and masked labels
    pairs = actual[named].astype(np.int64) * classes + predicted[named]
    if classes <= MOST_CLASSES:
        cells, examples = np.arange(classes**2), np.bincount(pairs, minlength=classes**2)
    else:
        found, counts = np.unique(pairs, return_counts=True)
        wrong = found // classes != found % classes
        mistakes = found[wrong][np.argsort(-counts[wrong], kind="stable")[:most]]
        mixed = np.unique([mistakes // classes, mistakes % classes]) if mistakes.size else np.arange(most)
        cells = np.concatenate([mixed * (classes + 1), mistakes])
        examples = np.where(np.isin(cells, found), counts[np.searchsorted(found, cells) % len(found)], 0)
        what = f"the {len(mistakes)} most frequent mistakes among {classes:,} classes"
        say(f"note: metrics/plots/confusion.csv has {what}")
    rows, columns = names[cells // classes], names[cells % classes]
    return pd.DataFrame({"actual": rows, "predicted": columns, "examples": examples})


def sentence(compared: dict, before: Mapping[str, object], after: Mapping[str, object]) -> list[str]:
    """Return the comparison as one sentence, in parts to be joined by spaces.

    DVC leaves lists out of its tables, which a long sentence would widen.
    """
    names = [name for name in {**after, **before} if before.get(name) != after.get(name)]
    networks = []
    for network, hyperparameters in (("tuned", after), ("baseline", before)):
        parts = [listed({name: hyperparameters[name] for name in names if name in hyperparameters})]
        if compared["epochs"]["tuned"] != compared["epochs"]["baseline"]:
            parts.append(console.count(compared["epochs"][network], "epoch"))
        networks.append(", ".join(filter(None, parts)) or "nothing")
    score, form = compared[f"test_{NAME}"], f"+{decimals(compared['margin'])}"
    return [
        f"{' instead of '.join(networks)}:" if networks != ["nothing"] * 2 else "the same hyperparameters:",
        f"{fewer(compared['parameters']['ratio'])} parameters,",
        f"{duration(compared['seconds_per_training'])},",
        f"test {NAME.replace('_', ' ')} {score['difference']:{form}}",
        f"(95 % interval {score['low']:{form}} to {score['high']:{form}}):",
        conclusion(compared),
    ]


def conclusion(compared: dict) -> str:
    """Return the verdict in words; what is certain comes first."""
    verdict, score, form = compared["verdict"], compared[f"test_{NAME}"], decimals(compared["margin"])
    by_margin = f"by more than {compared['margin']}"
    loss = f"worse by {-score['high']:{form}} to {-score['low']:{form}}" if compared["worse"] == "yes" else ""
    if verdict == "inferior":
        return f"inferior {by_margin}"
    if verdict == "non_inferior":
        more = ", and superior" if compared["superior"] == "yes" else f", but {loss}" if loss else ""
        return f"not inferior {by_margin}{more}"
    open_ = f"{loss}; open whether {by_margin}" if loss else f"open whether worse {by_margin}"
    count, confidence = compared["replicates_to_settle"], 100 * compared["probability_within_margin"]
    more = (
        f"{count} trainings of each with another seed would probably" if count else "more trainings would not"
    )
    return f"{open_} (at {confidence:.0f} % confidence it is not; {more} settle it)"


def duration(seconds: Mapping[str, float]) -> str:
    """Return in words how long the tuned network's training took, from the ratio and its quartiles."""
    share, low, high = (1 / seconds[name] for name in ("ratio", "ratio_high", "ratio_low"))
    lower, upper = f"{low:.1f}", f"{high:.1f}"
    if low <= 1 <= high and lower != upper:
        return f"trained in {lower} to {upper} times the time"
    if low <= 1 <= high or 0.95 <= share < 1.05:
        return "trained in about the same time"
    # One digit, since the share varies more between runs than its quartiles within one run tell
    return f"trained in {share:.1g} of the time" if share < 1 else f"trained in {share:.1f} times the time"


def fewer(ratio: float) -> str:
    """Return in words how many fewer the tuned network has: `19 % fewer` for the ratio 1.231."""
    if ratio < 0.5:
        return f"{1 / ratio:.3g} times as many"
    percent = round(100 * (1 - 1 / ratio))
    if percent == 100:  # only by rounding
        return "more than 99 % fewer"
    return "as many" if percent == 0 else f"{abs(percent)} % {'fewer' if percent > 0 else 'more'}"
