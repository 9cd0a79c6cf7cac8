"""One training: pure, deterministic, fast.

What a training comes to depends on its arguments alone, not on the process, the time or what ran before. Shuffling and dropout
are drawn from the seed and the number of the epoch, so a training that stops after epoch 4 and goes on from its checkpoint to
epoch 10 is the training to epoch 10, to the bit.

An epoch is one TensorFlow function: inputs stay in memory and are gathered by a shuffled index, gradients come from
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

from stages.base.console import UserError
from stages.base.hyperparameters import Hyperparameters
from stages.base.params import EarlyStopping
from stages.base.splits import Split
from stages.training import model
from stages.training.adam import fused
from stages.training.backend import keras, seed_generator, tf
from stages.training.score import NAME, score

EVALUATION_BATCH = 1000  # examples; another number gives other last bits
SCORE, LOSS = f"val_{NAME}", "val_loss"
EVALUATED = (SCORE, f"{SCORE}_std", LOSS, f"{LOSS}_std")
_SHUFFLE, _LAYERS = 0, 1  # what a random stream is for


@dataclass(frozen=True)
class Checkpoint:
    """A training that has reached `epoch`: all that its next epoch depends on, in plain NumPy and Python.

    Attributes:
        epoch: epochs trained.
        weights: the model's variables, random states left out, in the model's order.
        optimizer: the optimizer's variables (iteration, learning rate, slots), in its order.
        history: per epoch the score and `loss` (running means over the epoch, dropout on, as Keras reports them) and, with
            validation data, `EVALUATED`: `_std` is the standard deviation over the examples.
        seconds: per epoch, the time the training step took; the only part that the machine decides.
        parameters: how many numbers the network has.
        stopped: whether it ended there: by early stopping, or because a loss was not finite.
    """

    epoch: int
    weights: list[np.ndarray]
    optimizer: list[np.ndarray]
    history: dict[str, list[float]]
    seconds: list[float]
    parameters: int
    stopped: bool = False

    def done(self, epochs: int) -> bool:
        """Whether a training to `epochs` ends here."""
        return self.stopped or self.epoch >= epochs

    @property
    def failure(self) -> str | None:
        """Why nothing came of the training: a loss that is not finite; None if all is well."""
        bad = [name for name, values in self.history.items() if values and not np.isfinite(values[-1])]
        return f"{bad[0]} is {self.history[bad[0]][-1]} after epoch {self.epoch}" if bad else None


def stops(early_stopping: EarlyStopping, history: Mapping[str, list[float]]) -> bool:
    """Whether training ends with the last epoch of `history`, as with Keras's `EarlyStopping` and its defaults.

    Decided on all of the history, so a pause resets nothing.
    """
    values = history[early_stopping.monitor]
    best = np.argmin(values) if early_stopping.monitor in ("loss", LOSS) else np.argmax(values)
    return len(values) - 1 - int(best) >= early_stopping.patience


class Subset(NamedTuple):
    """Some rows of inputs and labels that stay in memory, as tensors: (n, ...) and (n,); and which rows."""

    inputs: tf.Tensor
    labels: tf.Tensor
    rows: np.ndarray

    @classmethod
    def of(cls, split: Split) -> "Subset":
        """All of `split`."""
        return cls(tf.constant(split.inputs), tf.constant(split.labels), np.arange(len(split.labels), dtype=np.int32))


class Trainer:
    """A network, traced once, that can then be trained from any checkpoint of its training.

    Args:
        network: a compiled Keras model from inputs to outputs, such as `build` returns.
        data: what to train on; the last batch of an epoch is smaller where `batch_size` does not divide its rows.
        validation: what `EVALUATED` is computed on after each epoch.
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
        names = (NAME, "loss", *(EVALUATED if validation else ()))
        self._start = self._checkpoint(0, {name: [] for name in names}, [], False)

    def run(self, epochs: int, checkpoint: Checkpoint | None = None, seconds_at_most: float = math.inf) -> Checkpoint:
        """Return the checkpoint at epoch `epochs`, or where it stopped before that, from `checkpoint` (None: the start).

        After `seconds_at_most`, it is the checkpoint at the end of the epoch that is being trained.
        """
        start = time.monotonic()
        checkpoint = checkpoint or self._start
        restore(self.network, self._optimizer, checkpoint)
        history = {name: list(values) for name, values in checkpoint.history.items()}
        seconds, stopped, epoch = list(checkpoint.seconds), checkpoint.stopped, checkpoint.epoch
        while epoch < epochs and not stopped and (epoch == checkpoint.epoch or time.monotonic() - start < seconds_at_most):
            seconds.append(self.train_epoch(epoch, history))
            if self.validation:
                for name, value in zip(EVALUATED, self._evaluate(self.validation), strict=True):
                    history[name].append(value)
            epoch += 1
            stopped = not all(np.isfinite(values[-1]) for values in history.values())
            stopped = stopped or (self.early_stopping is not None and stops(self.early_stopping, history))
        return self._checkpoint(epoch, history, seconds, stopped)

    def train_epoch(self, epoch: int, history: dict[str, list[float]]) -> float:
        """Train epoch number `epoch` (from 0) from where the network is; append to `history`, return the seconds it took."""
        for i, random_state in enumerate(self._random_states):
            random_state.assign([np.random.SeedSequence([self.seed, epoch, _LAYERS, i]).generate_state(1)[0], 0])
        order = np.random.default_rng([self.seed, epoch, _SHUFFLE]).permutation(len(self.data.rows))
        inputs = self.data.inputs, self.data.labels, tf.constant(self.data.rows[order])
        self._epoch_function.get_concrete_function(*inputs)  # traces the first time, which is no training time
        start = time.perf_counter()
        total, loss = self._epoch_function(*inputs)
        history[NAME].append(float(total) / len(order))
        history["loss"].append(float(loss) / len(order))
        return time.perf_counter() - start

    def _checkpoint(self, epoch: int, history: dict[str, list[float]], seconds: list[float], stopped: bool) -> Checkpoint:
        weights, optimizer = (
            [variable.numpy() for variable in variables] for variables in (_weights(self.network), self._optimizer.variables)
        )
        return Checkpoint(epoch, weights, optimizer, history, seconds, sum(array.size for array in weights), stopped)


def build(hyperparameters: Mapping[str, object], input_shape: tuple[int, ...], outputs: int, seed: int) -> keras.Model:
    """Return the compiled Keras model of model.py, built for inputs of `input_shape` and initialised from `seed`.

    Raises:
        UserError: it has what only `model.fit` would heed.
    """
    keras.backend.clear_session(free_memory=False)
    keras.utils.set_random_seed(seed)
    # Keras draws the seeds of layers from Python's one generator, which other threads (Dask's, in a worker) draw from too
    with mock.patch.object(seed_generator, "python_random", random.Random(seed)):  # noqa: S311
        network = model.build(tuple(input_shape), outputs, Hyperparameters.model_validate(hyperparameters))
        if not network.built:
            network.build((None, *input_shape))
    optimizer = network.optimizer
    if type(network).train_step is not keras.Model.train_step or (optimizer.use_ema and not optimizer.ema_overwrite_frequency):
        what = "a train_step of its own, or an optimizer that has use_ema without ema_overwrite_frequency"
        raise UserError(f"stages/training/model.py: the network has {what}; only `model.fit` would heed that")
    optimizer.build(network.trainable_variables)
    return network


def restore(network: keras.Model, optimizer: keras.optimizers.Optimizer, checkpoint: Checkpoint) -> None:
    """Give `network` and `optimizer` the values of `checkpoint`."""
    for variable, array in zip(_weights(network) + optimizer.variables, checkpoint.weights + checkpoint.optimizer, strict=True):
        variable.assign(array)


def evaluator(network: keras.Model) -> Callable[[Subset], list[float]]:
    """Return a function of a `Subset` that returns the score, the loss and their deviations, as in `EVALUATED`, dropout off.

    The loss is the one that the network was compiled with.
    """
    compiled = keras.losses.get(network.loss)
    per_example = getattr(compiled, "call", compiled)

    @tf.function(autograph=False)
    def evaluate(inputs, labels, rows):
        inputs, labels = tf.gather(inputs, rows), tf.gather(labels, rows)
        outputs = network(inputs, training=False)
        loss = network.compute_loss(inputs, labels, outputs, training=False)
        return loss, score(labels, outputs), per_example(labels, outputs)

    def on(subset: Subset) -> list[float]:
        batches = [subset.rows[start : start + EVALUATION_BATCH] for start in range(0, len(subset.rows), EVALUATION_BATCH)]
        found = [evaluate(subset.inputs, subset.labels, tf.constant(rows)) for rows in batches]
        arrays = (np.hstack([value.numpy() for value in values]).astype(np.float64) for values in zip(*found, strict=True))
        mean_losses, scores, losses = arrays
        loss = np.average(mean_losses, weights=[len(rows) for rows in batches])
        return [float(value) for value in (scores.mean(), scores.std(), loss, losses.std())]

    return on


def predictor(network: keras.Model) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function of inputs (n, ...) that returns the outputs of `network`, (n, outputs) float32, dropout off."""
    call = tf.function(lambda batch: network(batch, training=False), autograph=False)

    def predict(inputs: np.ndarray) -> np.ndarray:
        batches = [inputs[start : start + EVALUATION_BATCH] for start in range(0, len(inputs), EVALUATION_BATCH)]
        return np.concatenate([call(tf.constant(batch)).numpy() for batch in batches])

    return predict


def _epoch_function(network: keras.Model, optimizer: keras.optimizers.Optimizer, batch_size: int):
    """Return a TensorFlow function (inputs, labels, order) -> (sum of scores, sum of losses), both float64."""
    variables = network.trainable_variables

    def step(inputs, labels, score_sum, loss_sum):
        with tf.GradientTape() as tape:
            outputs = network(inputs, training=True)
            loss = network.compute_loss(inputs, labels, outputs, training=True)
            scaled = optimizer.scale_loss(loss)
        optimizer.apply(tape.gradient(scaled, [variable.value for variable in variables]), variables)
        size = tf.cast(tf.shape(labels)[0], tf.float64)
        score_sum += tf.cast(tf.reduce_sum(score(labels, outputs)), tf.float64)
        return score_sum, loss_sum + tf.cast(loss, tf.float64) * size

    @tf.function(autograph=False)
    def run_epoch(inputs, labels, order):
        full, rest = divmod(order.shape[0], batch_size)
        sums = tf.constant(0.0, tf.float64), tf.constant(0.0, tf.float64)

        def gathered(start, size):
            batch = tf.slice(order, [start], [size])  # whose size TensorFlow knows when it traces, unlike that of order[a:b]
            return tf.gather(inputs, batch), tf.gather(labels, batch)

        _, sums = tf.while_loop(
            lambda i, _: i < full,
            lambda i, sums: (i + 1, step(*gathered(i * batch_size, batch_size), *sums)),
            (0, sums),
            parallel_iterations=1,
        )
        return step(*gathered(full * batch_size, rest), *sums) if rest else sums

    return run_epoch


def _weights(network: keras.Model) -> list:
    return [variable for variable in network.variables if variable.name != "seed_generator_state"]
