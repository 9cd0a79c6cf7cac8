"""The network and the score of this repository; a fork with its own replaces these tests."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import trainings
from trainings import train

from stages.base.params import load
from stages.training import evaluation, network

ROOT = Path(__file__).parent.parent
BASELINE = load(ROOT / "params.yaml").baseline
# By path, since imports in the tests' process find the files of tests/project
MODEL, SCORE = (
    SimpleNamespace(**runpy.run_path(str(ROOT / f"stages/training/{name}.py"))) for name in ("model", "score")
)


@pytest.fixture(autouse=True)
def real(monkeypatch):
    monkeypatch.setattr(network, "model", MODEL)
    monkeypatch.setattr(evaluation, "score", SCORE.score)


@pytest.fixture(scope="module")
def digits():
    return trainings.digits()


def test_it_is_the_tutorials(digits):
    made = network.build(BASELINE, digits[0], 0)
    assert BASELINE == {"units": 512, "dropout": 0.2, "learning_rate": 0.001, "batch_size": 32}
    assert made.count_params() == 64 * 512 + 512 + 512 * 10 + 10
    assert [type(layer).__name__ for layer in made.layers] == ["Flatten", "Dense", "Dropout", "Dense"]


def test_it_learns(digits):
    data, validation = digits
    state = train({**BASELINE, "learning_rate": 0.01}, data, epochs=4, seed=1, validation=validation)
    assert state.history[evaluation.SCORE][-1] > 0.8


def test_dropout_is_active_in_training(digits):
    histories = [
        train({**BASELINE, "dropout": dropout}, digits[0], epochs=1, seed=1).history for dropout in (0.0, 0.2)
    ]
    assert histories[0] != histories[1]


SOFTMAX = np.float32([[0.2, 0.5, 0.3], [0.6, 0.3, 0.1]])


@pytest.mark.parametrize(
    ("labels", "outputs", "right"),
    [
        ([1, 2], SOFTMAX, [1, 0]),
        ([1, 0, 0], [[0.7], [0.5], [0.6]], [1, 1, 0]),
        ([[1, 0], [1, 1]], [[0.7, 0.2], [0.4, 0.9]], [1, 0.5]),
        ([[1, 0], [2, 2]], [SOFTMAX, SOFTMAX], [1, 0]),
        ([[0, 1, 0], [0, 0, 1]], SOFTMAX, [1, 0]),
        ([[1, 1, 0], [0, 1, 1]], [[0, 1, 0], [0, 0, 1]], [2 / 3, 2 / 3]),
    ],
    ids=[
        "softmax",
        "one sigmoid",
        "several sigmoids",
        "tokens",
        "one-hot",
        "several that look like a softmax",
    ],
)
def test_the_score_is_the_share_of_right_labels_of_each_example(labels, outputs, right):
    assert SCORE.score(np.int32(labels), np.float32(outputs)).tolist() == right
    assert SCORE.NAME == "accuracy"


@pytest.mark.parametrize(
    ("labels", "outputs"),
    [
        ([0.2, 3.0], [[0.7], [0.5]]),
        ([-1, 1], [[0.1], [0.5]]),
        ([0, 1], [[-0.3], [2.1]]),
        ([[0, 2]], [[0.1, 0.2]]),
    ],
    ids=["numbers", "-1 and 1", "logits", "counts"],
)
def test_labels_and_outputs_that_are_no_classes_are_refused(labels, outputs):
    with pytest.raises(ValueError, match="accuracy is of labels 0, 1 and outputs from 0 to 1; for others"):
        SCORE.score(np.array(labels), np.float32(outputs))


def test_a_hyperparameter_is_added_to_the_space_in_one_line(tmp_path):
    text = (ROOT / "params.yaml").read_text()
    for name in ("dropout", "learning_rate", "batch_size"):
        text = text.replace(f"    # {name}:", f"    {name}:")
    (tmp_path / "params.yaml").write_text(text)
    read = load(tmp_path / "params.yaml").tune.space
    assert [*read] == ["units", "dropout", "learning_rate", "batch_size"]
