"""The network of model.py: a fork with another one replaces these tests, which know its hyperparameters."""

import pytest
import trainings
from trainings import HYPERPARAMETERS, train

from stages.training import trainer


@pytest.fixture(scope="module")
def digits():
    return trainings.digits()


def test_it_is_the_tutorials(digits):
    data = digits[0]
    network = trainer.build(HYPERPARAMETERS, data.inputs.shape[1:], data.outputs, 0)
    assert HYPERPARAMETERS == {"units": 512, "dropout": 0.2, "learning_rate": 0.001}
    assert network.count_params() == 64 * 512 + 512 + 512 * 10 + 10
    assert [type(layer).__name__ for layer in network.layers] == ["Flatten", "Dense", "Dropout", "Dense"]


def test_the_metrics_have_its_size(reproduced):
    baseline = reproduced.metrics("baseline")
    assert (baseline["hyperparameters"]["units"], baseline["parameters"]) == (
        512,
        64 * 512 + 512 + 512 * 10 + 10,
    )


def test_it_learns(digits):
    data, validation = digits
    hyperparameters = {**HYPERPARAMETERS, "learning_rate": 0.01}
    state = train(hyperparameters, data, epochs=4, batch_size=32, seed=1, validation=validation)
    assert state.history["val_accuracy"][-1] > 0.8


def test_dropout_is_drawn_while_training(digits):
    histories = [
        train({**HYPERPARAMETERS, "dropout": dropout}, digits[0], epochs=1, batch_size=32, seed=1).history
        for dropout in (0.0, 0.2)
    ]
    assert histories[0] != histories[1]
