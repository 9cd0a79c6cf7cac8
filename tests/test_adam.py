"""The fused Adam: the same updates as Keras's own, for any type of variable and any kind of learning rate."""

import numpy as np
import pytest

from stages.training import adam
from stages.training.backend import keras, tf


class Halved(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule without `get_config`, as a fork may have."""

    def __call__(self, step):
        return 0.01 / (1 + tf.cast(step, tf.float32))


def updated(dtype: str, learning_rate, *, fuse: bool) -> list[np.ndarray]:
    """The variables of a network and of its optimizer after three updates with fixed gradients."""
    keras.utils.set_random_seed(0)
    network = keras.Sequential([keras.Input((5,)), keras.layers.Dense(4), keras.layers.Dense(3, dtype=dtype)])
    optimizer = keras.optimizers.Adam(learning_rate)
    optimizer.build(network.trainable_variables)
    if fuse:
        adam.fuse(optimizer)
        assert type(optimizer) is adam.FusedAdam
    apply = tf.function(lambda gradients: optimizer.apply(gradients, network.trainable_variables))
    for step in range(3):
        rng = np.random.default_rng(step)
        apply([tf.cast(rng.normal(size=v.shape), v.dtype) for v in network.trainable_variables])
    return [tf.cast(v.value, tf.float64).numpy() for v in network.trainable_variables + optimizer.variables]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float64", 1e-9), ("bfloat16", 2e-2)])
@pytest.mark.parametrize(
    "learning_rate", [0.01, Halved(), lambda: 0.01], ids=["number", "schedule", "function"]
)
def test_updates_are_those_of_kerass_adam(dtype, tolerance, learning_rate):
    fused, own = (updated(dtype, learning_rate, fuse=fuse) for fuse in (True, False))
    for first, second in zip(fused, own, strict=True):
        np.testing.assert_allclose(first, second, rtol=tolerance, atol=1e-6 if dtype != "bfloat16" else 1e-2)


@pytest.mark.parametrize(
    "optimizer",
    [
        keras.optimizers.Adam(weight_decay=0.1),
        keras.optimizers.Adam(amsgrad=True),
        keras.optimizers.Adam(gradient_accumulation_steps=2),
        keras.optimizers.AdamW(),
        keras.optimizers.SGD(),
    ],
)
def test_no_other_optimizer_is_changed(optimizer):
    before = type(optimizer)
    adam.fuse(optimizer)
    assert type(optimizer) is before


def test_gradients_of_an_embedding_are_applied():
    network = keras.Sequential([keras.Input((3,), dtype="int32"), keras.layers.Embedding(10, 2)])
    network.compile("adam", loss="mse")
    network.optimizer.build(network.trainable_variables)
    adam.fuse(network.optimizer)
    before = network.get_weights()[0].copy()
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(network(np.int32([[1, 2, 3]])))
    variables = network.trainable_variables
    network.optimizer.apply(tape.gradient(loss, [variable.value for variable in variables]), variables)
    changed = (network.get_weights()[0] != before).any(1)
    assert changed.tolist() == [False, True, True, True, *[False] * 6]
