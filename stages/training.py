"""`train`: pure, deterministic, fast.

What a training comes to depends on its arguments alone, not on the process, the time or what ran before. Shuffling and dropout
are drawn from the seed and the number of the epoch, so a training that stops after epoch 4 and goes on from its state to epoch
10 is the training to epoch 10, to the bit.

An epoch is one TensorFlow function: images stay in memory and are gathered by a shuffled index, gradients come from
`GradientTape` over the Keras model, and plain Adam is applied by TensorFlow's fused kernel.
"""

import json
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stages import model
from stages.backend import keras, tf
from stages.files import replacing
from stages.splits import Split

EVALUATION_BATCH = 1000  # images; another number gives other last bits
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
class State:
    """A training that has reached `epoch`: all that its next epoch depends on, in plain NumPy and Python.

    Attributes:
        epoch: epochs trained.
        weights: the model's variables, random states left out, in the model's order.
        optimizer: the optimizer's variables (iteration, learning rate, slots), in its order.
        history: per epoch `accuracy` and `loss` (running means over the epoch, dropout on, as Keras reports them) and, with
            validation data, `val_accuracy` and `val_loss`.
        seconds: per epoch, the time the training step took; the only part that the machine decides.
        stopped: whether early stopping ended it.
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


def train(
    hyperparameters: Mapping[str, object],
    data: Split,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    validation: Split | None = None,
    early_stopping: EarlyStopping | None = None,
    state: State | None = None,
) -> State:
    """Train the network of stages/model.py on `data` to epoch `epochs`, from `state` or from the start.

    Args:
        hyperparameters: keywords of `model.build`.
        data: images and labels; the last batch of an epoch is smaller where `batch_size` does not divide their number.
        validation: what `val_accuracy` and `val_loss` are computed on after each epoch.
        early_stopping: None trains all epochs.
        state: of the same training at an earlier epoch.
    """
    network = build(hyperparameters, data, seed)
    optimizer = _fused(network)
    if state is None:
        history = {name: [] for name in ("accuracy", "loss", *(("val_accuracy", "val_loss") if validation else ()))}
        state = State(0, [], [], history, [])
    else:
        _assign(_weights(network), state.weights)
        _assign(optimizer.variables, state.optimizer)
    history = {name: list(values) for name, values in state.history.items()}
    seconds, stopped = list(state.seconds), state.stopped

    run_epoch = _epoch_function(network, optimizer, batch_size)
    evaluate = evaluator(network)
    images, labels = tf.constant(data.images), tf.constant(data.labels)
    random_states = [variable for variable in network.variables if variable.name == "seed_generator_state"]
    epoch = state.epoch
    while epoch < epochs and not stopped:
        for i, random_state in enumerate(random_states):
            random_state.assign([np.random.SeedSequence([seed, epoch, _LAYERS, i]).generate_state(1)[0], 0])
        order = np.random.default_rng([seed, epoch, _SHUFFLE]).permutation(len(data.labels)).astype(np.int32)
        if epoch == state.epoch:
            run_epoch.get_concrete_function(images, labels, order)  # traces, which is no training time
        start = time.perf_counter()
        loss, correct = run_epoch(images, labels, order)
        history["accuracy"].append(int(correct) / len(order))
        history["loss"].append(float(loss) / len(order))
        seconds.append(time.perf_counter() - start)
        if validation:
            accuracy, loss = evaluate(validation)
            history["val_accuracy"].append(accuracy)
            history["val_loss"].append(loss)
        epoch += 1
        stopped = early_stopping is not None and early_stopping.stops(history)
    return State(epoch, _arrays(_weights(network)), _arrays(optimizer.variables), history, seconds, stopped)


def build(hyperparameters: Mapping[str, object], data: Split, seed: int, state: State | None = None) -> keras.Model:
    """Return the compiled Keras model for images like `data`, initialised from `seed` or with the variables of `state`."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    network = model.build(data.images.shape[1:], data.classes, **hyperparameters)
    network.optimizer.build(network.trainable_variables)
    if state is not None:
        _assign(_weights(network), state.weights)
        _assign(network.optimizer.variables, state.optimizer)
    return network


def evaluator(network: keras.Model):
    """Return a function of a `Split` that returns (accuracy, mean loss) of `network` on it, dropout off."""

    @tf.function
    def evaluate(images, labels):
        probabilities = network(images, training=False)
        loss = network.compute_loss(images, labels, probabilities, training=False)
        return _correct(probabilities, labels), loss

    def on(split: Split) -> tuple[float, float]:
        correct, loss, n = 0, 0.0, len(split.labels)
        for start in range(0, n, EVALUATION_BATCH):
            images, labels = split.images[start : start + EVALUATION_BATCH], split.labels[start : start + EVALUATION_BATCH]
            batch_correct, batch_loss = evaluate(tf.constant(images), tf.constant(labels))
            correct += int(batch_correct)
            loss += float(batch_loss) * len(labels)
        return correct / n, loss / n

    return on


def predict(network: keras.Model, images: np.ndarray) -> np.ndarray:
    """Return the class probabilities (n, classes) float32 of `images`, dropout off."""
    call = tf.function(lambda batch: network(batch, training=False))
    batches = [images[start : start + EVALUATION_BATCH] for start in range(0, len(images), EVALUATION_BATCH)]
    return np.concatenate([call(tf.constant(batch)).numpy() for batch in batches])


def save(network: keras.Model, path: Path) -> None:
    """Write `network` as a `.keras` file whose bytes depend on the model alone.

    It is Keras's own file without the time it was saved at, and with memory addresses (`shared_object_id`) as plain numbers.
    """
    numbers = {}

    def reproducible(entry: dict) -> dict:
        entry.pop("date_saved", None)
        if "shared_object_id" in entry:
            entry["shared_object_id"] = numbers.setdefault(entry["shared_object_id"], len(numbers))
        return entry

    with replacing(path) as temporary:
        keras.saving.save_model(network, temporary)
        with zipfile.ZipFile(temporary) as archive:
            contents = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(temporary, "w") as archive:
            for name, content in contents.items():
                if name.endswith(".json"):
                    content = json.dumps(json.loads(content, object_hook=reproducible)).encode()
                archive.writestr(zipfile.ZipInfo(name), content)


class _FusedAdam(keras.optimizers.Adam):
    """Keras's Adam with one kernel a variable in place of a dozen; the same slots, so that its state is Adam's."""

    def update_step(self, gradient, variable, learning_rate):
        i = self._get_variable_index(variable)
        step = tf.cast(self.iterations.value + 1, variable.dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.value.handle if isinstance(variable, keras.Variable) else variable.handle,
            m=self._momentums[i].value.handle,
            v=self._velocities[i].value.handle,
            beta1_power=tf.pow(tf.cast(self.beta_1, variable.dtype), step),
            beta2_power=tf.pow(tf.cast(self.beta_2, variable.dtype), step),
            lr=learning_rate,
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )


def _fused(network: keras.Model) -> keras.optimizers.Optimizer:
    """Return the optimizer to train `network` with: its own or, in place of plain Adam, the same with a fused kernel."""
    optimizer = network.optimizer
    if type(optimizer) is not keras.optimizers.Adam or optimizer.amsgrad:
        return optimizer
    fused = _FusedAdam.from_config(optimizer.get_config())
    fused.build(network.trainable_variables)
    return fused


def _epoch_function(network: keras.Model, optimizer: keras.optimizers.Optimizer, batch_size: int):
    """Return a TensorFlow function (images, labels, order) -> (sum of losses float64, number of correct answers)."""
    variables = network.trainable_variables

    def step(images, labels, loss_sum, correct):
        with tf.GradientTape() as tape:
            probabilities = network(images, training=True)
            loss = network.compute_loss(images, labels, probabilities, training=True)
        optimizer.apply(tape.gradient(loss, [variable.value for variable in variables]), variables)
        size = tf.cast(tf.shape(labels)[0], tf.float64)
        return loss_sum + tf.cast(loss, tf.float64) * size, correct + _correct(probabilities, labels)

    @tf.function
    def run_epoch(images, labels, order):
        full = len(order) // batch_size
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
        rest = len(order) % batch_size
        return step(*gathered(full * batch_size, rest), *sums) if rest else sums

    return run_epoch


def _correct(probabilities, labels):
    return tf.reduce_sum(tf.cast(tf.argmax(probabilities, -1, output_type=labels.dtype) == labels, tf.int32))


def _weights(network: keras.Model) -> list:
    return [variable for variable in network.variables if variable.name != "seed_generator_state"]


def _arrays(variables: list) -> list[np.ndarray]:
    return [variable.numpy() for variable in variables]


def _assign(variables: list, arrays: list[np.ndarray]) -> None:
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
