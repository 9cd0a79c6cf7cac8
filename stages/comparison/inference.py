"""The interval and the verdict: what can be said of two networks that were each trained a few times.

SciPy does the arithmetic; the source of each method is in its docstring.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import stdtr, stdtrit  # scipy.stats has the same in a module that is slow to import

CONFIDENCE = 0.95
MOST_REPLICATES = 1000  # that `replicates_to_settle` looks at


@dataclass(frozen=True)
class Difference:
    """How much better one network is than another, by scores of seeds and examples.

    Attributes:
        estimate: the mean difference.
        low, high: its confidence interval.
        of_seeds: the variance between seeds, of one seed's mean.
        of_examples: the part of the mean's variance that is due to the examples.
        seeds, examples: how many there were.
    """

    estimate: float
    low: float
    high: float
    of_seeds: float
    of_examples: float
    seeds: int
    examples: int

    @property
    def varies(self) -> bool:
        """Whether scores differ from seed to seed or from example to example."""
        return self.of_seeds + self.of_examples > 0

    def spread(self, seeds: int | None = None) -> tuple[float, float]:
        """Return the standard error of the mean and its degrees of freedom, with so many seeds."""
        seeds = seeds or self.seeds
        variances = np.array([self.of_seeds / seeds, self.of_examples])
        variance, freedoms = variances.sum(), np.array([seeds - 1, self.examples - 1])
        return float(np.sqrt(variance)), float(variance**2 / (variances**2 / freedoms).sum())


def difference_of_scores(baseline: np.ndarray, tuned: np.ndarray, *, same: bool = False) -> Difference:
    """Return how much better `tuned` is, with a 95 % interval for other seeds and other test examples.

    Seeds and test examples are both samples, and each of the two networks of a seed answers each example: the
    differences form a table with two crossed random effects, as in studies of readers by cases that are fully
    crossed (Obuchowski & Rockette 1995; Hillis 2007, "A comparison of denominator degrees of freedom methods
    for multiple observer ROC analysis"). The variance of its mean is that of the seeds' means, plus that of
    the examples' means as far as the residual, which is in both, does not explain it (Cornfield & Tukey 1956,
    "Average values of mean squares in factorials"). Student's t has the degrees of freedom of Satterthwaite
    (1946, "An approximate distribution of estimates of variance components"). The networks are paired by
    their seed, which draws the order of the examples for both, so that luck which both share cancels. How
    often the interval covers the truth: `python -m benchmarks.coverage`.

    If no score differs, the true difference may be up to 3 / examples (the rule of three: Hanley &
    Lippman-Hand 1983, "If nothing goes wrong, is everything all right?").

    Args:
        baseline: (seeds, examples): the score of that seed's baseline on that example; at least 2 of each.
        tuned: the same for the tuned network, the same seeds and examples in the same order.
        same: whether both are the same network, whose scores cannot differ.
    """
    difference = np.subtract(tuned, baseline, dtype=np.float64)
    seeds, examples = difference.shape
    mean = difference.mean()
    deviations = difference - mean
    by_seed, by_example = deviations.mean(1, keepdims=True), deviations.mean(0, keepdims=True)
    residual = ((deviations - by_seed - by_example) ** 2).sum() / (seeds - 1) / (examples - 1)
    of_seeds = (by_seed**2).sum() / (seeds - 1)
    of_examples = (by_example**2).sum() / (examples - 1) / examples - residual / difference.size
    found = Difference(float(mean), 0, 0, float(of_seeds), max(float(of_examples), 0.0), seeds, examples)
    if found.varies:
        error, freedom = found.spread()
        half = _quantile(freedom) * error
    else:
        half = 0.0 if same else 3 / examples
    return replace(found, low=float(mean - half), high=float(mean + half))


def verdict(difference: Difference, margin: float) -> str:
    """Return `non_inferior`, `inferior`, `inconclusive`: the interval is above -margin, below, or around it.

    The fixed-margin method (ICH E9, "Statistical principles for clinical trials", 1998, section 3.3.2): with
    a 95 % interval, an inferior network passes in at most 2.5 % of experiments.
    """
    if difference.low > -margin:
        return "non_inferior"
    return "inferior" if difference.high < -margin else "inconclusive"


def probability_within(difference: Difference, margin: float) -> float:
    """Return the confidence that the true difference is above -margin.

    That is the confidence distribution (Schweder & Hjort 2016, "Confidence, Likelihood, Probability").
    """
    if not difference.varies:  # as for the interval where no score differs
        return 1 - max(0.0, 1 - margin) ** difference.examples
    error, freedom = difference.spread()
    return float(stdtr(freedom, (difference.estimate + margin) / error))


def replicates_to_settle(difference: Difference, margin: float) -> int | None:
    """Return how many seeds would give a verdict if these estimates were true; None for too many."""
    if not difference.varies:
        return None
    for seeds in range(difference.seeds, MOST_REPLICATES + 1):
        error, freedom = difference.spread(seeds)
        if abs(difference.estimate + margin) > _quantile(freedom) * error:
            return seeds
    return None


def _quantile(freedom: float) -> float:
    """Of Student's t, for a two-sided interval with `CONFIDENCE`."""
    return float(stdtrit(freedom, (1 + CONFIDENCE) / 2))
