"""The network of model.py: built, checked against the data, restored, evaluated."""

import inspect
import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

from stages.base.console import UserError, one_line
from stages.base.splits import Split
from stages.training import evaluation, model
from stages.training.backend import DEVICE, keras, seed_generator, tf
from stages.training.checkpoint import Checkpoint

EVALUATION_BATCH, EVALUATION_BYTES = 1000, 2**24  # at most; the last bits depend on the batch size
RANDOM_STATE = "seed_generator_state"  # the name of the variables of Keras's random generators
_CHECKED = 256  # examples that a network is checked on
_ALIGNED = 64  # bytes; TensorFlow aborts the process if a tensor's address is not a multiple of it
_FILE = "stages/training/model.py"
_POLICY = keras.config.dtype_policy()  # model.py may have set it; Keras's `clear_session` resets it


class Subset(NamedTuple):
    """Some rows of a split.

    `tensors` has the whole split's `inputs` (n, ...), one tensor or several by name, `labels` (n, ...) and,
    if it has them, `weights` (n,). `rows`, (m,) int32, are the indices of the subset.
    """

    split: Split
    tensors: dict[str, Any]
    rows: np.ndarray

    @classmethod
    def of(cls, split: Split) -> "Subset":
        """All rows of `split`. On a CPU, its arrays are shared where possible, so they must not change."""
        named = {"inputs": split.inputs, "labels": split.labels}
        named |= {} if split.weights is None else {"weights": split.weights.astype(np.float32)}
        tensors = tf.nest.map_structure(_tensor, named)
        return cls(split, tensors, np.arange(len(split.labels), dtype=np.int32))

    def at(self, rows: np.ndarray) -> "Subset":
        """The given rows of the same split."""
        return self._replace(rows=np.asarray(rows, np.int32))

    @property
    def labels(self) -> np.ndarray:
        """The labels of its rows, (m, ...)."""
        return self.split.labels[self.rows]

    @property
    def groups(self) -> np.ndarray | None:
        """The groups of its rows, (m,); None if there are none or only one, as a fold may have."""
        groups = None if self.split.groups is None else self.split.groups[self.rows]
        return None if groups is None or (groups == groups[0]).all() else groups


def gather(tensors: dict[str, Any], rows: tf.Tensor) -> dict[str, Any]:
    """Return the given rows of each tensor."""
    return tf.nest.map_structure(lambda tensor: tf.gather(tensor, rows), tensors)


def _tensor(array: np.ndarray) -> tf.Tensor:
    """Return a tensor that shares `array`'s memory; a copy on a GPU or if TensorFlow cannot use that."""
    usable = array.flags.writeable and array.flags.c_contiguous and array.ctypes.data % _ALIGNED == 0
    if DEVICE == "GPU" or not usable:
        return tf.constant(array)
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())


class _Hyperparameters:
    """Hyperparameters as attributes; it records which of them are read."""

    def __init__(self, values: Mapping[str, object]):
        vars(self).update(_values=values, _read=set())

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name not in self._values:
            names = ", ".join(self._values)
            raise UserError(
                f"{_FILE} asks for the hyperparameter {name}, but there are {names}; add it in params.yaml "
                "or, if it has a `when` there, read it only for those values"
            )
        self._read.add(name)
        return self._values[name]


def takes_epochs() -> bool:
    """Whether `build` of model.py has a parameter `epochs`."""
    return "epochs" in inspect.signature(model.build).parameters


def build(
    hyperparameters: Mapping[str, object],
    data: Split,
    seed: int,
    *,
    steps_per_epoch: int = 1,
    epochs: int = 1,
) -> keras.Model:
    """Return the compiled Keras model of model.py, built for `data` and initialised from `seed`.

    Raises:
        UserError: `build` reads other hyperparameters than there are, or returns no compiled Keras model, or
            one with a `train_step` of its own.
    """
    values = _Hyperparameters(hyperparameters)
    optional = {"steps_per_epoch": steps_per_epoch, "epochs": epochs}
    taken = {name: optional[name] for name in optional if name in inspect.signature(model.build).parameters}
    keras.backend.clear_session(free_memory=False)
    keras.config.set_dtype_policy(_POLICY)
    keras.utils.set_random_seed(seed)
    # Keras draws layers' seeds from Python's global generator, which other threads (Dask's) use too
    with mock.patch.object(seed_generator, "python_random", random.Random(seed)):  # noqa: S311
        network = model.build(data.shapes, data.outputs, values, **taken)
        compiled = all(getattr(network, name, None) for name in ("optimizer", "loss"))
        if not isinstance(network, keras.Model) or not compiled:
            what = type(network).__name__
            raise UserError(
                f"{_FILE}: build returns a {what}; it should be a Keras model, compiled with a loss"
            )
        if not network.built:
            network(tf.nest.map_structure(lambda array: tf.constant(array[:1]), data.inputs), training=False)
    if unread := hyperparameters.keys() - values._read - {"batch_size"}:  # `Trainer` reads it
        raise UserError(
            f"{_FILE} never reads the hyperparameter {min(unread)}; remove it from baseline and tune.space "
            "in params.yaml, or state there with `when` for which values of another one it is active"
        )
    if type(network).train_step is not keras.Model.train_step:
        raise UserError(f"{_FILE}: the network has its own train_step, which only `model.fit` would call")
    optimizer = network.optimizer
    optimizer.build(network.trainable_variables)
    for each in (optimizer, getattr(optimizer, "inner_optimizer", optimizer)):
        # This sum over one replica does nothing, but TensorFlow keeps each network's graph for its gradient
        each._all_reduce_sum_gradients = lambda gradients_and_variables: gradients_and_variables
    return network


def check(network: keras.Model, subset: Subset) -> None:
    """Raise UserError unless network, loss and score can be computed on the data and fit each other.

    All are tried on some examples; the score, if it cannot be computed on these, on the labels of all.
    """
    rows = _sample(subset)
    batch, labels, size = gather(subset.tensors, tf.constant(rows)), subset.split.labels[rows], len(rows)
    outputs = network(batch["inputs"], training=False)
    if not tf.is_tensor(outputs) or outputs.shape.rank == 0 or outputs.shape[0] != size:
        returned = outputs.shape if tf.is_tensor(outputs) else type(outputs).__name__
        wanted = f"it should be one array of shape ({size}, ...)"
        raise UserError(f"{_FILE}: for {size} examples the network returns {returned}; {wanted}")
    if mistake := _silent_mistake(network, outputs):
        raise UserError(f"{_FILE}: {mistake}")
    both = f"outputs of shape {tuple(outputs.shape)} and labels of shape {labels.shape}"
    try:
        per_example = loss_of_each(network)
        losses = per_example(batch["labels"], outputs)
    except Exception as error:
        reason = one_line(error)
        raise UserError(f"{_FILE}: the loss cannot be computed from {both} ({reason})") from None
    if losses.shape.rank == 0 or losses.shape[0] != size:
        wanted = f"it should be a number for each example, ({size}, ...)"
        raise UserError(f"{_FILE}: the loss of {both} has shape {tuple(losses.shape)}; {wanted}")
    if _broadcasts(network, batch["labels"], outputs, losses):
        raise UserError(f"{_FILE}: the loss would broadcast labels or outputs, which do not fit: {both}")
    others = tf.roll(outputs, 1, 0)  # each is another example's output
    differ = not np.allclose(outputs, others, rtol=0, atol=1e-3)
    if labels.dtype.kind == "f":  # float32 may lose a small difference of large numbers
        others += tf.cast(max(1.0, np.abs(labels).max()), others.dtype)
    if differ and np.allclose(losses, per_example(batch["labels"], others), rtol=0, atol=2e-7):
        raise UserError(f"{_FILE}: the loss is the same whatever the network returns: {both}")
    several = outputs.shape[:-1] == labels.shape and outputs.shape[-1] > 1  # a number for each class
    highest = 0
    if labels.dtype.kind != "f" and (several or subset.split.classes):
        highest = subset.split.labels.max()
    if highest >= (outputs.shape[-1] if several else 2):
        raise UserError(f"{_FILE}: labels are classes up to {highest}, too many for {both}")
    outputs = tf.cast(outputs, tf.float32).numpy()
    if mistake := _crossentropy_mistake(network, subset.split.labels, outputs):
        raise UserError(f"{_FILE}: {mistake}: {both}")
    for tried in (labels, subset.labels):  # a score such as an AUC may need an example of each class
        try:
            evaluation.mean(tried, np.resize(outputs, (len(tried), *outputs.shape[1:])))
            return
        except UserError:
            raise
        except Exception as error:
            reason = one_line(error)
    raise UserError(f"stages/training/score.py: score cannot be computed from {both} ({reason})")


def _silent_mistake(network: keras.Model, outputs: tf.Tensor) -> str | None:
    """Return a mistake that Keras would train with, without an error; None if there is none."""
    last = network.layers[-1] if network.layers else network
    softmax = getattr(last, "activation", None) is keras.activations.softmax
    if (softmax or isinstance(last, keras.layers.Softmax)) and outputs.shape[-1] == 1:
        return "a softmax of one output is 1 for each example; use a sigmoid, or an output for each class"
    reduction = getattr(keras.losses.get(network.loss), "reduction", None)
    if reduction in ("sum", "none"):
        return f"the loss has reduction {reduction}; remove that, for the mean over a batch"
    return None


def _crossentropy_mistake(network: keras.Model, labels: np.ndarray, outputs: np.ndarray) -> str | None:
    """Return what a crossentropy of Keras would take for probabilities, though it is not; None if nothing."""
    loss, compiled = _loss_of_keras(network), keras.losses.get(network.loss)
    if not loss.endswith("crossentropy") or not np.isfinite(outputs).all():
        return None
    if loss.startswith("binary") and (labels.min() < 0 or labels.max() > 1):
        return f"{loss} takes labels from 0 to 1, but there are labels from {labels.min()} to {labels.max()}"
    probabilities = outputs.min() >= 0 and outputs.max() <= 1
    if not loss.startswith("binary"):
        probabilities = probabilities and np.allclose(outputs.sum(-1), 1, atol=0.05)
    ending = "a sigmoid" if loss.startswith("binary") else "a softmax"
    if isinstance(compiled, keras.losses.Loss) and compiled.get_config().get("from_logits"):
        last = network.layers[-1] if network.layers else network
        activated = getattr(last, "activation", None) in (
            keras.activations.sigmoid,
            keras.activations.softmax,
        )
        if probabilities and activated:
            return f"{loss} has from_logits, but the network ends in {ending}; remove one of them"
    elif not probabilities:
        return f"{loss} takes probabilities; let the network end in {ending}, or pass from_logits=True"
    return None


def _loss_of_keras(network: keras.Model) -> str:
    """Return the name of Keras's function that computes the loss, such as "mean_squared_error", or ""."""
    compiled = keras.losses.get(network.loss)
    function = getattr(compiled, "fn", compiled)  # Keras may wrap a function in a class
    module = getattr(function, "__module__", None) or type(function).__module__
    return getattr(function, "__name__", type(function).__name__) if module.startswith("keras.") else ""


def _sample(subset: Subset) -> np.ndarray:
    """Return at most `_CHECKED` rows of `subset`, evenly spaced."""
    return subset.rows[np.linspace(0, len(subset.rows) - 1, min(_CHECKED, len(subset.rows))).astype(int)]


def _broadcasts(network: keras.Model, labels: tf.Tensor, outputs: tf.Tensor, losses: tf.Tensor) -> bool:
    """Whether the loss broadcasts labels or outputs: it uses a number of one for several of the other.

    A loss defined in model.py may add an axis to the labels, such as one for quantiles: that is intended.
    """
    one_more, per_example = labels.shape.rank == outputs.shape.rank - 1, loss_of_each(network)
    own = not _loss_of_keras(network)
    if outputs.shape == labels.shape or (one_more and (own or outputs.shape[-1] == 1)):
        return False
    labels = labels[..., None] if one_more else labels
    try:
        shape = tf.broadcast_static_shape(labels.shape, outputs.shape)
        same = per_example(tf.broadcast_to(labels, shape), tf.broadcast_to(outputs, shape))
        return losses.shape == same.shape and bool(np.allclose(losses.numpy(), same.numpy()))
    except Exception:  # such as a loss that needs one class per example
        return False


def check_repeatable(network: keras.Model, again: keras.Model, subset: Subset) -> None:
    """Raise UserError unless two calls of `build` return equal networks that share no trainable variable."""
    own = {id(variable) for variable in network.trainable_variables}
    shared = any(id(variable) in own for variable in again.trainable_variables)
    arrays, others = checkpoint(network).weights, checkpoint(again).weights
    if shared or not all(map(np.array_equal, arrays, others)) or not same_outputs(network, again, subset):
        raise UserError(
            f"{_FILE}: build does not return a new, equal network when it is called again; create "
            "all layers inside it, and draw random numbers with Keras or np.random, which are seeded first"
        )


def same_outputs(network: keras.Model, other: keras.Model, subset: Subset) -> bool:
    """Whether both networks return the same bits for some examples of `subset`."""
    inputs = gather(subset.tensors, tf.constant(_sample(subset)))["inputs"]
    outputs, others = (each(inputs, training=False) for each in (network, other))
    return np.array_equal(outputs, others, equal_nan=True)


def checkpoint(
    network: keras.Model,
    epoch: int = 0,
    history: Mapping[str, list[float]] | None = None,
    seconds: Sequence[float] = (),
    stopped: bool = False,
) -> Checkpoint:
    """Return the current state of `network` and its optimizer as the checkpoint of a training at `epoch`."""
    arrays, slots = (
        [variable.numpy() for variable in variables]
        for variables in (weights(network), network.optimizer.variables)
    )
    parameters = sum(array.size for array in arrays)
    return Checkpoint(epoch, arrays, slots, dict(history or {}), list(seconds), parameters, stopped)


def restore(network: keras.Model, checkpoint: Checkpoint) -> None:
    """Set the variables of `network` and its optimizer to `checkpoint`, and its random states to 0.

    `Trainer` sets the random states at the start of each epoch. Here they are reset because a network may
    draw random numbers during evaluation too.
    """
    for variable in network.variables:
        if variable.name == RANDOM_STATE:
            variable.assign(np.zeros(variable.shape))
    variables = weights(network) + network.optimizer.variables
    for variable, array in zip(variables, checkpoint.weights + checkpoint.optimizer, strict=True):
        # NumPy's files have no type such as bfloat16: its bytes are read back as void
        variable.assign(array.view(variable.value.dtype.as_numpy_dtype) if array.dtype.kind == "V" else array)


def restore_trained(network: keras.Model, checkpoint: Checkpoint) -> None:
    """Restore `checkpoint`; as at the end of `fit`, use averaged weights if the optimizer has `use_ema`."""
    restore(network, checkpoint)
    network.optimizer.finalize_variable_values(network.trainable_variables)


def weights(network: keras.Model) -> list:
    """Return the variables of `network` without the states of its random generators."""
    return [variable for variable in network.variables if variable.name != RANDOM_STATE]


def evaluator(network: keras.Model) -> Callable[[Subset], tuple[float, float, np.ndarray]]:
    """Return a function that evaluates `network` on a `Subset`, with dropout off.

    It returns the loss that the network was compiled with, the standard error of the loss, and the outputs,
    (m, ...) float32.
    """
    per_example = loss_of_each(network)

    @tf.function(autograph=False)
    def evaluate(tensors, rows):
        batch = gather(tensors, rows)
        outputs = network(batch["inputs"], training=False)
        loss = network.compute_loss(batch["inputs"], batch["labels"], outputs, training=False)
        losses = per_example(batch["labels"], outputs)
        return loss, tf.reduce_mean(tf.reshape(losses, (rows.shape[0], -1)), 1), tf.cast(outputs, tf.float32)

    def on(subset: Subset) -> tuple[float, float, np.ndarray]:
        batch = _evaluation_batch(subset.split.inputs)
        batches = np.split(subset.rows, range(batch, len(subset.rows), batch))
        results = [evaluate(subset.tensors, tf.constant(rows)) for rows in batches]
        of_batches, losses, outputs = (
            np.concatenate([np.atleast_1d(value.numpy()) for value in values])
            for values in zip(*results, strict=True)
        )
        loss = np.average(of_batches.astype(np.float64), weights=[len(rows) for rows in batches])
        error = evaluation.mean_and_error(evaluation.of_groups(losses, subset.groups))[1]
        return float(loss), error, outputs

    return on


def _evaluation_batch(inputs: Any) -> int:
    """Return the batch size for `inputs`; layers need some multiple of the inputs' size as floats."""
    size = sum(4 * math.prod(array.shape[1:]) for array in tf.nest.flatten(inputs))
    return max(1, min(EVALUATION_BATCH, EVALUATION_BYTES // size))


def loss_of_each(network: keras.Model) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """Return a function from labels and outputs, (n, ...), to their losses, before the mean over a batch."""
    compiled = keras.losses.get(network.loss)

    def of_each(labels, outputs):
        labels, outputs = tf.cast(labels, tf.float32), tf.cast(outputs, tf.float32)  # as Keras does
        if hasattr(compiled, "call"):
            return compiled.call(labels, outputs)
        # A plain function would broadcast (n,) and (n, 1), which Keras's compiled loss does not
        one = outputs.shape[-1] == 1 and labels.shape.rank == outputs.shape.rank - 1
        return compiled(labels[..., None] if one else labels, outputs)

    return of_each


def predictor(network: keras.Model) -> Callable[[Any], np.ndarray]:
    """Return a function from inputs, (n, ...) or several by name, to `network`'s outputs, (n, ...)."""
    call = tf.function(lambda batch: network(batch, training=False), autograph=False)

    def predict(inputs: Any) -> np.ndarray:
        size, batch = len(tf.nest.flatten(inputs)[0]), _evaluation_batch(inputs)
        parts = [slice(start, start + batch) for start in range(0, size, batch)]
        batches = (tf.nest.map_structure(lambda a, part=part: tf.constant(a[part]), inputs) for part in parts)
        return np.concatenate([call(batch).numpy() for batch in batches])

    return predict
