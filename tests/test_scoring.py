"""What a trial consists of and what it comes to, by exact sums; tests/test_search.py has it in a search."""

import math

import numpy as np
import pytest
from sklearn.model_selection import KFold, StratifiedKFold

from stages.search import scoring
from stages.search.scoring import LOSS, SCORE

CLASSES = np.repeat(np.array([2, 0, 1], np.int32), [12, 6, 3])
NUMBERS = CLASSES.astype(np.float32)


def holdout(**changes) -> scoring.Holdout:
    settings = {
        "train_size": 3,
        "size": 7,
        "objective": SCORE,
        "seed": 5,
        "executions": 1,
        "early_stopping": None,
    }
    return scoring.Holdout(**{**settings, **changes})


def folds(labels=CLASSES, **changes) -> scoring.CrossValidation:
    return scoring.CrossValidation(labels, **{"folds": 3, "seed": 5, "executions": 1, **changes})


def checkpoint(scores, losses=None, deviation=0.0, loss_deviation=0.0, seconds=None) -> scoring.Checkpoint:
    epochs = len(scores)
    history = {"loss": [0.0] * epochs, SCORE: list(scores), LOSS: list(losses or [0.0] * epochs)}
    history |= {f"{SCORE}_std": [deviation] * epochs, f"{LOSS}_std": [loss_deviation] * epochs}
    return scoring.Checkpoint(epochs, [], [], history, seconds or [0.1] * epochs, 7)


def rows(subsets) -> list[tuple[list[int], list[int]]]:
    return [(train.tolist(), held_out.tolist()) for train, held_out in subsets]


def test_the_holdout_trains_on_the_first_rows_and_scores_on_all_others():
    subsets = holdout().subsets
    assert list(subsets) == ["holdout"]
    assert rows(subsets.values()) == [([0, 1, 2], [3, 4, 5, 6])]


def test_each_execution_of_a_holdout_has_the_next_seed():
    asked = holdout(executions=3).trainings({"units": 16})
    assert asked == [scoring.Training({"units": 16}, seed, "holdout") for seed in (5, 6, 7)]


@pytest.mark.parametrize("seed", range(3))
def test_folds_of_classes_have_the_same_share_of_each(seed):
    subsets = folds(seed=seed).subsets.values()
    for train, held_out in subsets:
        assert np.bincount(CLASSES[held_out]).tolist() == [2, 1, 4]
        assert np.bincount(CLASSES[train]).tolist() == [4, 2, 8]
    stratified = StratifiedKFold(3, shuffle=True, random_state=seed).split(CLASSES, CLASSES)
    assert rows(subsets) == rows(stratified)
    assert sorted(row for _, held_out in subsets for row in held_out) == list(range(len(CLASSES)))


@pytest.mark.parametrize(
    "labels", [NUMBERS, np.linspace(0, 1, len(NUMBERS)).astype(np.float32)], ids=["whole", "any"]
)
@pytest.mark.parametrize("seed", range(3))
def test_folds_of_numbers_are_drawn_whatever_the_numbers_are(labels, seed):
    subsets = rows(folds(labels, seed=seed).subsets.values())
    assert subsets == rows(KFold(3, shuffle=True, random_state=seed).split(labels))
    assert subsets != rows(folds(CLASSES, seed=seed).subsets.values())


@pytest.mark.parametrize("labels", [CLASSES, NUMBERS], ids=["classes", "numbers"])
def test_folds_follow_from_the_seed(labels):
    first, again, other = (rows(folds(labels, seed=seed).subsets.values()) for seed in (5, 5, 6))
    assert first == again != other
    assert all(held_out != list(range(held_out[0], held_out[0] + 7)) for _, held_out in first)


def test_each_execution_has_a_training_for_each_fold():
    scored = folds(executions=2)
    assert list(scored.subsets) == ["fold 1 of 3", "fold 2 of 3", "fold 3 of 3"]
    asked = scored.trainings({"units": 16})
    assert asked == [
        scoring.Training({"units": 16}, seed, name) for seed in (5, 6) for name in scored.subsets
    ]


@pytest.mark.parametrize(
    ("objective", "values", "epoch"),
    [
        (SCORE, [0.2, 0.9, 0.1], 2),
        (SCORE, [0.9, 0.2, 0.9], 1),
        (SCORE, [0.1, 0.2, 0.3], 3),
        (LOSS, [0.2, 0.9, 0.1], 3),
        (LOSS, [0.2, 0.1, 0.9], 2),
        (LOSS, [0.1, 0.9, 0.1], 1),
    ],
)
def test_a_holdout_is_scored_at_the_first_of_the_best_epochs_by_its_objective(objective, values, epoch):
    other = {SCORE: LOSS, LOSS: SCORE}[objective]
    history = {objective: values, other: [0.5] * 3, "loss": [0.5] * 3}
    assert holdout(objective=objective).best_epoch(history) == epoch


def test_a_fold_is_scored_at_the_last_epoch():
    assert folds().best_epoch({SCORE: [0.9, 0.2, 0.1], LOSS: [0.1, 0.2, 0.3]}) == 3
    assert folds().early_stopping is None


@pytest.mark.parametrize(("objective", "deviation"), [(SCORE, 0.4), (LOSS, 0.6)])
def test_the_standard_error_of_one_holdout_is_of_its_examples(objective, deviation):
    scores = [{SCORE: 0.8, LOSS: 0.5, f"{SCORE}_std": 0.4, f"{LOSS}_std": 0.6}]
    error = holdout(objective=objective).standard_error(scores)
    assert error == pytest.approx(deviation / math.sqrt(4), rel=1e-12)


@pytest.mark.parametrize(("objective", "of_seeds"), [(SCORE, 0.01**2), (LOSS, 0.05**2)])
def test_the_standard_error_of_two_holdouts_is_of_examples_and_seeds(objective, of_seeds):
    """Of two numbers that are d apart, the standard error of the mean is d / 2."""
    scores = [
        {SCORE: 0.8, LOSS: 0.5, f"{SCORE}_std": 0.4, f"{LOSS}_std": 0.4},
        {SCORE: 0.82, LOSS: 0.6, f"{SCORE}_std": 0.2, f"{LOSS}_std": 0.2},
    ]
    error = holdout(objective=objective, executions=2).standard_error(scores)
    assert error == pytest.approx(math.sqrt((0.4**2 + 0.2**2) / 2 / 4 + of_seeds), rel=1e-12)


def test_the_standard_error_of_folds_is_of_each_folds_mean_over_the_executions():
    """The means are 0.7, 0.8 and 0.9: their variance is 0.01."""
    scores = [{SCORE: score} for score in (0.6, 0.9, 0.8, 0.8, 0.7, 1.0)]
    assert folds(executions=2).standard_error(scores) == pytest.approx(0.1 / math.sqrt(3), rel=1e-12)
    assert folds(folds=2).standard_error(scores[:2]) == pytest.approx(0.15, rel=1e-12)


def test_a_trial_comes_to_the_means_at_its_trainings_best_epochs():
    first = checkpoint([0.5, 0.7, 0.6], losses=[3.0, 2.0, 1.0], deviation=0.4, seconds=[1.0, 2.0, 3.0])
    second = checkpoint(
        [0.8, 0.4, 0.3, 0.9], losses=[4.0, 1.0, 1.0, 1.0], deviation=0.2, seconds=[4.0, 5.0, 7.0, 900.0]
    )
    found = scoring.evaluate(holdout(executions=2), [first, second], epochs=3)
    assert found.scores == pytest.approx({SCORE: 0.75, LOSS: 3.0}, rel=1e-12)
    assert found.standard_error == pytest.approx(math.sqrt((0.4**2 + 0.2**2) / 2 / 4 + 0.05**2), rel=1e-12)
    assert (found.epochs, found.best_epoch, found.parameters, found.failure) == (3, 2, 7, None)
    assert found.seconds_per_epoch == 3.5
    assert scoring.evaluate(holdout(executions=2), [first, second], epochs=4).epochs == 4


def test_a_trial_of_folds_comes_to_the_means_at_the_last_of_its_epochs():
    states = [checkpoint([0.9, score, 0.9], losses=[0.0, 1 - score, 0.0]) for score in (0.7, 0.8, 0.9)]
    found = scoring.evaluate(folds(), states, epochs=2)
    assert found.scores == pytest.approx({SCORE: 0.8, LOSS: 0.2}, rel=1e-12)
    assert found.standard_error == pytest.approx(0.1 / math.sqrt(3), rel=1e-12)
    assert (found.epochs, found.best_epoch) == (2, 2)


def test_a_training_that_fails_after_the_trials_epochs_does_not_fail_the_trial():
    states = [checkpoint([0.5, 0.6, 0.7]), checkpoint([0.5, 0.6, math.nan])]
    failed = scoring.evaluate(holdout(executions=2), states, epochs=3)
    assert failed.failure == f"{SCORE} is nan after epoch 3"
    assert (failed.epochs, failed.parameters, failed.best_epoch, failed.standard_error) == (3, 7, None, None)
    assert all(math.isnan(failed.scores[name]) for name in (SCORE, LOSS))
    assert scoring.evaluate(holdout(executions=2), states, epochs=4).failure == failed.failure
    earlier = scoring.evaluate(holdout(executions=2), states, epochs=2)
    assert (earlier.failure, earlier.scores[SCORE]) == (None, 0.6)


def test_a_trial_that_came_to_nothing_has_no_scores():
    nothing = scoring.Evaluation(failure="ValueError: no")
    assert set(nothing.scores) == {SCORE, LOSS}
    assert all(math.isnan(score) for score in nothing.scores.values())
    assert nothing.epochs == 0
    for name in ("standard_error", "best_epoch", "seconds_per_epoch", "parameters"):
        assert getattr(nothing, name) is None
    assert scoring.Evaluation().failure is None
