"""`train`: pure, deterministic, fast.

What a training comes to depends on its arguments alone, not on the process, the time or what ran before. Shuffling and dropout
are drawn from the seed and the number of the epoch, so a training that stops after epoch 4 and goes on from its checkpoint to
epoch 10 is the training to epoch 10, to the bit.

An epoch is one TensorFlow function: images stay in memory and are gathered by a shuffled index, gradients come from
`GradientTape` over the Keras model, and plain Adam is applied by TensorFlow's fused kernel.
"""

import math
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple
from unittest import mock

import numpy as np

from stages.base.hyperparameters import Hyperparameters
from stages.base.splits import Split
from stages.training import model
from stages.training.adam import fused
from stages.training.backend import keras, seed_generator, tf

EVALUATION_BATCH = 1000  # images; another number gives other last bits
SCORES = ("val_accuracy", "val_loss", "val_loss_std")
_SHUFFLE, _LAYERS = 0, 1  # what a random stream is for


@dataclass(frozen=True)
class EarlyStopping:
    """Stop when `monitor` has not improved on its best for `patience` epochs (Keras's `EarlyStopping` with its defaults)."""

    monitor: str
    patience: int

    def stops(self, history: Mapping[str, list[float]]) -> bool:
        """Whether training ends with the last epoch of `history`; decided on all of it, so a pause resets nothing."""
        values = np.asarray(history[self.monitor])
        if self.monitor.endswith("accuracy"):
            values = -values
        best, wait = values[0], 0
        for value in values[1:]:
            best, wait = (value, 0) if value < best else (best, wait + 1)
        return wait >= self.patience


@dataclass(frozen=True)
class Checkpoint:
    """A training that has reached `epoch`: all that its next epoch depends on, in plain NumPy and Python.

    Attributes:
        epoch: epochs trained.
        weights: the model's variables, random states left out, in the model's order.
        optimizer: the optimizer's variables (iteration, learning rate, slots), in its order.
        history: per epoch `accuracy` and `loss` (running means over the epoch, dropout on, as Keras reports them) and, with
            validation data, `val_accuracy`, `val_loss` and `val_loss_std`, the standard deviation of the loss over the images.
        seconds: per epoch, the time the training step took; the only part that the machine decides.
        stopped: whether it ended there: by early stopping, or because a loss was not finite.
    """

    epoch: int
    weights: list[np.ndarray]
    optimizer: list[np.ndarray]
    history: dict[str, list[float]]
    seconds: list[float]
    stopped: bool = False

    @property
    def parameters(self) -> int:
        """How many numbers the network has."""
        return sum(array.size for array in self.weights)

    @property
    def failure(self) -> str | None:
        """Why nothing came of the training: a loss that is not finite; None if all is well."""
        bad = [name for name, values in self.history.items() if values and not np.isfinite(values[-1])]
        return f"{bad[0]} is {self.history[bad[0]][-1]} after epoch {self.epoch}" if bad else None


class Subset(NamedTuple):
    """Some rows of images and labels that stay in memory: tensors (n, height, width) float32 and (n,) int32, and which rows."""

    images: tf.Tensor
    labels: tf.Tensor
    rows: np.ndarray

    @classmethod
    def of(cls, split: Split) -> "Subset":
        """All of `split`."""
        return cls(tf.constant(split.images), tf.constant(split.labels), np.arange(len(split.labels), dtype=np.int32))


class Trainer:
    """A network, traced once, that can then be trained from any checkpoint of its training.

    Args:
        network: a compiled Keras model from images to class probabilities, such as `build` returns.
        data: what to train on; the last batch of an epoch is smaller where `batch_size` does not divide its rows.
        validation: what `val_accuracy` and `val_loss` are computed on after each epoch.
        early_stopping: None trains all epochs.
    """

    def __init__(
        self,
        network: keras.Model,
        data: Subset,
        *,
        batch_size: int,
        seed: int,
        validation: Subset | None = None,
        early_stopping: EarlyStopping | None = None,
    ):
        self.data, self.validation = data, validation
        self.seed, self.early_stopping = seed, early_stopping
        self.network = network
        self._optimizer = fused(network)
        self._epoch_function = _epoch_function(self.network, self._optimizer, batch_size)
        self._evaluate = evaluator(self.network)
        self._random_states = [variable for variable in self.network.variables if variable.name == "seed_generator_state"]
        names = ("accuracy", "loss", *(SCORES if validation else ()))
        self._start = Checkpoint(0, self._weights(), self._slots(), {name: [] for name in names}, [])

    def run(self, epochs: int, checkpoint: Checkpoint | None = None) -> Checkpoint:
        """Return the checkpoint at epoch `epochs`, or where it stopped before that, from `checkpoint` (None: the start)."""
        checkpoint = checkpoint or self._start
        _assign(_weights(self.network), checkpoint.weights)
        _assign(self._optimizer.variables, checkpoint.optimizer)
        history = {name: list(values) for name, values in checkpoint.history.items()}
        seconds, stopped, epoch = list(checkpoint.seconds), checkpoint.stopped, checkpoint.epoch
        while epoch < epochs and not stopped:
            seconds.append(self.train_epoch(epoch, history))
            if self.validation:
                for name, value in zip(SCORES, self._evaluate(self.validation), strict=True):
                    history[name].append(value)
            epoch += 1
            stopped = not all(np.isfinite(values[-1]) for values in history.values())
            stopped = stopped or (self.early_stopping is not None and self.early_stopping.stops(history))
        return Checkpoint(epoch, self._weights(), self._slots(), history, seconds, stopped)

    def train_epoch(self, epoch: int, history: dict[str, list[float]]) -> float:
        """Train epoch number `epoch` (from 0) from where the network is; append to `history`, return the seconds it took."""
        for i, random_state in enumerate(self._random_states):
            random_state.assign([np.random.SeedSequence([self.seed, epoch, _LAYERS, i]).generate_state(1)[0], 0])
        order = np.random.default_rng([self.seed, epoch, _SHUFFLE]).permutation(len(self.data.rows))
        inputs = self.data.images, self.data.labels, tf.constant(self.data.rows[order])
        self._epoch_function.get_concrete_function(*inputs)  # traces the first time, which is no training time
        start = time.perf_counter()
        loss, correct = self._epoch_function(*inputs)
        history["accuracy"].append(int(correct) / len(order))
        history["loss"].append(float(loss) / len(order))
        return time.perf_counter() - start

    def _weights(self) -> list[np.ndarray]:
        return [variable.numpy() for variable in _weights(self.network)]

    def _slots(self) -> list[np.ndarray]:
        return [variable.numpy() for variable in self._optimizer.variables]


def train(
    hyperparameters: Mapping[str, object],
    data: Split,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    validation: Split | None = None,
    early_stopping: EarlyStopping | None = None,
    checkpoint: Checkpoint | None = None,
) -> Checkpoint:
    """Train the network of model.py on `data` to epoch `epochs`, from `checkpoint` or from the start; see `Trainer`."""
    trainer = Trainer(
        build(hyperparameters, data.images.shape[1:], data.classes, seed),
        Subset.of(data),
        batch_size=batch_size,
        seed=seed,
        validation=Subset.of(validation) if validation else None,
        early_stopping=early_stopping,
    )
    return trainer.run(epochs, checkpoint)


def build(
    hyperparameters: Mapping[str, object],
    image_shape: tuple[int, ...],
    classes: int,
    seed: int,
    checkpoint: Checkpoint | None = None,
) -> keras.Model:
    """Return the compiled Keras model of model.py, initialised from `seed` or with the variables of `checkpoint`."""
    keras.backend.clear_session(free_memory=False)
    keras.utils.set_random_seed(seed)
    # Keras draws the seeds of layers from Python's one generator, which other threads (Dask's, in a worker) draw from too
    with mock.patch.object(seed_generator, "python_random", random.Random(seed)):  # noqa: S311
        network = model.build(tuple(image_shape), classes, Hyperparameters.model_validate(hyperparameters))
    network.optimizer.build(network.trainable_variables)
    if checkpoint is not None:
        _assign(_weights(network), checkpoint.weights)
        _assign(network.optimizer.variables, checkpoint.optimizer)
    return network


def evaluator(network: keras.Model) -> Callable[[Subset], tuple[float, float, float]]:
    """Return a function of a `Subset` that returns (accuracy, mean loss, its standard deviation) of `network`, dropout off.

    The standard deviation is over the images, of the loss that the network was compiled with.
    """
    compiled = keras.losses.get(network.loss)
    per_image = getattr(compiled, "call", compiled)

    @tf.function(autograph=False)
    def evaluate(images, labels, rows):
        images, labels = tf.gather(images, rows), tf.gather(labels, rows)
        probabilities = network(images, training=False)
        loss = network.compute_loss(images, labels, probabilities, training=False)
        losses = per_image(labels, probabilities)
        return _correct(probabilities, labels), loss, tf.reduce_sum(losses), tf.reduce_sum(tf.square(losses))

    def on(part: Subset) -> tuple[float, float, float]:
        correct, loss, total, squares, n = 0, 0.0, 0.0, 0.0, len(part.rows)
        for start in range(0, n, EVALUATION_BATCH):
            rows = part.rows[start : start + EVALUATION_BATCH]
            sums = evaluate(part.images, part.labels, tf.constant(rows))
            batch_correct, batch_loss, batch_total, batch_squares = (value.numpy().item() for value in sums)
            correct += batch_correct
            loss += batch_loss * len(rows)
            total += batch_total
            squares += batch_squares
        return correct / n, loss / n, math.sqrt(max(squares / n - (total / n) ** 2, 0))

    return on


def predict(network: keras.Model, images: np.ndarray) -> np.ndarray:
    """Return the class probabilities (n, classes) float32 of `images`, dropout off."""
    call = tf.function(lambda batch: network(batch, training=False), autograph=False)
    batches = [images[start : start + EVALUATION_BATCH] for start in range(0, len(images), EVALUATION_BATCH)]
    return np.concatenate([call(tf.constant(batch)).numpy() for batch in batches])


def _epoch_function(network: keras.Model, optimizer: keras.optimizers.Optimizer, batch_size: int):
    """Return a TensorFlow function (images, labels, order) -> (sum of losses float64, number of correct answers)."""
    variables = network.trainable_variables

    def step(images, labels, loss_sum, correct):
        with tf.GradientTape() as tape:
            probabilities = network(images, training=True)
            loss = network.compute_loss(images, labels, probabilities, training=True)
            scaled = optimizer.scale_loss(loss)
        optimizer.apply(tape.gradient(scaled, [variable.value for variable in variables]), variables)
        size = tf.cast(tf.shape(labels)[0], tf.float64)
        return loss_sum + tf.cast(loss, tf.float64) * size, correct + _correct(probabilities, labels)

    @tf.function(autograph=False)
    def run_epoch(images, labels, order):
        full, rest = divmod(order.shape[0], batch_size)
        sums = tf.constant(0.0, tf.float64), tf.constant(0)

        def gathered(start, size):
            batch = order[start : start + size]
            return tf.gather(images, batch), tf.gather(labels, batch)

        _, sums = tf.while_loop(
            lambda i, _: i < full,
            lambda i, sums: (i + 1, step(*gathered(i * batch_size, batch_size), *sums)),
            (0, sums),
            parallel_iterations=1,
        )
        return step(*gathered(full * batch_size, rest), *sums) if rest else sums

    return run_epoch


def _correct(probabilities, labels):
    return tf.reduce_sum(tf.cast(tf.argmax(probabilities, -1, output_type=labels.dtype) == labels, tf.int32))


def _weights(network: keras.Model) -> list:
    return [variable for variable in network.variables if variable.name != "seed_generator_state"]


def _assign(variables: list, arrays: list[np.ndarray]) -> None:
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
