"""One training: pure, deterministic, fast.

What a training comes to depends on its arguments alone, not on the process, the time or what ran before.
Shuffling and dropout are drawn from the seed and the number of the epoch, so a training that stops after
epoch 4 and goes on from its checkpoint to epoch 10 is the training to epoch 10, to the bit.

An epoch is one TensorFlow function: inputs stay in memory and are gathered by a shuffled index, gradients
come from `GradientTape` over the Keras model, and plain Adam is applied by TensorFlow's fused kernel.
"""

import math
import random
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

from stages.base.console import UserError
from stages.base.hyperparameters import Hyperparameters
from stages.base.splits import Split
from stages.training import model
from stages.training.adam import fuse
from stages.training.backend import DEVICE, keras, seed_generator, tf
from stages.training.checkpoint import EVALUATED, LOSS, Checkpoint
from stages.training.score import NAME, score

EVALUATION_BATCH, EVALUATION_BYTES = 1000, 2**26  # at most; another batch gives other last bits
_ALIGNED = 64  # bytes: TensorFlow ends the process if a tensor that it computes on begins elsewhere
_SHUFFLE, _LAYERS = 0, 1  # what a random stream is for
_RANDOM_STATE = "seed_generator_state"  # the name of Keras's variables for random numbers
# Operations of TensorFlow that draw from a state of their own, which is in no checkpoint
_DRAWS = re.compile(
    r"(Random|TruncatedNormal|ParameterizedTruncatedNormal|Multinomial|Stateful(?!Partitioned))\w*"
)


def stops(monitor: str, patience: int, history: Mapping[str, list[float]]) -> bool:
    """Whether training ends with the last epoch of `history`, as with Keras's `EarlyStopping` by default.

    Decided on all of the history, so a pause resets nothing.
    """
    values = history[monitor]
    best = np.argmin(values) if monitor in ("loss", LOSS) else np.argmax(values)
    return len(values) - 1 - int(best) >= patience


class Subset(NamedTuple):
    """Some rows of inputs and labels, which are tensors: (n, ...) and (n,); and which rows, (m,) int32."""

    inputs: tf.Tensor
    labels: tf.Tensor
    rows: np.ndarray

    @classmethod
    def of(cls, split: Split) -> "Subset":
        """All of `split`; on a CPU its arrays are not copied if they can be used, so they must not change."""
        rows = np.arange(len(split.labels), dtype=np.int32)
        return cls(_tensor(split.inputs), _tensor(split.labels), rows)

    def at(self, rows: np.ndarray) -> "Subset":
        """These rows of it."""
        return self._replace(rows=np.asarray(rows, np.int32))


def _tensor(array: np.ndarray) -> tf.Tensor:
    """A tensor in `array`'s memory, as of a mapped file; a copy on a GPU, or if TensorFlow cannot use it."""
    usable = array.flags.writeable and array.flags.c_contiguous and array.ctypes.data % _ALIGNED == 0
    if DEVICE == "GPU" or not usable:
        return tf.constant(array)
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())


class Trainer:
    """A network, traced once, that can then be trained from any checkpoint of its training.

    Args:
        network: a compiled Keras model from inputs to outputs, such as `build` returns.
        data: what to train on; an epoch's last batch is smaller where `batch_size` does not divide its rows.
        validation: what `EVALUATED` is computed on after each epoch.
        early_stopping: `monitor` and `patience`, as of `stops`; None trains all epochs.
    """

    def __init__(
        self,
        network: keras.Model,
        data: Subset,
        *,
        batch_size: int,
        seed: int,
        validation: Subset | None = None,
        early_stopping: Mapping[str, Any] | None = None,
    ):
        self.data, self.validation, self.network = data, validation, network
        self._seed, self._early_stopping = seed, early_stopping
        self._optimizer = network.optimizer
        fuse(self._optimizer)
        self._epoch_function = _epoch_function(network, batch_size)
        self._traced: Any = None
        self._evaluate = evaluator(network)
        self._random_states = [variable for variable in network.variables if variable.name == _RANDOM_STATE]
        self._fresh = True

    def run(
        self, epochs: int, checkpoint: Checkpoint | None = None, seconds_at_most: float = math.inf
    ) -> Checkpoint:
        """Return the checkpoint at epoch `epochs`, or where it stopped before that.

        Args:
            checkpoint: where to go on from; None, the start, is only for a network that was not trained yet.
            seconds_at_most: after these, it ends with the epoch that is being trained.

        Raises:
            UserError: the network has a state that is in no checkpoint.
        """
        start = time.monotonic()
        if checkpoint:
            restore(self.network, checkpoint)
        elif self._fresh:
            checkpoint = self._checkpoint(0, self._no_history(), [], False)
        else:
            raise ValueError("the network was trained already: give a checkpoint, or build it again")
        self._fresh = False
        history = {name: list(values) for name, values in checkpoint.history.items()}
        seconds, stopped, epoch = list(checkpoint.seconds), checkpoint.stopped, checkpoint.epoch
        while epoch < epochs and not stopped:
            seconds.append(self.train_epoch(epoch, history))
            if self.validation:
                for name, value in zip(EVALUATED, self._evaluate(self.validation)[0], strict=True):
                    history[name].append(value)
            epoch += 1
            stopped = not all(np.isfinite(values[-1]) for values in history.values())
            stopped = stopped or bool(self._early_stopping and stops(**self._early_stopping, history=history))
            if time.monotonic() - start >= seconds_at_most:
                break
        return self._checkpoint(epoch, history, seconds, stopped)

    def train_epoch(self, epoch: int, history: dict[str, list[float]]) -> float:
        """Train epoch `epoch` (from 0) from where the network is; append to `history`, return its seconds."""
        for i, random_state in enumerate(self._random_states):
            seed = np.random.SeedSequence([self._seed, epoch, _LAYERS, i]).generate_state(1)[0]
            random_state.assign([seed, 0])
        order = np.random.default_rng([self._seed, epoch, _SHUFFLE]).permutation(len(self.data.rows))
        rows = self.data.rows[order]
        inputs = self.data.inputs, self.data.labels, tf.constant(rows)
        if self._traced is None:  # which is no training time
            self._traced = self._epoch_function.get_concrete_function(*inputs)
            _check_state(self._traced, self.network)
        start = time.perf_counter()
        outputs, loss = self._traced(*inputs)
        history["loss"].append(float(loss) / len(rows))
        seconds = time.perf_counter() - start
        history[NAME].append(
            float(np.mean(score(self.data.labels.numpy()[rows], outputs.numpy()), dtype=float))
        )
        return seconds

    def _no_history(self) -> dict[str, list[float]]:
        return {name: [] for name in (NAME, "loss", *(EVALUATED if self.validation else ()))}

    def _checkpoint(
        self, epoch: int, history: dict[str, list[float]], seconds: list[float], stopped: bool
    ) -> Checkpoint:
        weights, optimizer = (
            [variable.numpy() for variable in variables]
            for variables in (_weights(self.network), self._optimizer.variables)
        )
        parameters = sum(array.size for array in weights)
        return Checkpoint(epoch, weights, optimizer, history, seconds, parameters, stopped)


def build(
    hyperparameters: Mapping[str, object], input_shape: tuple[int, ...], outputs: int, seed: int
) -> keras.Model:
    """Return the compiled Keras model of model.py, built for `input_shape` and initialised from `seed`.

    Raises:
        UserError: it has what only `model.fit` would heed.
    """
    keras.backend.clear_session(free_memory=False)
    keras.utils.set_random_seed(seed)
    # Keras draws the seeds of layers from Python's one generator, which other threads (Dask's) draw from too
    with mock.patch.object(seed_generator, "python_random", random.Random(seed)):  # noqa: S311
        network = model.build(tuple(input_shape), outputs, Hyperparameters.model_validate(hyperparameters))
        if not network.built:
            network.build((None, *input_shape))
    optimizer = network.optimizer
    if type(network).train_step is not keras.Model.train_step or (
        optimizer.use_ema and not optimizer.ema_overwrite_frequency
    ):
        what = "a train_step of its own, or an optimizer that has use_ema without ema_overwrite_frequency"
        raise UserError(f"stages/training/model.py: the network has {what}; only `model.fit` would heed that")
    optimizer.build(network.trainable_variables)
    for each in (optimizer, getattr(optimizer, "inner_optimizer", optimizer)):
        # There is one replica. TensorFlow would keep each network's graph for ever, as this sum's gradient
        each._all_reduce_sum_gradients = lambda gradients_and_variables: gradients_and_variables
    return network


def restore(network: keras.Model, checkpoint: Checkpoint) -> None:
    """Give `network` and its optimizer the values of `checkpoint`."""
    variables, arrays = (
        _weights(network) + network.optimizer.variables,
        checkpoint.weights + checkpoint.optimizer,
    )
    for variable, array in zip(variables, arrays, strict=True):
        # A file has no name for types such as bfloat16, whose bytes NumPy reads as a type of its own, void
        variable.assign(array.view(variable.value.dtype.as_numpy_dtype) if array.dtype.kind == "V" else array)


def evaluator(network: keras.Model) -> Callable[[Subset], tuple[list[float], np.ndarray]]:
    """Return a function of a `Subset` that evaluates `network` on it, dropout off.

    It returns the score, the loss and their deviations, as in `EVALUATED`, and the outputs (m, outputs)
    float32. The loss is the one that the network was compiled with.
    """
    compiled = keras.losses.get(network.loss)
    per_example = getattr(compiled, "call", compiled)

    @tf.function(autograph=False)
    def evaluate(inputs, labels, rows):
        inputs, labels = tf.gather(inputs, rows), tf.gather(labels, rows)
        outputs = network(inputs, training=False)
        loss = network.compute_loss(inputs, labels, outputs, training=False)
        return loss, per_example(labels, outputs), tf.cast(outputs, tf.float32)

    def on(subset: Subset) -> tuple[list[float], np.ndarray]:
        size = subset.inputs.dtype.size * math.prod(subset.inputs.shape[1:])
        batch = max(1, min(EVALUATION_BATCH, EVALUATION_BYTES // size))
        batches = np.split(subset.rows, range(batch, len(subset.rows), batch))
        results = [evaluate(subset.inputs, subset.labels, tf.constant(rows)) for rows in batches]
        mean_losses, losses, outputs = (
            np.concatenate([np.atleast_1d(value.numpy()) for value in values])
            for values in zip(*results, strict=True)
        )
        losses = losses.astype(np.float64)
        scores = np.asarray(score(subset.labels.numpy()[subset.rows], outputs), np.float64)
        loss = np.average(mean_losses.astype(np.float64), weights=[len(rows) for rows in batches])
        return [float(value) for value in (scores.mean(), scores.std(), loss, losses.std())], outputs

    return on


def predictor(network: keras.Model) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function of inputs (n, ...) that returns outputs (n, outputs) of `network`, dropout off."""
    call = tf.function(lambda batch: network(batch, training=False), autograph=False)

    def predict(inputs: np.ndarray) -> np.ndarray:
        batches = np.split(inputs, range(EVALUATION_BATCH, len(inputs), EVALUATION_BATCH))
        return np.concatenate([call(tf.constant(batch)).numpy() for batch in batches])

    return predict


def _epoch_function(network: keras.Model, batch_size: int):
    """Return a TensorFlow function (inputs, labels, order) -> (outputs float32, sum of losses float64).

    The outputs, (examples, outputs), are those of each step, before its update, in the order of `order`.
    """
    variables, optimizer = network.trainable_variables, network.optimizer

    def step(inputs, labels):
        with tf.GradientTape() as tape:
            outputs = network(inputs, training=True)
            loss = network.compute_loss(inputs, labels, outputs, training=True)
            scaled = optimizer.scale_loss(loss)
        optimizer.apply(tape.gradient(scaled, [variable.value for variable in variables]), variables)
        size = tf.cast(tf.shape(labels)[0], tf.float64)
        return tf.cast(outputs, tf.float32), tf.cast(loss, tf.float64) * size

    @tf.function(autograph=False)
    def run_epoch(inputs, labels, order):
        full, rest = divmod(order.shape[0], batch_size)

        def gathered(start, size):  # whose size TensorFlow knows when it traces, unlike that of order[a:b]
            batch = tf.slice(order, [start], [size])
            return tf.gather(inputs, batch), tf.gather(labels, batch)

        def body(i, outputs, loss_sum):
            of_batch, loss = step(*gathered(i * batch_size, batch_size))
            return i + 1, outputs.write(i, of_batch), loss_sum + loss

        outputs, loss_sum = tf.TensorArray(tf.float32, full), tf.constant(0.0, tf.float64)
        if full:
            _, outputs, loss_sum = tf.while_loop(
                lambda i, *_: i < full, body, (0, outputs, loss_sum), parallel_iterations=1
            )
        of_batches = [outputs.concat()] if full else []
        if rest:
            of_batch, loss = step(*gathered(full * batch_size, rest))
            of_batches, loss_sum = [*of_batches, of_batch], loss_sum + loss
        return tf.concat(of_batches, 0), loss_sum

    return run_epoch


def _check_state(traced: tf.types.experimental.ConcreteFunction, network: keras.Model) -> None:
    """Raise UserError if an epoch depends on a state that no checkpoint has, so would not survive a pause."""
    own = {variable.value.ref() for variable in network.variables + network.optimizer.variables}
    foreign = [variable.name for variable in traced.variables if variable.ref() not in own]
    graph = traced.graph.as_graph_def()
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    foreign += [node.op for node in nodes if _DRAWS.fullmatch(node.op)]
    if foreign:
        raise UserError(
            f"stages/training/model.py: the network has a state of its own ({foreign[0]}); make it a "
            "variable of a layer, and give random numbers a keras.random.SeedGenerator of the layer"
        )


def _weights(network: keras.Model) -> list:
    return [variable for variable in network.variables if variable.name != _RANDOM_STATE]
