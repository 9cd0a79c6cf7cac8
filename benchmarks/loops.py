"""Time epochs of the tutorial's network, trained in one of several ways, or of its arithmetic alone.

Run as `python -m benchmarks.loops WAY UNITS`: prints the seconds of each epoch of 60,000 MNIST-sized images
as JSON. Each process times a single way, because the number of threads is set when TensorFlow starts.
"""

import json
import sys
import time
from collections.abc import Callable

import numpy as np

EPOCHS = 4  # the first one includes tracing and warming up
BATCH = 32
IMAGES = 60_000
RNG = np.random.default_rng(0)


def images_and_labels() -> tuple[np.ndarray, np.ndarray]:
    """Random numbers: the time of the arithmetic does not depend on the values."""
    return RNG.random((IMAGES, 28, 28), dtype=np.float32), RNG.integers(0, 10, IMAGES).astype(np.int32)


def fit(units: int, **compile_options: object) -> Callable[[], object]:
    """`model.fit` as the tutorial writes it, with TensorFlow's own threads."""
    import keras

    model = keras.Sequential(
        [
            keras.Input((28, 28)),
            keras.layers.Flatten(),
            keras.layers.Dense(units, activation="relu"),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"], **compile_options)
    images, labels = images_and_labels()
    return lambda: model.fit(images, labels, batch_size=BATCH, verbose=0)


def fit_100(units: int) -> Callable[[], object]:
    """`model.fit` with 100 steps in each call of TensorFlow."""
    return fit(units, steps_per_execution=100)


def this_project(units: int) -> Callable[[], object]:
    """`stages.training.trainer.Trainer`, one thread."""
    from stages.base.splits import Split
    from stages.training.network import Subset, build, checkpoint
    from stages.training.trainer import Trainer

    hyperparameters = {"units": units, "dropout": 0.2, "learning_rate": 0.001, "batch_size": BATCH}
    data = Split(*images_and_labels())
    network = build(hyperparameters, data, seed=0)
    trainer = Trainer(network, Subset.of(data), batch_size=BATCH)
    reached = checkpoint(network)

    def epoch():
        nonlocal reached
        reached = trainer.run(reached, reached.epoch + 1, 0)

    return epoch


def by_hand(units: int, *, arithmetic_only: bool = False) -> Callable[[], object]:
    """The same network written out without Keras, one TensorFlow function per epoch, one thread."""
    from stages.training.backend import tf

    images, labels = (tf.constant(array) for array in images_and_labels())
    images = tf.reshape(images, (IMAGES, 784))
    shapes = [(784, units), (units,), (units, 10), (10,)]
    weights = [tf.Variable(RNG.normal(0, 0.05, shape).astype(np.float32)) for shape in shapes]
    momenta, velocities = ([tf.Variable(tf.zeros(shape)) for shape in shapes] for _ in range(2))
    steps = tf.Variable(0.0)

    def gradients(x, y):
        w1, b1, w2, b2 = weights
        if arithmetic_only:  # the five matrix products of a step, whatever their values
            hidden, probabilities = tf.matmul(x, w1), tf.zeros((BATCH, 10))
            probabilities += tf.matmul(hidden, w2)
            back = tf.matmul(probabilities, w2, transpose_b=True)
            return [
                tf.matmul(x, back, transpose_a=True),
                back[0],
                tf.matmul(hidden, probabilities, transpose_a=True),
                b2,
            ]
        kept = (
            tf.cast(
                tf.random.stateless_uniform((BATCH, units), [0, tf.cast(steps, tf.int32)]) >= 0.2, tf.float32
            )
            / 0.8
        )
        active = tf.matmul(x, w1) + b1
        hidden = tf.nn.relu(active) * kept
        probabilities = tf.nn.softmax(tf.matmul(hidden, w2) + b2)
        error = (probabilities - tf.one_hot(y, 10)) / BATCH
        back = tf.matmul(error, w2, transpose_b=True) * kept * tf.cast(active > 0, tf.float32)
        return [
            tf.matmul(x, back, transpose_a=True),
            tf.reduce_sum(back, 0),
            tf.matmul(hidden, error, transpose_a=True),
            tf.reduce_sum(error, 0),
        ]

    @tf.function
    def epoch(order):
        for i in tf.range(IMAGES // BATCH):
            rows = order[i * BATCH : (i + 1) * BATCH]
            x, y = (
                (images[:BATCH], labels[:BATCH])
                if arithmetic_only
                else (tf.gather(images, rows), tf.gather(labels, rows))
            )
            steps.assign_add(1.0)
            powers = {"beta1_power": tf.pow(0.9, steps), "beta2_power": tf.pow(0.999, steps)}
            for weight, momentum, velocity, gradient in zip(
                weights, momenta, velocities, gradients(x, y), strict=True
            ):
                tf.raw_ops.ResourceApplyAdam(
                    var=weight.handle,
                    m=momentum.handle,
                    v=velocity.handle,
                    lr=0.001,
                    beta1=0.9,
                    beta2=0.999,
                    epsilon=1e-7,
                    grad=gradient,
                    **powers,
                )

    return lambda: (epoch(tf.constant(RNG.permutation(IMAGES).astype(np.int32))), weights[0].numpy())


def arithmetic(units: int) -> Callable[[], object]:
    """The matrix products and Adam updates of an epoch alone, one thread: a lower bound for all ways."""
    return by_hand(units, arithmetic_only=True)


WAYS = {
    "fit": fit,
    "fit_100": fit_100,
    "this_project": this_project,
    "by_hand": by_hand,
    "arithmetic": arithmetic,
}


def main() -> None:
    epoch, seconds = WAYS[sys.argv[1]](int(sys.argv[2])), []
    for _ in range(EPOCHS):
        start = time.perf_counter()
        epoch()
        seconds.append(time.perf_counter() - start)
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()
