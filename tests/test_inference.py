"""The statistics, tested by simulated experiments with a known truth and by independent calculations."""

import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy import stats

from stages.comparison import inference
from stages.comparison.inference import Difference

EXPERIMENTS, SEEDS, IMAGES = 3000, 5, 1000


def between(low: float, high: float) -> Difference:
    return Difference((low + high) / 2, low, high, of_seeds=0.0, of_examples=0.0, seeds=5, examples=100)


def answers(rng, difficulty, luck, *, own=0.1, shift=0.0) -> np.ndarray:
    """Whether each seed's network is right on each image, (seeds, images).

    A seed's log-odds are shifted by `luck`, which both networks share, and by luck of this network alone.
    """
    effect = shift + luck + own * rng.standard_normal(luck.shape)
    return rng.random((len(luck), len(difficulty))) < 1 / (1 + np.exp(-(difficulty + effect)))


def experiments(*, shift=0.0, luck=0.2, own=0.1, number=EXPERIMENTS):
    """Yield the answers of two networks, (seeds, images) each; every experiment has new images.

    The images are as hard as MNIST's: 2 to 3 % errors.
    """
    rng = np.random.default_rng(0)
    for _ in range(number):
        difficulty = rng.normal(7, 3, IMAGES)
        both = luck * rng.standard_normal((SEEDS, 1))
        yield answers(rng, difficulty, both, own=own), answers(rng, difficulty, both, own=own, shift=shift)


@cache
def intervals(shift: float) -> list[Difference]:
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
    assert verdicts.count("non_inferior") > 0.75 * EXPERIMENTS


def test_a_network_that_is_inferior_by_the_margin_seldom_passes():
    margin = -true_difference(-0.3)
    verdicts = [inference.verdict(interval, margin) for interval in intervals(-0.3)]
    assert verdicts.count("non_inferior") / EXPERIMENTS < 0.035
    assert verdicts.count("inferior") / EXPERIMENTS < 0.035


def bounds(found: Difference) -> tuple[float, float, float]:
    return found.estimate, found.low, found.high


def test_a_network_and_itself():
    right = np.random.default_rng(0).random((3, 50)) < 0.9
    assert bounds(inference.difference_of_scores(right, right, same=True)) == (0, 0, 0)


NORMAL = 1.959963984540054


@pytest.mark.parametrize("scale", [1, 0.3])
def test_where_no_score_differs_the_difference_may_be_four_to_the_number_of_examples(scale):
    """More precisely 3.84, whatever the scores are; (1 - 3.84/50)^50 is less than one in forty."""
    half, scores = NORMAL**2 / 50, scale * (np.random.default_rng(0).random((3, 50)) < 0.9)
    assert bounds(inference.difference_of_scores(scores, scores)) == pytest.approx((0, -half, half))
    constant = bounds(inference.difference_of_scores(np.zeros((3, 50)), np.full((3, 50), scale)))
    assert constant == pytest.approx((scale, scale - half, scale + half))
    rounded = inference.difference_of_scores(np.zeros((5, 999)), np.full((5, 999), 0.7))  # rounding
    assert rounded.low == pytest.approx(0.7 - NORMAL**2 / 999)


def few(seeds: int, losses: int, wins: int, examples: int = 1000) -> Difference:
    """The difference if, with `seeds` of 5 seeds, `losses` right answers get wrong and `wins` get right."""
    baseline = np.full((5, examples), np.arange(examples) % 2)
    tuned = baseline.copy()
    tuned[:seeds, 1 : 2 * losses : 2] = 0
    tuned[:seeds, : 2 * wins : 2] = 1
    return inference.difference_of_scores(baseline, tuned)


def test_an_answer_that_differs_makes_the_interval_no_narrower():
    none = few(0, 0, 0)
    assert none.right_or_wrong
    for seeds, losses, wins in ((1, 1, 0), (5, 1, 0), (5, 3, 0), (5, 1, 1), (2, 1, 3)):
        found = few(seeds, losses, wins)
        assert max(-found.low, found.high) > 0.99 * none.high


def test_the_interval_is_at_least_wilsons_for_right_or_wrong_answers():
    """With every seed, the same four answers are lost. SciPy has Wilson's interval of a share."""
    found, share = few(5, 4, 0), stats.binomtest(4, 1000).proportion_ci(method="wilson")
    error = 5 * [[-1] * 4 + [0] * 996]
    assert found.low == pytest.approx(-share.high, rel=1e-9)
    assert found.high == pytest.approx(limits(-0.004, mean_squares(error), 5, 1000)[2], rel=1e-9)
    opposite = few(5, 0, 4)
    assert (opposite.low, opposite.high) == pytest.approx((-found.high, -found.low), rel=1e-12)
    for factor in (0.5, 3):  # scores that are not of right or wrong answers have no such bound
        table = factor * np.array(error)
        assert difference(table) == pytest.approx(
            limits(-0.004 * factor, mean_squares(table.tolist()), 5, 1000), rel=1e-9
        )


def test_a_network_that_is_worse_by_a_margin_of_three_answers_seldom_passes():
    """They are wrong with every seed. By their variance alone, it would pass in one of seven experiments."""
    rng = np.random.default_rng(0)
    tables = (np.broadcast_to(rng.random(300) < 0.01, (5, 300)) for _ in range(1000))
    found = [inference.difference_of_scores(table, np.zeros((5, 300))) for table in tables]
    assert np.mean([inference.verdict(each, 0.01) == "non_inferior" for each in found]) < 0.035


def test_the_interval_is_the_one_sample_t_interval_where_only_seeds_differ():
    """Each seed's network is right on all images or on none, so the images add nothing."""
    baseline, tuned = np.zeros((4, 1000), bool), np.zeros((4, 1000), bool)
    tuned[:1] = True
    interval = inference.difference_of_scores(baseline, tuned)
    # t(0.975, 3) times the standard deviation of 1, 0, 0, 0 over the root of 4
    half = 3.182446305284263 * 0.5 / 2
    assert (interval.estimate, interval.low, interval.high) == pytest.approx(
        (0.25, 0.25 - half, 0.25 + half), rel=1e-3
    )


def mean_squares(table: list[list[float]]) -> tuple[float, float, float]:
    """Mean squares of seeds (rows), examples (columns) and the residual, as textbooks define them."""
    seeds, examples = len(table), len(table[0])
    grand = math.fsum(cell for row in table for cell in row) / (seeds * examples)
    rows = [math.fsum(row) / examples for row in table]
    columns = [math.fsum(row[j] for row in table) / seeds for j in range(examples)]
    of_seeds = of_examples = of_residual = 0.0
    for i in range(seeds):
        of_seeds += examples * (rows[i] - grand) ** 2
    for j in range(examples):
        of_examples += seeds * (columns[j] - grand) ** 2
    for i in range(seeds):
        for j in range(examples):
            of_residual += (table[i][j] - rows[i] - columns[j] + grand) ** 2
    freedom = (seeds - 1, examples - 1, (seeds - 1) * (examples - 1))
    return of_seeds / freedom[0], of_examples / freedom[1], of_residual / freedom[2]


def limits(mean: float, squares: tuple[float, float, float], seeds: int, examples: int) -> list[float]:
    """Estimate, low and high, from the mean squares."""
    of_seeds, of_examples, of_residual = squares
    parts = [
        (of_seeds, seeds - 1),
        (of_examples - of_residual if of_examples > of_residual else 0, examples - 1),
    ]
    combined = math.fsum(square for square, _ in parts)
    freedom = combined**2 / math.fsum(square**2 / freedom for square, freedom in parts)  # Satterthwaite
    half = stats.t.isf(0.025, freedom) * math.sqrt(combined / (seeds * examples))
    return [mean, mean - half, mean + half]


def difference(table) -> list[float]:
    """Estimate, low and high of a table of differences, by the module."""
    interval = inference.difference_of_scores(np.zeros(np.shape(table)), np.array(table))
    return [interval.estimate, interval.low, interval.high]


@pytest.mark.parametrize("effect", [0.0, 0.3, 3.0])
@pytest.mark.parametrize(("seeds", "examples"), [(2, 2), (2, 9), (7, 2), (3, 4), (5, 8), (4, 30)])
def test_the_interval_is_that_of_a_two_way_analysis_of_variance(seeds, examples, effect):
    rng = np.random.default_rng(seeds * 100 + examples)
    for _ in range(5):
        noise, luck = rng.standard_normal((seeds, examples)), rng.standard_normal((seeds, 1))
        table = (0.1 + noise + luck + effect * rng.standard_normal(examples)).tolist()
        mean = math.fsum(cell for row in table for cell in row) / (seeds * examples)
        assert difference(table) == pytest.approx(
            limits(mean, mean_squares(table), seeds, examples), rel=1e-10, abs=1e-12
        )


def test_examples_that_vary_less_than_the_residual_explains_add_nothing():
    """Worked out by hand: 10 + the seed's -3, 0, 3 + the example's -1, 0, 1 + 3 or -3 in four cells.

    The seeds' part of the variance is (9 + 9) / 2 / 3 = 3, with two degrees of freedom. The examples' part
    would be (1 + 1) / 2 / 3 - 36 / 4 / 9, below 0.
    """
    table = [[9, 4, 8], [6, 13, 11], [12, 13, 14]]
    _, of_examples, of_residual = mean_squares(table)
    assert of_examples < of_residual
    half = 4.30265272975 * np.sqrt(3)  # t(0.975, 2)
    assert difference(table) == pytest.approx([10, 10 - half, 10 + half], rel=1e-10)


def test_seeds_and_examples_that_vary_alike_give_the_degrees_of_freedom_of_both():
    """Worked out by hand: 10 + the seed's -1, 0, 1 + the example's -2, 0, 2 + 3 or -3 in four cells.

    The seeds' part of the variance is (1 + 1) / 2 / 3 = 1/3, with two degrees of freedom. The examples' part
    is (4 + 4) / 2 / 3 - 36 / 4 / 9 = 1/3, with two as well: together four.
    """
    half = 2.7764451052 * np.sqrt(2 / 3)  # t(0.975, 4)
    assert difference([[10, 6, 11], [5, 13, 12], [9, 11, 13]]) == pytest.approx(
        [10, 10 - half, 10 + half], rel=1e-10
    )


def test_the_interval_follows_from_published_mean_squares():
    """Four judges rate six targets: Shrout & Fleiss (1979), "Intraclass correlations", tables 2 and 3."""
    ratings = [[9, 6, 8, 7, 10, 6], [2, 1, 4, 1, 5, 2], [5, 3, 6, 2, 6, 4], [8, 2, 8, 6, 9, 7]]
    published = (32.49, 11.24, 1.02)  # of judges, of targets, residual
    assert mean_squares(ratings) == pytest.approx(published, abs=0.005)
    assert difference(ratings) == pytest.approx(limits(127 / 24, published, seeds=4, examples=6), rel=1e-3)


def test_scores_of_single_precision_are_subtracted_in_double():
    tuned, baseline = np.full((2, 2), 0.3, np.float32), np.full((2, 2), 1e-9, np.float32)
    expected = float(np.float32(0.3)) - float(np.float32(1e-9))
    assert inference.difference_of_scores(baseline, tuned).estimate == pytest.approx(
        expected, rel=1e-14, abs=0
    )


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
    assert inference.verdict(between(low, high), 0.003) == verdict


ABOVE, BELOW = np.nextafter(-0.5, 0), np.nextafter(-0.5, -1)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (-0.5, 1.0, "inconclusive"),
        (ABOVE, 1.0, "non_inferior"),
        (-1.0, -0.5, "inconclusive"),
        (-1.0, BELOW, "inferior"),
        (-1.0, ABOVE, "inconclusive"),
        (BELOW, 1.0, "inconclusive"),
        (-0.5, -0.5, "inconclusive"),
    ],
)
def test_an_interval_that_ends_at_the_margin_is_inconclusive(low, high, verdict):
    assert inference.verdict(between(low, high), 0.5) == verdict


def measured(rng, seeds: int, *, effect=0.0, luck=1.0, own=1.0) -> np.ndarray:
    """Differences around `effect`, (seeds, 200)."""
    noise, of_examples = rng.standard_normal((seeds, 200)), rng.standard_normal(200)
    return effect + luck * rng.standard_normal((seeds, 1)) + own * of_examples + noise


@pytest.mark.parametrize(
    "found",
    [
        inference.difference_of_scores(np.zeros((5, 200)), measured(np.random.default_rng(0), 5)),
        *(few(*case) for case in ((0, 0, 0), (1, 1, 0), (5, 3, 0), (5, 0, 3), (4, 2, 1), (5, 60, 1))),
    ],
)
def test_the_confidence_that_a_network_is_within_the_margin_goes_with_the_interval(found):
    """It is 2.5 % where the interval's upper end is at the margin, and 97.5 % where the lower end is."""
    for margin, share in ((-found.low, 0.975), (-found.high, 0.025), (-found.estimate, 0.5)):
        assert inference.probability_within(found, margin) == pytest.approx(share, abs=1e-9)
    confidence = [inference.probability_within(found, margin) for margin in np.linspace(-2, 2, 999)]
    assert (np.diff(confidence) >= -1e-12).all()


def test_no_training_settles_what_few_answers_leave_open():
    for found in (few(0, 0, 0), few(1, 1, 0), few(5, 1, 0), few(5, 4, 3)):
        assert found.low < -0.003
        assert inference.replicates_to_settle(found, 0.003) is None


@pytest.mark.parametrize("effect", [-0.7, -0.2])
def test_with_the_replicates_that_would_settle_it_the_margin_is_far_enough_and_with_one_less_not(effect):
    """The interval is calculated here, from the same variances."""
    table = measured(np.random.default_rng(1), 5, own=0.2)
    table += effect - table.mean()
    found = inference.difference_of_scores(np.zeros(table.shape), table)
    needed = inference.replicates_to_settle(found, 0.5)
    assert needed > 5

    def half(seeds: int, power=0.5) -> float:
        variance = found.of_seeds / seeds + found.of_examples
        freedom = variance**2 / (
            (found.of_seeds / seeds) ** 2 / (seeds - 1) + found.of_examples**2 / (found.examples - 1)
        )
        return (stats.t.isf(0.025, freedom) + stats.t.ppf(power, freedom)) * math.sqrt(variance)

    assert half(5) == pytest.approx((found.high - found.low) / 2, rel=1e-9)
    assert half(needed, 0.8) < abs(effect + 0.5) <= half(needed - 1, 0.8)


def test_so_many_new_trainings_give_a_verdict_in_four_of_five_cases():
    """The estimates are taken as true; only seeds differ."""
    table = np.repeat([[-0.9], [-0.2], [0.2], [0.5]], 9, axis=1)
    found = inference.difference_of_scores(np.zeros(table.shape), table)
    seeds = inference.replicates_to_settle(found, 0.5)
    assert (inference.verdict(found, 0.5), seeds) == ("inconclusive", 20)
    rng = np.random.default_rng(0)
    luck = math.sqrt(found.of_seeds) * rng.standard_normal((2000, seeds, 1)).repeat(9, axis=2)
    new = (inference.difference_of_scores(np.zeros((seeds, 9)), found.estimate + each) for each in luck)
    settled = [inference.verdict(each, 0.5) != "inconclusive" for each in new]
    assert np.mean(settled) == pytest.approx(0.8, abs=0.03)


def test_more_trainings_do_not_settle_what_the_examples_leave_open():
    table = measured(np.random.default_rng(2), 5, luck=0.1, own=3.0)
    found = inference.difference_of_scores(np.zeros(table.shape), table - table.mean())
    assert inference.replicates_to_settle(found, 0.1) is None


def test_a_published_multi_reader_study_gives_the_same():
    """Five radiologists read 114 cases by two methods: Van Dyke et al. (1993).

    The mean square of treatment by reader, the covariances of Obuchowski and Rockette and the standard error
    are those in the documentation of the R package MRMCaov 0.2. Hillis's degrees of freedom leave out those
    of the cases.
    """
    mean_square, cov2, cov3 = 0.0005510306, 0.0003440748, 0.0002390284
    study = Difference(-0.04380032, 0, 0, 2 * mean_square, 2 * (cov2 - cov3), 5, 114)
    error, freedom = study.spread()
    assert error == pytest.approx(0.02074862, abs=5e-9)
    assert replace(study, examples=10**9).spread()[1] == pytest.approx(15.25967, abs=5e-5)
    assert freedom < 15.26
