"""The network of stages/training/model.py: a fork with another network replaces these tests, which know its hyperparameters."""

import numpy as np
import pytest
import trainings
from trainings import HYPERPARAMETERS, train

from stages.search.classifier import NetworkClassifier
from stages.training import adam, trainer
from stages.training.backend import keras


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
    assert (baseline["hyperparameters"]["units"], baseline["parameters"]) == (512, 64 * 512 + 512 + 512 * 10 + 10)


def test_its_classifier_learns(digits):
    train_split, test = digits
    classifier = NetworkClassifier({**HYPERPARAMETERS, "learning_rate": 0.01}, epochs=4, seed=1)
    assert classifier.fit(train_split.inputs, train_split.labels).score(test.inputs, test.labels) > 0.8


def test_dropout_is_drawn_while_training(digits):
    histories = [
        train({**HYPERPARAMETERS, "dropout": dropout}, digits[0], epochs=1, batch_size=32, seed=1).history
        for dropout in (0.0, 0.2)
    ]
    assert histories[0] != histories[1]


def test_the_fused_optimizer_is_adam(digits):
    data, _ = digits
    network = trainer.build({**HYPERPARAMETERS, "dropout": 0.0}, data.inputs.shape[1:], data.outputs, 0)
    gradients = [
        np.random.default_rng(i).normal(size=v.shape).astype(np.float32) for i, v in enumerate(network.trainable_variables)
    ]
    results = []
    for optimizer in (adam.fused(network), network.optimizer):
        start = [variable.numpy() for variable in network.trainable_variables]
        for _ in range(3):
            optimizer.apply([keras.ops.convert_to_tensor(gradient) for gradient in gradients], network.trainable_variables)
        results.append([variable.numpy() for variable in network.trainable_variables + optimizer.variables])
        for variable, array in zip(network.trainable_variables, start, strict=True):
            variable.assign(array)
    decayed = keras.optimizers.Adam(weight_decay=0.1)  # what it is not to decay is not in its configuration
    network.optimizer = decayed
    assert adam.fused(network) is decayed
    for fused, keras_own in zip(*results, strict=True):
        np.testing.assert_allclose(fused, keras_own, rtol=1e-5, atol=1e-6)
