"""The interval and the verdict: what can be said of two networks that were each trained a few times.

SciPy does the arithmetic; the source of each method is in its docstring.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """An estimate and its confidence interval."""

    estimate: float
    low: float
    high: float


def difference_of_scores(baseline: np.ndarray, tuned: np.ndarray) -> Interval:
    """Return how much better `tuned` is, with a 95 % interval for other seeds and other test examples.

    Seeds and test examples are both samples, and each of the two networks of a seed answers each example: the
    differences form a table with two crossed random effects. The variance of its mean is that of the seeds'
    means, plus that of the examples' means as far as the residual, which is in both, does not explain it
    (Cornfield & Tukey 1956, "Average values of mean squares in factorials"). Student's t has the degrees of
    freedom of Satterthwaite (1946, "An approximate distribution of estimates of variance components"). The
    networks are paired by their seed, which draws the order of the examples for both, so that luck which both
    share cancels. How often the interval covers the truth: `python -m benchmarks.coverage`.

    Args:
        baseline: (seeds, examples): the score of that seed's baseline on that example; at least 2 of each.
        tuned: the same for the tuned network, the same seeds and examples in the same order.
    """
    difference = np.subtract(tuned, baseline, dtype=np.float64)
    seeds, examples = difference.shape
    mean = difference.mean()
    deviations = difference - mean
    of_seeds, of_examples = deviations.mean(1, keepdims=True), deviations.mean(0, keepdims=True)
    residual = ((deviations - of_seeds - of_examples) ** 2).sum() / (seeds - 1) / (examples - 1)
    seeds_variance = (of_seeds**2).sum() / (seeds - 1) / seeds
    examples_variance = max(
        (of_examples**2).sum() / (examples - 1) / examples - residual / difference.size, 0
    )
    variance = seeds_variance + examples_variance
    if variance <= 0:  # as with a network that is compared with itself
        return Interval(float(mean), float(mean), float(mean))
    freedom = variance**2 / (seeds_variance**2 / (seeds - 1) + examples_variance**2 / (examples - 1))
    half = stats.t.ppf((1 + CONFIDENCE) / 2, freedom) * np.sqrt(variance)
    return Interval(float(mean), float(mean - half), float(mean + half))


def verdict(difference: Interval, margin: float) -> str:
    """Return `non_inferior`, `inferior`, `inconclusive`: the interval is above -margin, below, or around it.

    The fixed-margin method (ICH E9, "Statistical principles for clinical trials", 1998, section 3.3.2): with
    a 95 % interval, an inferior network passes in at most 2.5 % of experiments.
    """
    if difference.low > -margin:
        return "non_inferior"
    return "inferior" if difference.high < -margin else "inconclusive"
