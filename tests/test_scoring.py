"""The trainings of a trial and its scores, by exact sums; tests/test_search.py tests them in a search."""

import math
from pathlib import Path

import numpy as np
import pytest
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

from stages.base import splits
from stages.base.console import UserError
from stages.base.params import load
from stages.base.splits import Split
from stages.search import scoring
from stages.search.scoring import LOSS, SCORE

PARAMS = Path(__file__).parent.parent / "params.yaml"
CLASSES = np.repeat(np.array([2, 0, 1], np.int32), [12, 6, 3])
NUMBERS = CLASSES.astype(np.float32)


def holdout(**changes) -> scoring.Holdout:
    subsets = {"holdout": (np.arange(3), np.arange(3, 7))}
    settings = {"subsets": subsets, "objective": SCORE, "seeds": [5], "early_stopping": None}
    return scoring.Holdout(**{**settings, **changes})


def folds(labels=CLASSES, groups=None, count=3, seed=5, seeds=(5,)) -> scoring.CrossValidation:
    data = Split(np.zeros((len(labels), 1)), labels, groups=groups)
    return scoring.CrossValidation(scoring.folds(data, count, seed), list(seeds))


def checkpoint(scores, losses=None, error=0.0, seconds=None) -> scoring.Checkpoint:
    epochs = len(scores)
    history = {"loss": [0.0] * epochs, SCORE: list(scores), LOSS: list(losses or [0.0] * epochs)}
    history |= {f"{SCORE}_error": [error] * epochs, f"{LOSS}_error": [0.0] * epochs}
    return scoring.Checkpoint(epochs, [], [], history, seconds or [0.1] * epochs, 7)


def rows(subsets) -> list[tuple[list[int], list[int]]]:
    return [(train.tolist(), held_out.tolist()) for train, held_out in subsets]


def test_a_holdout_has_a_training_for_each_seed():
    asked = scoring.trainings(holdout(seeds=[5, 9, 7]), {"units": 16})
    assert asked == [scoring.Training({"units": 16}, seed, "holdout") for seed in (5, 9, 7)]


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


GROUPS = np.arange(len(CLASSES)) // 2


@pytest.mark.parametrize("labels", [CLASSES, NUMBERS], ids=["classes", "numbers"])
@pytest.mark.parametrize("seed", range(3))
def test_a_group_is_in_one_fold(labels, seed):
    subsets = folds(labels, GROUPS, seed=seed).subsets.values()
    for train, held_out in subsets:
        assert not set(GROUPS[train]) & set(GROUPS[held_out])
    kind = StratifiedGroupKFold if labels is CLASSES else GroupKFold
    assert rows(subsets) == rows(kind(3, shuffle=True, random_state=seed).split(labels, labels, GROUPS))
    assert sorted(row for _, held_out in subsets for row in held_out) == list(range(len(labels)))


@pytest.mark.parametrize("seed", range(2))
def test_folds_of_several_labels_an_example_are_drawn_whatever_they_are(seed):
    several = np.arange(42, dtype=np.int32).reshape(21, 2) % 2
    assert rows(folds(several, seed=seed).subsets.values()) == rows(
        KFold(3, shuffle=True, random_state=seed).split(several)
    )


def test_each_fold_has_a_training_for_each_seed():
    scored = folds(seeds=[5, 6])
    assert list(scored.subsets) == ["fold 1 of 3", "fold 2 of 3", "fold 3 of 3"]
    asked = scoring.trainings(scored, {"units": 16})
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


@pytest.mark.parametrize(("objective", "error"), [(SCORE, 0.04), (LOSS, 0.06)])
def test_the_standard_error_of_one_holdout_is_of_its_examples(objective, error):
    scores = [{SCORE: 0.8, LOSS: 0.5, f"{SCORE}_error": 0.04, f"{LOSS}_error": 0.06}]
    assert holdout(objective=objective).standard_error(scores) == pytest.approx(error, rel=1e-12)


@pytest.mark.parametrize(("objective", "of_seeds"), [(SCORE, 0.01**2), (LOSS, 0.05**2)])
def test_the_standard_error_of_two_holdouts_is_of_examples_and_seeds(objective, of_seeds):
    """Of two numbers that are d apart, the standard error of the mean is d / 2."""
    scores = [
        {SCORE: 0.8, LOSS: 0.5, f"{SCORE}_error": 0.04, f"{LOSS}_error": 0.04},
        {SCORE: 0.82, LOSS: 0.6, f"{SCORE}_error": 0.02, f"{LOSS}_error": 0.02},
    ]
    error = holdout(objective=objective, seeds=[5, 6]).standard_error(scores)
    assert error == pytest.approx(math.sqrt((0.04**2 + 0.02**2) / 2 + of_seeds), rel=1e-12)


THREE_FOLDS = math.sqrt(1 / 3 + 1 / 2)  # Nadeau and Bengio's: two thirds train, one third scores


def test_the_standard_error_of_folds_is_of_each_folds_mean_over_the_seeds():
    """The means are 0.7, 0.8 and 0.9: their variance is 0.01."""
    scores = [{SCORE: score} for score in (0.6, 0.9, 0.8, 0.8, 0.7, 1.0)]
    assert folds(seeds=[5, 6]).standard_error(scores) == pytest.approx(0.1 * THREE_FOLDS, rel=1e-12)
    of_two = math.sqrt(0.045 * (1 / 2 + 1))
    assert folds(count=2).standard_error(scores[:2]) == pytest.approx(of_two, rel=1e-12)


def test_a_trials_scores_are_means_at_its_trainings_best_epochs():
    first = checkpoint([0.5, 0.7, 0.6], losses=[3.0, 2.0, 1.0], error=0.04, seconds=[1.0, 2.0, 3.0])
    second = checkpoint(
        [0.8, 0.4, 0.3, 0.9], losses=[4.0, 1.0, 1.0, 1.0], error=0.02, seconds=[4.0, 5.0, 7.0, 900.0]
    )
    found = scoring.evaluate(holdout(seeds=[5, 6]), [first, second], epochs=3)
    assert found.scores == pytest.approx({SCORE: 0.75, LOSS: 3.0}, rel=1e-12)
    assert found.standard_error == pytest.approx(math.sqrt((0.04**2 + 0.02**2) / 2 + 0.05**2), rel=1e-12)
    assert (found.epochs, found.best_epoch, found.parameters, found.failure) == (3, 2, 7, None)
    assert found.seconds_per_epoch == 3.5
    assert scoring.evaluate(holdout(seeds=[5, 6]), [first, second], epochs=4).epochs == 4


def test_a_trials_scores_on_folds_are_means_at_its_last_epoch():
    states = [checkpoint([0.9, score, 0.9], losses=[0.0, 1 - score, 0.0]) for score in (0.7, 0.8, 0.9)]
    found = scoring.evaluate(folds(), states, epochs=2)
    assert found.scores == pytest.approx({SCORE: 0.8, LOSS: 0.2}, rel=1e-12)
    assert found.standard_error == pytest.approx(0.1 * THREE_FOLDS, rel=1e-12)
    assert (found.epochs, found.best_epoch) == (2, 2)


def test_a_training_that_fails_after_the_trials_epochs_does_not_fail_the_trial():
    states = [checkpoint([0.5, 0.6, 0.7]), checkpoint([0.5, 0.6, math.nan])]
    failed = scoring.evaluate(holdout(seeds=[5, 6]), states, epochs=3)
    assert failed.failure == f"{SCORE} is nan after epoch 3"
    assert (failed.epochs, failed.parameters, failed.best_epoch, failed.standard_error) == (3, 7, None, None)
    assert all(math.isnan(failed.scores[name]) for name in (SCORE, LOSS))
    assert scoring.evaluate(holdout(seeds=[5, 6]), states, epochs=4).failure == failed.failure
    earlier = scoring.evaluate(holdout(seeds=[5, 6]), states, epochs=2)
    assert (earlier.failure, earlier.scores[SCORE]) == (None, 0.6)


def test_a_failed_trial_has_no_scores():
    nothing = scoring.Evaluation(failure="ValueError: no")
    assert set(nothing.scores) == {SCORE, LOSS}
    assert all(math.isnan(score) for score in nothing.scores.values())
    assert nothing.epochs == 0
    for name in ("standard_error", "best_epoch", "seconds_per_epoch", "parameters"):
        assert getattr(nothing, name) is None
    assert scoring.Evaluation().failure is None


@pytest.fixture
def scoring_of(tmp_path, monkeypatch):
    """A function that prepares a data set, changes `tune` in params.yaml, and returns the scoring."""
    settings = load(PARAMS)
    monkeypatch.chdir(tmp_path)

    def of(labels=CLASSES, groups=None, own_validation=False, cv=3, **changes):
        data = Split(np.zeros((len(labels), 1)), labels, groups=groups)
        splits.save(splits.TRAINING, (data, np.arange(len(labels))))
        splits.write_about(len(labels) - 5, 5, own_validation, [])
        sklearn = settings.tune.sklearn.model_copy(update={"cv": cv})
        own = {"strategy": "random", "objective": SCORE, "sklearn": sklearn, **changes}
        return scoring.scoring_of(settings.model_copy(update={"tune": settings.tune.model_copy(update=own)}))

    return of


def test_a_search_is_scored_on_the_validation_part_and_with_sklearn_on_folds(scoring_of):
    one = scoring_of(own_validation=True, executions_per_trial=3)
    assert list(one.subsets) == ["holdout"]
    assert rows(one.subsets.values()) == [(list(range(16)), list(range(16, 21)))]  # train, validation
    assert len(set(one.seeds)) == 3
    many = scoring_of(strategy="sklearn", groups=GROUPS, cv=3, executions_per_trial=2)
    drawn = StratifiedGroupKFold(3, shuffle=True, random_state=load(PARAMS).seed)
    assert rows(many.subsets.values()) == rows(drawn.split(CLASSES, CLASSES, GROUPS))
    assert many.seeds == one.seeds[:2]


@pytest.mark.parametrize(
    ("cv", "settings"),
    [(3, {}), (21, {"labels": NUMBERS}), (11, {"labels": NUMBERS, "groups": GROUPS})],
    ids=["classes", "numbers", "groups"],
)
def test_there_may_be_as_many_folds_as_the_data_allows(scoring_of, cv, settings):
    assert len(scoring_of(strategy="sklearn", cv=cv, **settings).subsets) == cv


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (
            {"own_validation": True},
            "tune.strategy is sklearn, but its folds would mix the data set's own valid",
        ),
        ({"objective": LOSS}, f"tune.objective is {LOSS}, but should be {SCORE} with tune.strategy sklearn"),
        ({"cv": 4}, "tune.sklearn.cv is 4, but the data allows 3 folds at most"),
        ({"labels": NUMBERS, "cv": 22}, "tune.sklearn.cv is 22, but the data allows 21 folds at most"),
        (
            {"groups": np.where(CLASSES == 1, 9, np.arange(len(CLASSES))), "cv": 3},
            "tune.sklearn.cv is 3, but leaves no example of class 1 to train on; use fewer folds",
        ),
        ({"groups": GROUPS, "cv": 12}, "tune.sklearn.cv is 12, but the data allows 11 folds at most"),
    ],
)
def test_settings_that_allow_no_folds_are_refused_in_one_line(scoring_of, settings, problem):
    with pytest.raises(UserError) as error:
        scoring_of(**{"strategy": "sklearn", **settings})
    assert str(error.value).startswith(f"params.yaml: {problem}")
    assert "\n" not in str(error.value)


def test_an_unknown_objective_is_refused_with_every_strategy(scoring_of):
    for strategy in ("random", "sklearn"):
        with pytest.raises(UserError, match=r"^tune.objective in params.yaml is val_no, but NAME in "):
            scoring_of(strategy=strategy, objective="val_no")
