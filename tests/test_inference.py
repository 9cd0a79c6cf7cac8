"""The statistics, against simulation: thousands of experiments whose truth is known."""

from functools import cache

import numpy as np
import pytest

from stages.comparison import inference
from stages.comparison.inference import Interval

EXPERIMENTS, SEEDS, IMAGES = 3000, 5, 1000


def answers(rng, difficulty, luck, *, own=0.1, shift=0.0) -> np.ndarray:
    """Whether each seed's network is right on each image: its log-odds shift with the seed's luck and a luck of its own."""
    effect = shift + luck + own * rng.standard_normal(luck.shape)
    return rng.random((len(luck), len(difficulty))) < 1 / (1 + np.exp(-(difficulty + effect)))


def experiments(*, shift=0.0, luck=0.2, own=0.1, number=EXPERIMENTS):
    """Pairs of (seeds, images) tables of two networks on images of their own, as hard as MNIST's: 2 to 3 % errors."""
    rng = np.random.default_rng(0)
    for _ in range(number):
        difficulty = rng.normal(7, 3, IMAGES)
        both = luck * rng.standard_normal((SEEDS, 1))
        yield answers(rng, difficulty, both, own=own), answers(rng, difficulty, both, own=own, shift=shift)


@cache
def intervals(shift: float) -> list[Interval]:
    return [inference.difference_of_scores(*pair) for pair in experiments(shift=shift)]


@cache
def true_difference(shift: float) -> float:
    rng = np.random.default_rng(1)
    log_odds = rng.normal(7, np.sqrt(3**2 + 0.2**2 + 0.1**2), 4_000_000)
    return float(np.mean(1 / (1 + np.exp(-log_odds - shift)) - 1 / (1 + np.exp(-log_odds))))


@pytest.mark.parametrize("shift", [0.0, -0.3])
def test_the_interval_covers_the_true_difference(shift):
    truth = true_difference(shift)
    assert 0.93 < np.mean([interval.low <= truth <= interval.high for interval in intervals(shift)]) < 0.97
    assert np.mean([interval.estimate for interval in intervals(shift)]) == pytest.approx(truth, abs=3e-4)


def test_identical_networks_are_seldom_called_inferior():
    for margin in (1e-9, 0.003, 0.01):
        verdicts = [inference.verdict(interval, margin) for interval in intervals(0.0)]
        assert verdicts.count("inferior") / EXPERIMENTS < 0.035
    assert verdicts.count("non_inferior") > 0.8 * EXPERIMENTS


def test_a_network_that_is_inferior_by_the_margin_seldom_passes():
    margin = -true_difference(-0.3)
    verdicts = [inference.verdict(interval, margin) for interval in intervals(-0.3)]
    assert verdicts.count("non_inferior") / EXPERIMENTS < 0.035
    assert verdicts.count("inferior") / EXPERIMENTS < 0.035


def test_a_network_and_itself():
    right = np.random.default_rng(0).random((3, 50)) < 0.9
    assert inference.difference_of_scores(right, right) == Interval(0, 0, 0)
    assert inference.difference_of_scores(np.zeros((3, 4), bool), np.ones((3, 4), bool)) == Interval(1, 1, 1)


def test_the_interval_is_the_one_sample_t_interval_where_only_seeds_differ():
    """Each seed's network is right on all images or on none, so the images add nothing."""
    baseline, tuned = np.zeros((4, 1000), bool), np.zeros((4, 1000), bool)
    tuned[:1] = True
    interval = inference.difference_of_scores(baseline, tuned)
    half = 3.182446305284263 * 0.5 / 2  # t(0.975, 3) times the standard deviation of 1, 0, 0, 0 over the root of 4
    assert (interval.estimate, interval.low, interval.high) == pytest.approx((0.25, 0.25 - half, 0.25 + half), rel=1e-3)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (-0.002, 0.001, "non_inferior"),
        (-0.003, 0.001, "inconclusive"),
        (-0.01, 0.01, "inconclusive"),
        (-0.01, -0.0031, "inferior"),
        (0.001, 0.002, "non_inferior"),
    ],
)
def test_verdicts(low, high, verdict):
    assert inference.verdict(Interval((low + high) / 2, low, high), 0.003) == verdict
