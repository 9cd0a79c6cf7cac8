"""One training: pure, deterministic, fast.

The result of a training depends on its arguments alone, not on the process, the time or what ran before.
Shuffling and dropout are drawn from the seed and the number of the epoch. So a training that stops after
epoch 4 and continues from its checkpoint to epoch 10 has the same bits as one that goes straight to epoch 10.

An epoch is one TensorFlow function: inputs stay in memory and are gathered by a shuffled index, gradients
come from `GradientTape` over the Keras model, and plain Adam is applied by TensorFlow's fused kernel.
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

_SHUFFLE, _LAYERS = 0, 1  # purposes of random streams
# TensorFlow operations with state outside any checkpoint: random numbers, the time, Python functions
_STATEFUL = re.compile(
    r"(Random|TruncatedNormal|ParameterizedTruncatedNormal|Multinomial|Stateful(?!Partitioned))\w*"
    r"|\w+CandidateSampler|SampleDistortedBoundingBox\w*|Timestamp|(Eager)?PyFunc\w*"
)


def stops(monitor: str, patience: int, history: Mapping[str, list[float]]) -> bool:
    """Whether training ends with the last epoch of `history`, as by the defaults of Keras's `EarlyStopping`.

    It looks at the whole history, so a training that is interrupted stops at the same epoch.
    """
    values = history[monitor]
    best = np.argmin(values) if monitor in ("loss", LOSS) else np.argmax(values)
    return len(values) - 1 - int(best) >= patience


class Trainer:
    """Trains one network, which is traced once, from any of its checkpoints.

    Args:
        network: a compiled Keras model from inputs to outputs, as `build` returns it.
        data: to train on; if `batch_size` does not divide its rows, the last batch of an epoch is smaller.
        validation: the data that `EVALUATED` is computed on after each epoch.
        early_stopping: `monitor` and `patience` of `stops`; None: all epochs are trained.

    Attributes:
        evaluate: `network.evaluator` of the network.
        seeds: of the trainings that used it; the caller keeps them.
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
        """Train from `start` to epoch `epochs`; return the checkpoint there, or where training stopped early.

        Args:
            start: a checkpoint of the same training, or `network.checkpoint` of a newly built network.
            seed: of shuffling and dropout.
            seconds_at_most: once these have passed, training pauses at the end of the epoch.

        Raises:
            UserError: the network has state outside its variables.
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
        """Train epoch number `epoch`, from 0; append its score and loss to `history`, return its seconds."""
        for i, random_state in enumerate(self._random_states):
            state = np.random.SeedSequence([seed, epoch, _LAYERS, i]).generate_state(1)[0]
            random_state.assign([state, 0])
        order = np.random.default_rng([seed, epoch, _SHUFFLE]).permutation(len(self.data.rows))
        rows = self.data.rows[order]
        arguments = self.data.tensors, tf.constant(rows)
        if self._traced is None:  # before the clock starts: tracing is not training time
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

    `outputs`, (examples, ...), are in the order of `order`, each computed before the update of its step.
    """
    variables, optimizer, losses = network.trainable_variables, network.optimizer, loss_of_each(network)

    def step(batch):
        inputs, labels, counts = batch["inputs"], batch["labels"], batch.get("weights")
        with tf.GradientTape() as tape:
            outputs = network(inputs, training=True)
            if counts is not None:  # for all losses of an example, which may have one for each word
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

        def gathered(start, size):  # of static shape, which order[a:b] does not have
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
    """Raise UserError if an epoch depends on state that no checkpoint holds: a pause would change it."""
    own = {variable.value.ref() for variable in network.variables + network.optimizer.variables}
    foreign = [variable.name for variable in traced.variables if variable.ref() not in own]
    graph = traced.graph.as_graph_def()
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    foreign += [node.op for node in nodes if _STATEFUL.fullmatch(node.op)]
    if foreign:
        raise UserError(
            f"stages/training/model.py: the network has a state of its own ({foreign[0]}); make it a "
            "variable of a layer, and give random numbers a keras.random.SeedGenerator of the layer"
        )
