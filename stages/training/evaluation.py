"""The score of score.py over a set of examples, and how far other examples would move it."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from stages.base.console import UserError
from stages.training.score import NAME, score

GROUPS = 50  # into which examples are divided for the jackknife
SCORE, LOSS = f"val_{NAME}", "val_loss"
EVALUATED = (SCORE, f"{SCORE}_error", LOSS, f"{LOSS}_error")


def check_names(tune: Any) -> None:
    """Raise UserError unless NAME can stand in files, and `tune` of params.yaml names what there is."""
    monitor = tune.early_stopping.monitor if tune.early_stopping else None
    if not re.fullmatch("[a-z][a-z0-9_]*", NAME):
        raise UserError(f"stages/training/score.py: NAME is {NAME!r}; it should be of a-z, 0-9 and _ only")
    for key, value, choices in (
        ("objective", tune.objective, (SCORE, LOSS)),
        ("early_stopping.monitor", monitor, (SCORE, LOSS, NAME, "loss")),
    ):
        if value is not None and value not in choices:
            raise UserError(
                f"tune.{key} in params.yaml is {value}, but NAME in stages/training/score.py is "
                f"{NAME}: use {' or '.join(choices)}, or change NAME"
            )


def mean(labels: np.ndarray, outputs: np.ndarray) -> float:
    """Return the score of a set of examples; UserError as for `values`."""
    return float(np.mean(_score(labels, outputs)))


def values(labels: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Return numbers, float64, whose mean is the score; they vary as other examples would make it vary.

    That is the score of each example, (n,), or what `jackknife` returns of a score for the whole set.

    Raises:
        UserError: the score is neither (n,) nor one number.
    """
    scores = _score(labels, outputs)
    return scores if scores.ndim else jackknife(_score, labels, outputs)


def jackknife(function: Callable, labels: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Return the pseudo-value of each of `GROUPS` random groups of examples, for a function of a whole set.

    They are moved so that their mean is the function's value for all (Tukey 1958, "Bias and confidence in
    not-quite large samples"; Kott 2001, "The delete-a-group jackknife", Journal of Official Statistics 17).
    """
    groups = np.random.default_rng(0).permutation(len(labels)) % min(GROUPS, len(labels))
    kept = (groups != i for i in range(groups.max() + 1))
    without = np.array([function(labels[rows], outputs[rows]) for rows in kept])
    return function(labels, outputs) + (len(without) - 1) * (without.mean() - without)


def mean_and_error(numbers: np.ndarray) -> tuple[float, float]:
    """Return the mean of `numbers` (n,) and its standard error."""
    numbers = numbers.astype(np.float64)
    return float(numbers.mean()), float(numbers.std() / np.sqrt(len(numbers)))


def _score(labels: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    scores = np.asarray(score(labels, outputs))
    if scores.shape not in ((), (len(labels),)) or scores.dtype.kind not in "biuf":
        raise UserError(
            f"stages/training/score.py: score returns {scores.dtype} of shape {scores.shape} for labels of "
            f"shape {labels.shape} and outputs of shape {outputs.shape}; it should be a number for each "
            f"example, of shape ({len(labels)},), or one for all"
        )
    return scores.astype(np.float64)
