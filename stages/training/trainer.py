"""One training: pure, deterministic, fast.

The result of a training depends only on its arguments, not on the process, the time or what ran before.
Shuffling and dropout are drawn from the seed and the number of the epoch. So a training that stops after
epoch 4 and continues from its checkpoint to epoch 10 gives the same bits as a training to epoch 10.

An epoch is one TensorFlow function: inputs stay in memory and are gathered by a shuffled index, gradients
come from `GradientTape` over the Keras model, and plain Adam uses TensorFlow's fused kernel.
"""

import math
import re
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from stages.base.console import UserError
from stages.training import evaluation
from stages.training.adam import fuse
from stages.training.backend import keras, tf
from stages.training.checkpoint import Checkpoint
from stages.training.evaluation import EVALUATED, LOSS
from stages.training.network import RANDOM_STATE, Subset, checkpoint, evaluator, gather, loss_of_each, restore
from stages.training.score import NAME

_SHUFFLE, _LAYERS = 0, 1  # the purposes of random streams
# TensorFlow operations whose state no checkpoint has: random numbers, the time, calls of Python
_STATEFUL_OPS = re.compile(
    r"(Random|TruncatedNormal|ParameterizedTruncatedNormal|Multinomial|Stateful(?!Partitioned))\w*"
    r"|\w+CandidateSampler|SampleDistortedBoundingBox\w*|Timestamp|(Eager)?PyFunc\w*"
)


def stops(monitor: str, patience: int, history: Mapping[str, list[float]]) -> bool:
    """Whether training stops after the last epoch of `history`, as with Keras's `EarlyStopping` by default.

    This depends on the whole history, so that a pause does not reset the patience.
    """
    values = history[monitor]
    best = np.argmin(values) if monitor in ("loss", LOSS) else np.argmax(values)
    return len(values) - 1 - int(best) >= patience


class Trainer:
    """Trains a network from any of its checkpoints; the network is traced only once.

    Args:
        network: a compiled Keras model from inputs to outputs, such as `build` returns.
        data: the rows to train on. If `batch_size` does not divide their number, an epoch's last batch is
            smaller.
        validation: the rows on which `EVALUATED` is computed after each epoch.
        early_stopping: `monitor` and `patience`, as for `stops`; None: no early stopping.

    Attributes:
        evaluate: `network.evaluator` of the network.
        seeds: a set in which the caller may record the seeds of the trainings that use this trainer.
    """

    def __init__(
        self,
        network: keras.Model,
        data: Subset,
        *,
        batch_size: int,
        validation: Subset | None = None,
        early_stopping: Mapping[str, Any] | None = None,
    ):
        self.data, self.validation, self.network = data, validation, network
        self.seeds: set[int] = set()
        self._early_stopping = early_stopping
        fuse(network.optimizer)
        self._epoch_function = _epoch_function(network, batch_size)
        self._traced: Any = None
        self.evaluate = evaluator(network)
        self._random_states = [variable for variable in network.variables if variable.name == RANDOM_STATE]

    def run(self, start: Checkpoint, epochs: int, seed: int, seconds_at_most: float = math.inf) -> Checkpoint:
        """Train from `start` to epoch `epochs`; return the checkpoint there, or where the training stopped.

        Args:
            start: a checkpoint of the same training, or `network.checkpoint` of a newly built network.
            epochs: the epoch to train to.
            seed: of shuffling and dropout.
            seconds_at_most: the time after which it returns at the end of the current epoch.

        Raises:
            UserError: the network has a state that checkpoints do not contain.
        """
        began = time.monotonic()
        restore(self.network, start)
        history = {name: list(values) for name, values in start.history.items()}
        seconds, stopped, epoch = list(start.seconds), start.stopped, start.epoch
        while epoch < epochs and not stopped:
            seconds.append(self.train_epoch(seed, epoch, history))
            if self.validation:
                loss, loss_error, outputs = self.evaluate(self.validation)
                values = evaluation.values(self.validation.labels, outputs, self.validation.groups)
                scores = evaluation.mean_and_error(values)
                for name, value in zip(EVALUATED, (*scores, loss, loss_error), strict=True):
                    history.setdefault(name, []).append(value)
            epoch += 1
            stopped = not all(np.isfinite(values[-1]) for values in history.values())
            stopped = stopped or bool(self._early_stopping and stops(**self._early_stopping, history=history))
            if time.monotonic() - began >= seconds_at_most:
                break
        return checkpoint(self.network, epoch, history, seconds, stopped)

    def train_epoch(self, seed: int, epoch: int, history: dict[str, list[float]]) -> float:
        """Train epoch `epoch` (from 0), append to `history`, and return the seconds that it took."""
        for i, random_state in enumerate(self._random_states):
            state = np.random.SeedSequence([seed, epoch, _LAYERS, i]).generate_state(1)[0]
            random_state.assign([state, 0])
        order = np.random.default_rng([seed, epoch, _SHUFFLE]).permutation(len(self.data.rows))
        rows = self.data.rows[order]
        arguments = self.data.tensors, tf.constant(rows)
        if self._traced is None:  # tracing does not count as training time
            self._traced = self._epoch_function.get_concrete_function(*arguments)
            _check_state(self._traced, self.network)
        start = time.perf_counter()
        outputs, loss = self._traced(*arguments)
        loss = float(loss) / len(rows)
        seconds = time.perf_counter() - start
        score = evaluation.mean(self.data.split.labels[rows], outputs.numpy())
        for name, value in ((NAME, score), ("loss", loss)):
            history.setdefault(name, []).append(value)
        return seconds


def _epoch_function(network: keras.Model, batch_size: int):
    """Return a TensorFlow function (tensors, order) -> (outputs float32, sum of losses float64).

    The outputs, (examples, ...), are in the order of `order`; each step's are from before its update.
    """
    variables, optimizer, losses = network.trainable_variables, network.optimizer, loss_of_each(network)

    def step(batch):
        inputs, labels, counts = batch["inputs"], batch["labels"], batch.get("weights")
        with tf.GradientTape() as tape:
            outputs = network(inputs, training=True)
            if counts is not None:  # repeated for each loss of an example, such as each word's
                rank = losses(labels, outputs).shape.rank
                counts = tf.reshape(counts, (-1, *[1] * (rank - 1)))
            loss = network.compute_loss(inputs, labels, outputs, counts, training=True)
            scaled = optimizer.scale_loss(loss)
        optimizer.apply(tape.gradient(scaled, [variable.value for variable in variables]), variables)
        size = tf.cast(tf.shape(labels)[0], tf.float64)
        return tf.cast(outputs, tf.float32), tf.cast(loss, tf.float64) * size

    @tf.function(autograph=False)
    def run_epoch(tensors, order):
        full, rest = divmod(order.shape[0], batch_size)

        def gathered(start, size):  # unlike order[a:b], its size is known when tracing
            return gather(tensors, tf.slice(order, [start], [size]))

        def body(i, outputs, loss_sum):
            of_batch, loss = step(gathered(i * batch_size, batch_size))
            return i + 1, outputs.write(i, of_batch), loss_sum + loss

        outputs, loss_sum = tf.TensorArray(tf.float32, full), tf.constant(0.0, tf.float64)
        if full:
            _, outputs, loss_sum = tf.while_loop(
                lambda i, *_: i < full, body, (0, outputs, loss_sum), parallel_iterations=1
            )
        of_batches = [outputs.concat()] if full else []
        if rest:
            of_batch, loss = step(gathered(full * batch_size, rest))
            of_batches, loss_sum = [*of_batches, of_batch], loss_sum + loss
        return tf.concat(of_batches, 0), loss_sum

    return run_epoch


def _check_state(traced: tf.types.experimental.ConcreteFunction, network: keras.Model) -> None:
    """Raise UserError if an epoch depends on a state that no checkpoint has and a pause would lose."""
    own = {variable.value.ref() for variable in network.variables + network.optimizer.variables}
    foreign = [variable.name for variable in traced.variables if variable.ref() not in own]
    graph = traced.graph.as_graph_def()
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    foreign += [node.op for node in nodes if _STATEFUL_OPS.fullmatch(node.op)]
    if foreign:
        raise UserError(
            f"stages/training/model.py: the network has a state of its own ({foreign[0]}); make it a "
            "variable of a layer, and give random numbers a keras.random.SeedGenerator of the layer"
        )
