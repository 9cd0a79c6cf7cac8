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


def difference_of_accuracies(baseline: np.ndarray, tuned: np.ndarray) -> Interval:
    """Return how much more accurate `tuned` is, with a 95 % interval for other seeds and other test images.

    Seeds and test images are both samples, and each of the two networks of a seed answers each image: the differences form a
    table with two crossed random effects. The variance of its mean is that of the seeds' means plus that of the images' means,
    minus the residual, which is in both (Cornfield & Tukey 1956, "Average values of mean squares in factorials"); seeds whose
    means vary no more than the residual explains add nothing. Student's t has the degrees of freedom of Satterthwaite (1946,
    "An approximate distribution of estimates of variance components"). The networks are paired by their seed, which draws the
    order of the images for both, so that luck which both share cancels.

    Args:
        baseline: (seeds, images) bool: whether that seed's baseline is right on that image; at least 2 seeds and 2 images.
        tuned: the same for the tuned network, the same seeds and images in the same order.
    """
    difference = np.subtract(tuned, baseline, dtype=np.float64)
    seeds, images = difference.shape
    mean = difference.mean()
    if np.ptp(difference) == 0:  # as with a network that is compared with itself
        return Interval(float(mean), float(mean), float(mean))
    sum_of_seeds = images * ((difference.mean(1) - mean) ** 2).sum()
    sum_of_images = seeds * ((difference.mean(0) - mean) ** 2).sum()
    sums = np.array([sum_of_images, sum_of_seeds, ((difference - mean) ** 2).sum() - sum_of_images - sum_of_seeds])
    freedom = np.array([images - 1, seeds - 1, (images - 1) * (seeds - 1)])
    components = sums / freedom / difference.size * [1, 1, -1]
    if components[1] + components[2] < 0:
        components, freedom = components[:1], freedom[:1]
    variance = components.sum()
    if variance <= 0:
        return Interval(float(mean), float(mean), float(mean))
    half = stats.t.ppf((1 + CONFIDENCE) / 2, variance**2 / (components**2 / freedom).sum()) * np.sqrt(variance)
    return Interval(float(mean), float(mean - half), float(mean + half))


def verdict(difference: Interval, margin: float) -> str:
    """Return `non_inferior`, `inferior` or `inconclusive`: whether the whole interval is above -margin, below it, or neither.

    The fixed-margin method (ICH E9, "Statistical principles for clinical trials", 1998, section 3.3.2): with a 95 % interval,
    an inferior network passes in at most 2.5 % of experiments.
    """
    if difference.low > -margin:
        return "non_inferior"
    return "inferior" if difference.high < -margin else "inconclusive"
