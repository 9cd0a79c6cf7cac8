"""The score of score.py on a set of examples, and its standard error."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from stages.base.console import UserError
from stages.training.score import NAME, score

PARTS = 50  # of the examples, or of their groups, in the jackknife
SCORE, LOSS = f"val_{NAME}", "val_loss"
EVALUATED = (SCORE, f"{SCORE}_error", LOSS, f"{LOSS}_error")


def check_names(tune: Any) -> None:
    """Raise UserError unless NAME is a valid name, and the objective and monitor in `tune` exist."""
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
    """Return the score of a set of examples; UserError if its shape or type is wrong."""
    return float(np.mean(_score(labels, outputs)))


def values(labels: np.ndarray, outputs: np.ndarray, groups: np.ndarray | None = None) -> np.ndarray:
    """Return independent values, float64, whose mean is the score and whose spread gives its standard error.

    These are the scores of the examples, (n,), or with `groups`, `of_groups` of them. If the score is one
    number for the whole set, they are the pseudo-values of `jackknife`.

    Args:
        labels, outputs: (n, ...), as for `score`.
        groups: (n,) integers, at least two different ones. Examples of a group may resemble each other, so
            the groups are the independent samples. None: the examples are.

    Raises:
        UserError: the score is neither (n,) nor one number, or is not finite if a part of the examples is
            left out.
    """
    scores = _score(labels, outputs)
    if scores.ndim:
        return of_groups(scores, groups)
    pseudo_values = jackknife(_score, labels, outputs, groups)
    if np.isfinite(scores) and not np.isfinite(pseudo_values).all():
        raise UserError(
            f"stages/training/score.py: the score of all {len(labels)} examples is {scores:.4g}, but it is "
            "not finite when a part is left out to estimate its standard error; each class needs examples in "
            "several parts or groups, or let score return a finite number for such subsets too"
        )
    return pseudo_values


def of_groups(numbers: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    """Return the jackknife's pseudo-value of each group, (groups,) float64, for the mean of `numbers` (n,).

    If all groups have the same size, this is the mean of each group. As in `jackknife`, the pseudo-values are
    shifted to have the mean of `numbers`. Without groups, return `numbers`.
    """
    if groups is None:
        return numbers
    numbers, (_, group_of) = numbers.astype(np.float64), np.unique(groups, return_inverse=True)
    sizes, sums = np.bincount(group_of), np.bincount(group_of, numbers)
    return _pseudo_values(numbers.mean(), (numbers.sum() - sums) / (len(numbers) - sizes))


def jackknife(
    function: Callable, labels: np.ndarray, outputs: np.ndarray, groups: np.ndarray | None = None
) -> np.ndarray:
    """Return the pseudo-value of each of `PARTS` random parts of the examples, for a function of a whole set.

    They are shifted so that their mean is the function's value for all examples (Tukey 1958, "Bias and
    confidence in not-quite large samples"; Kott 2001, "The delete-a-group jackknife", Journal of Official
    Statistics 17). With `groups`, each part consists of whole groups. If there are fewer groups or examples
    than `PARTS`, each is a part.
    """
    units = np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1]
    count = units.max() + 1
    parts = (np.random.default_rng(0).permutation(count) % min(PARTS, count))[units]
    kept = (parts != i for i in range(parts.max() + 1))
    without = np.array([function(labels[rows], outputs[rows]) for rows in kept])
    return _pseudo_values(function(labels, outputs), without)


def _pseudo_values(whole: float, without: np.ndarray) -> np.ndarray:
    """Return pseudo-values from the value of all examples, `whole`, and the values `without` each part."""
    return whole + (len(without) - 1) * (without.mean() - without)


def mean_and_error(numbers: np.ndarray) -> tuple[float, float]:
    """Return the mean of `numbers` (n,) and its standard error (n - 1 degrees of freedom; 0 if n is 1)."""
    numbers = numbers.astype(np.float64)
    return float(numbers.mean()), float(numbers.std() / np.sqrt(max(1, len(numbers) - 1)))


def _score(labels: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Return what `score` returns, (n,) or () float64; UserError if its shape or type is wrong."""
    labels, outputs = labels.view(), outputs.view()
    labels.flags.writeable = outputs.flags.writeable = False  # `score` must not change the data
    scores = np.asarray(score(labels, outputs))
    if scores.shape not in ((), (len(labels),)) or scores.dtype.kind not in "biuf":
        raise UserError(
            f"stages/training/score.py: score returns {scores.dtype} of shape {scores.shape} for labels of "
            f"shape {labels.shape} and outputs of shape {outputs.shape}; it should be a number for each "
            f"example, of shape ({len(labels)},), or one for all"
        )
    return scores.astype(np.float64)
