"""The score of a set of examples and its standard error, compared with independent calculations."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from stages.base.console import UserError
from stages.training import evaluation


@pytest.fixture
def use_score(monkeypatch):
    """A function that replaces `score` by its argument."""
    return lambda function: monkeypatch.setattr(evaluation, "score", function)


def scored(n: int = 600) -> tuple[np.ndarray, np.ndarray]:
    """Labels 0 and 1, and outputs (n, 1) that are correlated with them."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, n).astype(np.int32)
    return labels, (labels + rng.normal(0, 1.2, n)).astype(np.float32)[:, None]


def auc(labels, outputs):
    return roc_auc_score(labels, outputs[:, 0])


def root_mean_square(labels, outputs):
    return -math.sqrt(np.mean((labels - outputs[:, 0]) ** 2))


@pytest.mark.parametrize("kind", [bool, np.int64, np.float32])
def test_a_score_of_each_example_is_taken_as_it_is(use_score, kind):
    use_score(lambda labels, outputs: np.asarray(outputs[:, 0] > labels / 2, kind))
    labels, outputs = scored()
    values = evaluation.values(labels, outputs)
    assert values.dtype == np.float64
    assert values.tolist() == (outputs[:, 0] > labels / 2).tolist()
    assert evaluation.mean(labels, outputs) == pytest.approx(values.mean(), rel=1e-15)


@pytest.mark.parametrize("score", [auc, root_mean_square])
def test_the_values_of_one_score_for_all_have_its_mean_and_the_jackknifes_standard_error(use_score, score):
    use_score(score)
    labels, outputs = scored()
    mean, error = evaluation.mean_and_error(evaluation.values(labels, outputs))
    assert mean == pytest.approx(score(labels, outputs), rel=1e-12)
    assert evaluation.mean(labels, outputs) == score(labels, outputs)
    part_of = np.random.default_rng(0).permutation(600) % 50
    pseudo_values = []
    for part in range(50):
        rest = [row for row in range(600) if part_of[row] != part]
        assert len(rest) == 588
        pseudo_values.append(50 * score(labels, outputs) - 49 * score(labels[rest], outputs[rest]))
    center = sum(pseudo_values) / 50
    variance = sum((value - center) ** 2 for value in pseudo_values) / 49
    assert error == pytest.approx(math.sqrt(variance / 50), rel=1e-9)


def test_the_standard_error_of_an_auc_is_the_bootstraps_within_a_fifth(use_score):
    use_score(auc)
    labels, outputs = scored()
    rng = np.random.default_rng(2)
    drawn = (rng.integers(0, 600, 600) for _ in range(200))
    bootstrap = np.std([auc(labels[rows], outputs[rows]) for rows in drawn], ddof=1)
    error = evaluation.mean_and_error(evaluation.values(labels, outputs))[1]
    assert error == pytest.approx(bootstrap, rel=0.2)


def test_the_standard_error_of_a_mean_is_the_same_by_examples_and_by_parts(use_score):
    labels, outputs = scored(60_000)
    use_score(lambda labels, outputs: outputs[:, 0])
    by_examples = evaluation.mean_and_error(evaluation.values(labels, outputs))
    use_score(lambda labels, outputs: outputs.mean(dtype=np.float64))
    by_parts = evaluation.mean_and_error(evaluation.values(labels, outputs))
    assert by_parts[0] == pytest.approx(by_examples[0], rel=1e-12)
    assert by_parts[1] == pytest.approx(by_examples[1], rel=0.3)  # with 50 parts, it varies by a tenth


def test_a_score_cannot_change_the_data(use_score):
    """The network computes on the same memory, so its later losses would depend on the score."""

    def score(labels, outputs):
        labels[labels == 0] = 9
        return labels

    use_score(score)
    with pytest.raises(ValueError, match="read-only"):
        evaluation.mean(*scored())


def test_each_of_few_examples_is_a_part(use_score):
    use_score(lambda labels, outputs: labels.mean())
    values = evaluation.values(np.array([1.0, 2.0, 6.0]), np.zeros((3, 1)))
    assert sorted(values) == pytest.approx([1.0, 2.0, 6.0], rel=1e-12)


GROUPS = np.random.default_rng(3).integers(0, 30, 600) ** 2 - 5  # with 13 to 29 examples each


def left_out(score, labels, outputs, groups) -> list[float]:
    """The jackknife's pseudo-values, leaving out each group in turn, shifted to the mean of all examples."""
    names, whole = sorted(set(groups)), np.mean(score(labels, outputs))
    without = [np.mean(score(labels[groups != name], outputs[groups != name])) for name in names]
    values = [len(names) * whole - (len(names) - 1) * each for each in without]
    return [value - sum(values) / len(names) + whole for value in values]


def test_a_score_of_each_example_has_a_value_for_each_group_with_the_same_mean(use_score):
    def score(labels, outputs):
        return np.float64(outputs[:, 0] > labels / 2)

    use_score(score)
    labels, outputs = scored()
    values = evaluation.values(labels, outputs, GROUPS)
    assert values.tolist() == pytest.approx(left_out(score, labels, outputs, GROUPS), rel=1e-9)
    assert values.mean() == pytest.approx(evaluation.mean(labels, outputs), rel=1e-12)
    alike = np.arange(600) // 20
    means = score(labels, outputs).reshape(30, 20).mean(1)
    assert evaluation.values(labels, outputs, alike) == pytest.approx(means, rel=1e-12)
    single = evaluation.values(labels, outputs, np.arange(600))
    assert single == pytest.approx(evaluation.values(labels, outputs), abs=1e-9)


def test_the_parts_of_a_score_for_all_are_whole_groups_and_single_ones_if_there_are_few(use_score):
    use_score(auc)
    labels, outputs = scored()
    values = evaluation.values(labels, outputs, GROUPS)
    assert sorted(values) == pytest.approx(sorted(left_out(auc, labels, outputs, GROUPS)), rel=1e-9)
    many = np.arange(600) // 6  # 100 groups, two in each part
    part_of = np.random.default_rng(0).permutation(100) % 50
    expected = left_out(auc, labels, outputs, part_of[many])
    assert evaluation.values(labels, outputs, many) == pytest.approx(expected, rel=1e-9)
    single = evaluation.values(labels, outputs, np.arange(600))
    assert (single == evaluation.values(labels, outputs)).all()


def test_a_score_that_is_not_finite_without_a_part_is_one_line(use_score):
    """Here one group has all positives; without the check, the network would be a failed trial."""
    use_score(auc)
    labels, outputs = np.repeat([1, 0], [5, 95]), np.random.default_rng(0).random((100, 1))
    with pytest.raises(UserError, match=r"score of all 100 examples is 0\.\d+, but it is not finite when"):
        evaluation.values(labels, outputs, groups=np.where(labels, 0, np.arange(100)))
    assert np.isfinite(evaluation.values(labels, outputs)).all()


def test_the_standard_error_treats_groups_as_the_samples():
    """If the examples of each group are equal, they add no information to their group."""
    numbers = np.repeat(np.random.default_rng(0).standard_normal(40), 5)
    error = evaluation.mean_and_error(evaluation.of_groups(numbers, np.arange(200) // 5))[1]
    assert error == pytest.approx(numbers.std() / math.sqrt(39), rel=1e-9)
    assert evaluation.of_groups(numbers, None) is numbers


def test_the_mean_and_its_standard_error():
    mean, error = evaluation.mean_and_error(np.float32([1, 2, 3, 6]))
    assert (mean, error) == (3.0, pytest.approx(math.sqrt(14 / 3) / 2, rel=1e-12))
    assert evaluation.mean_and_error(np.float32([3])) == (3.0, 0.0)


@pytest.mark.parametrize(
    ("score", "found"),
    [
        (lambda labels, outputs: labels[:, None] == labels, "bool of shape (6, 6)"),
        (lambda labels, outputs: outputs, "float32 of shape (6, 1)"),
        (lambda labels, outputs: outputs[:-1, 0], "float32 of shape (5,)"),
        (lambda labels, outputs: np.zeros(1), "float64 of shape (1,)"),
        (lambda labels, outputs: "good", "<U4 of shape ()"),
        (lambda labels, outputs: ["good"] * 6, "<U4 of shape (6,)"),
        (lambda labels, outputs: None, "object of shape ()"),
    ],
)
def test_a_score_of_another_shape_is_one_line(use_score, score, found):
    use_score(score)
    for function in (evaluation.values, evaluation.mean):
        with pytest.raises(UserError) as error:
            function(*scored(6))
        assert str(error.value) == (
            f"stages/training/score.py: score returns {found} for labels of shape (6,) and outputs of shape "
            "(6, 1); it should be a number for each example, of shape (6,), or one for all"
        )


def tune(objective=evaluation.SCORE, monitor=None) -> SimpleNamespace:
    return SimpleNamespace(
        objective=objective, early_stopping=monitor and SimpleNamespace(monitor=monitor, patience=1)
    )


@pytest.mark.parametrize("name", ["F1 score", "f1-score", "", "1f", "f1\n", "précision"])
def test_a_name_of_other_characters_is_refused(monkeypatch, name):
    monkeypatch.setattr(evaluation, "NAME", name)
    with pytest.raises(UserError) as error:
        evaluation.check_names(tune())
    said = f"score.py: NAME is {name!r}; it should be of a-z, 0-9 and _ only"
    assert str(error.value) == f"stages/training/{said}"


@pytest.mark.parametrize(
    ("names", "key", "shown", "choices"),
    [
        ({"objective": "val_f1"}, "objective", "val_f1", [evaluation.SCORE, evaluation.LOSS]),
        (
            {"monitor": "f1"},
            "early_stopping.monitor",
            "f1",
            [evaluation.SCORE, evaluation.LOSS, evaluation.NAME, "loss"],
        ),
    ],
)
def test_an_unknown_objective_or_monitor_is_named_with_the_choices(names, key, shown, choices):
    with pytest.raises(UserError) as error:
        evaluation.check_names(tune(**names))
    assert str(error.value) == (
        f"tune.{key} in params.yaml is {shown}, but NAME in stages/training/score.py is {evaluation.NAME}: "
        f"use {' or '.join(choices)}, or change NAME"
    )
    for choice in choices:
        evaluation.check_names(tune(**dict.fromkeys(names, choice)))
