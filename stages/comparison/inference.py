"""The interval and the verdict: the statistics of two networks that were each trained several times.

The source of each method is in its docstring.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import stdtr, stdtrit  # of Student's t; scipy.stats is slow to import

CONFIDENCE = 0.95
POWER = 0.8  # for `replicates_to_settle`
MOST_REPLICATES = 1000  # largest answer of `replicates_to_settle`


@dataclass(frozen=True)
class Difference:
    """How much better one network is than another, from scores by seed and example.

    Attributes:
        estimate: the mean difference.
        low, high: its confidence interval.
        of_seeds: the variance of a seed's mean difference between seeds.
        of_examples: the part of the estimate's variance that is due to the examples.
        seeds, examples: how many there were; groups or parts count as examples, see `evaluation.values`.
        right_or_wrong: whether the scores of an example differ by 1 or not at all, as those of accuracy do.
    """

    estimate: float
    low: float
    high: float
    of_seeds: float
    of_examples: float
    seeds: int
    examples: int
    right_or_wrong: bool = False

    def spread(self, seeds: int | None = None) -> tuple[float, float]:
        """Return the standard error of the mean and its degrees of freedom, with `seeds` seeds.

        If all differences are the same, the standard error is taken as 1.96 / examples, with a normal
        distribution. The interval then reaches 3.84 / examples to both sides: if a larger share of answers
        differed, at least one such answer would have been seen with a probability of 98 %.
        """
        seeds = seeds or self.seeds
        variances = np.array([self.of_seeds / seeds, self.of_examples])
        variance, freedoms = variances.sum(), np.array([seeds - 1, self.examples - 1])
        if variance <= (1e-12 * self.estimate) ** 2:  # zero, but for rounding
            return _quantile(math.inf) / self.examples, math.inf
        return float(np.sqrt(variance)), float(variance**2 / (variances**2 / freedoms).sum())

    def spreads(self, truth: float, seeds: int | None = None) -> list[tuple[float, float]]:
        """Return `spread` and, for right or wrong answers, a lower bound of it if `truth` is the difference.

        The bound is the standard error of a share of answers that differ (Wilson 1927, "Probable inference,
        the law of succession, and statistical inference"). There is none if `truth` is between 0 and the
        estimate.
        """
        spreads, share = [self.spread(seeds)], abs(truth)
        if self.right_or_wrong and truth * (truth - self.estimate) > 0 and share < 1:
            spreads.append((math.sqrt(share * (1 - share) / self.examples), math.inf))
        return spreads


def difference_of_scores(baseline: np.ndarray, tuned: np.ndarray, *, same: bool = False) -> Difference:
    """Return how much better `tuned` is, with a 95 % interval for other seeds and other test examples.

    Seeds and test examples are both samples, and each network of each seed answers each example. So the
    differences form a table with two crossed random effects, as in fully crossed multi-reader multi-case
    studies (Obuchowski & Rockette 1995; Hillis 2007, "A comparison of denominator degrees of freedom methods
    for multiple observer ROC analysis"). The variance of their mean is the variance of the seeds' means plus
    that of the examples' means, minus the residual, which is in both (Cornfield & Tukey 1956, "Average values
    of mean squares in factorials"). The interval is that of Student's t with Satterthwaite's degrees of
    freedom (1946, "An approximate distribution of estimates of variance components"). The networks are paired
    by seed: it draws the same order of the examples for both, so that the luck that both share cancels.
    `python -m benchmarks.coverage` measures how often the interval covers the true difference.

    If few answers, right or wrong, differ, their variance is hardly known. So the interval is at least as
    wide as Wilson's for a share of answers that differ (see `Difference.spreads`).

    Args:
        baseline: (seeds, examples), the score of each seed's baseline on each example; at least 2 of each.
        tuned: the same for the tuned network, with the same seeds and examples in the same order.
        same: whether both have the same hyperparameters and epochs, so that their scores cannot differ.
    """
    differences = np.subtract(tuned, baseline, dtype=np.float64)
    seeds, examples = differences.shape
    mean = float(differences.mean())
    deviations = differences - mean
    by_seed, by_example = deviations.mean(1, keepdims=True), deviations.mean(0, keepdims=True)
    residual = ((deviations - by_seed - by_example) ** 2).sum() / (seeds - 1) / (examples - 1)
    of_seeds = (by_seed**2).sum() / (seeds - 1)
    of_examples = (by_example**2).sum() / (examples - 1) / examples - residual / differences.size
    difference = Difference(
        estimate=mean,
        low=mean,
        high=mean,
        of_seeds=float(of_seeds),
        of_examples=max(float(of_examples), 0.0),
        seeds=seeds,
        examples=examples,
        right_or_wrong=bool(np.isin(differences, (-1, 0, 1)).all()),
    )
    if same:
        return difference
    return replace(difference, low=mean - _reach(difference, mean), high=mean + _reach(difference, -mean))


def verdict(difference: Difference, margin: float) -> str:
    """Return `non_inferior`, `inferior` or `inconclusive`: the interval is above, below or around -margin.

    This is the fixed-margin method (ICH E9, "Statistical principles for clinical trials", 1998, section
    3.3.2). With a 95 % interval, a network that is worse by exactly the margin passes in about 2.5 % of
    experiments.
    """
    if difference.low > -margin:
        return "non_inferior"
    return "inferior" if difference.high < -margin else "inconclusive"


def probability_within(difference: Difference, margin: float) -> float:
    """Return the confidence that the true difference is above -margin.

    It is that of the confidence distribution (Schweder & Hjort 2016, "Confidence, Likelihood, Probability").
    """
    above = difference.estimate + margin
    confidences = [float(stdtr(freedom, above / error)) for error, freedom in difference.spreads(-margin)]
    return min(confidences) if above > 0 else max(confidences)


def replicates_to_settle(difference: Difference, margin: float) -> int | None:
    """Return how many new seeds would give a verdict with probability `POWER`, if the estimates are true.

    None if more than `MOST_REPLICATES`. This is the usual calculation of a sample size: the estimate has to
    be farther from -margin than the sum of two quantiles, for the interval and for the power (Julious 2004,
    "Sample sizes for clinical trials with normal data").
    """
    for seeds in range(difference.seeds, MOST_REPLICATES + 1):
        spreads = difference.spreads(-margin, seeds)
        needed = max((_quantile(freedom) + stdtrit(freedom, POWER)) * error for error, freedom in spreads)
        if abs(difference.estimate + margin) > needed:
            return seeds
    return None


def _reach(difference: Difference, estimate: float) -> float:
    """How far the interval reaches below `estimate`, the difference's or, for the upper end, its negative."""
    error, freedom = difference.spread()
    half, a = _quantile(freedom) * error, _quantile(math.inf) ** 2 / difference.examples
    square = a * (a - 4 * estimate * (1 + estimate))
    if not difference.right_or_wrong or square < 0:
        return half
    # Wilson's: the largest share with estimate + share = 1.96 * sqrt(share * (1 - share) / examples)
    return max(half, estimate + (a - 2 * estimate + math.sqrt(square)) / (2 * (1 + a)))


def _quantile(freedom: float) -> float:
    """The quantile of Student's t for a two-sided interval with `CONFIDENCE`."""
    return float(stdtrit(freedom, (1 + CONFIDENCE) / 2))
