"""A training is a pure function: the bits of its result depend only on its arguments."""

import gc
import hashlib
import json
import os
import random
import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
import trainings
from trainings import BARE, HYPERPARAMETERS, train

from stages.base.console import UserError
from stages.base.splits import Split
from stages.comparison.measure import keras_file
from stages.compute.store import Store
from stages.training import evaluation, model, network, trainer
from stages.training.backend import DEVICE, keras, tf
from stages.training.evaluation import EVALUATED, LOSS, SCORE
from stages.training.quiet import quiet
from stages.training.score import NAME


@pytest.fixture(scope="module")
def digits():
    return trainings.digits()


def build(data, seed, state=None):
    made = network.build(HYPERPARAMETERS, data, seed)
    if state:
        network.restore(made, state)
    return made


def use_optimizer(monkeypatch, make):
    """Compile the network with the optimizer that `make` returns."""
    original = model.build

    def build(*arguments):
        made = original(*arguments)
        made.compile(make(), loss=made.loss)
        return made

    monkeypatch.setattr(model, "build", build)


def digest(state) -> str:
    """A hash of a checkpoint without its seconds."""
    content = hashlib.sha256(json.dumps([state.epoch, state.history, state.stopped]).encode())
    for array in state.weights + state.optimizer:
        content.update(array.tobytes())
    return content.hexdigest()


@pytest.mark.parametrize(("seed", "batch_size"), [(0, 32), (1, 50), (12345, 50)])
def test_training_in_two_parts_is_training_in_one_go(digits, seed, batch_size):
    data, validation = digits
    hyperparameters = {**HYPERPARAMETERS, "batch_size": batch_size}
    settings = {"seed": seed, "validation": validation}
    whole = train(hyperparameters, data, epochs=5, **settings)
    part = train(hyperparameters, data, epochs=2, **settings)
    kept = digest(part)
    assert digest(train(hyperparameters, data, epochs=5, checkpoint=part, **settings)) == digest(whole)
    assert digest(part) == kept
    assert part.history["loss"] == whole.history["loss"][:2]


def test_another_process_and_other_work_before_change_nothing(digits, tmp_path):
    """Even if the environment and keras.json set other arithmetic, another backend and another precision."""
    (tmp_path / "keras.json").write_text(
        '{"backend": "jax", "floatx": "float64", "image_data_format": "channels_first"}'
    )
    code = (
        "import sys; sys.path.insert(0, 'tests'); import conftest; from test_training import *; "
        "c = keras.config; "
        "print(digest(train(HYPERPARAMETERS, trainings.digits()[0], epochs=2, seed=3)), "
        "c.backend(), c.floatx(), c.image_data_format())"
    )
    environment = {
        **os.environ,
        **{"KERAS_BACKEND": "jax", "KERAS_HOME": str(tmp_path)},
        "TF_XLA_FLAGS": "--tf_xla_auto_jit=2 --tf_xla_cpu_global_jit",
        **{"TF_DETERMINISTIC_OPS": "1", "ONEDNN_MAX_CPU_ISA": "SSE41", "ONEDNN_DEFAULT_FPMATH_MODE": "BF16"},
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True
    )
    layers = keras.layers.Flatten(), keras.layers.Dropout(0.2), keras.layers.Dense(10, "softmax")
    other = keras.Sequential([keras.Input((8, 8)), *layers])
    other.compile("adam", loss="sparse_categorical_crossentropy")
    other.optimizer.build(other.trainable_variables)
    start = network.checkpoint(other)
    trainer.Trainer(other, network.Subset.of(digits[0]), batch_size=10).run(start, 1, 9)
    here = digest(train(HYPERPARAMETERS, digits[0], epochs=2, seed=3))
    assert done.stdout.split() == [here, "tensorflow", "float32", "channels_last"]


def test_other_threads_that_draw_random_numbers_change_nothing(digits):
    expected = digest(train(HYPERPARAMETERS, digits[0], epochs=1, seed=3))
    stop = threading.Event()

    def draw():
        while not stop.is_set():
            random.random()  # noqa: S311

    thread = threading.Thread(target=draw)
    thread.start()
    try:
        assert digest(train(HYPERPARAMETERS, digits[0], epochs=1, seed=3)) == expected
    finally:
        stop.set()
        thread.join()


def test_another_seed_is_another_training(digits):
    first, second = (train(HYPERPARAMETERS, digits[0], epochs=1, seed=seed) for seed in (1, 2))
    assert first.history["loss"] != second.history["loss"]


def test_it_learns_what_keras_learns(digits):
    """The accuracy after `model.fit` differs by less than that of different seeds."""
    data, validation = digits
    ours, keras_own, made = [], [], build(data, 0)
    for seed in range(3):
        state = train(HYPERPARAMETERS, data, epochs=5, seed=seed, validation=validation)
        ours.append(state.history[NAME][-1])
        start = train(HYPERPARAMETERS, data, epochs=0, seed=seed)
        network.restore(made, start)  # the same network, so that Keras traces it once
        keras_own.append(made.fit(data.inputs, data.labels, epochs=5, verbose=0).history["accuracy"][-1])
    spread = np.std(keras_own, ddof=1) + np.std(ours, ddof=1)
    assert abs(np.mean(ours) - np.mean(keras_own)) < 2 * spread


def test_the_saved_model_is_loaded_by_keras_and_has_the_same_accuracy(digits, tmp_path):
    data, validation = digits
    state = train(HYPERPARAMETERS, data, epochs=2, seed=1, validation=validation)
    content, unusable = keras_file(build(data, 1, state))
    assert (content, unusable) == (keras_file(build(data, 1, state))[0], None)
    (tmp_path / "model.keras").write_bytes(content)
    loaded = keras.models.load_model(tmp_path / "model.keras")
    loss, accuracy = loaded.evaluate(validation.inputs, validation.labels, verbose=0)
    assert accuracy == pytest.approx(state.history[SCORE][-1], abs=1e-6)
    assert loss == pytest.approx(state.history[LOSS][-1], rel=1e-5)
    losses = keras.losses.sparse_categorical_crossentropy(
        validation.labels, loaded.predict(validation.inputs, verbose=0)
    )
    error = np.std(losses, ddof=1) / np.sqrt(len(losses))
    assert state.history[f"{LOSS}_error"][-1] == pytest.approx(error, rel=1e-3)
    assert loaded.count_params() == state.parameters
    assert int(loaded.optimizer.iterations) == 2 * 45


def test_any_keras_model_is_trained(digits, monkeypatch):
    """One with batch normalisation, whose state is not trained, two dropouts and another optimizer."""

    def build(shapes, outputs, hyperparameters):
        made = keras.Sequential(
            [
                keras.Input((*shapes, 1)),
                keras.layers.Conv2D(4, 3, activation="relu"),
                keras.layers.BatchNormalization(),
                keras.layers.Flatten(),
                keras.layers.Dropout(0.1),
                keras.layers.Dense(24, activation="relu", kernel_regularizer="l2"),
                keras.layers.Dropout(0.1),
                keras.layers.Dense(outputs, activation="softmax"),
            ]
        )
        made.compile(keras.optimizers.SGD(0.05, momentum=0.9), loss="sparse_categorical_crossentropy")
        return made

    monkeypatch.setattr(model, "build", build)
    settings = {"seed": 1, "validation": digits[1]}
    whole = train(BARE, digits[0], epochs=3, **settings)
    part = train(BARE, digits[0], epochs=1, **settings)
    assert digest(train(BARE, digits[0], epochs=3, checkpoint=part, **settings)) == digest(whole)
    assert whole.history[SCORE][-1] > 0.8


def test_a_train_step_of_its_own_is_refused(monkeypatch):
    class Own(keras.Sequential):
        def train_step(self, data):
            return {}

    def build_as(network_class):
        def build(shapes, outputs, hyperparameters):
            made = network_class([keras.Input(shapes), keras.layers.Flatten(), keras.layers.Dense(outputs)])
            made.compile("adam", loss="mse")
            return made

        monkeypatch.setattr(model, "build", build)
        return network.build(BARE, trainings.digits()[0], seed=1)

    assert build_as(keras.Sequential).count_params() == 650
    with pytest.raises(UserError, match=r"has its own train_step, which only `model.fit` would call$"):
        build_as(Own)


class GlobalNoise(keras.layers.Layer):
    """Draws from Keras's global generator, whose state is in no checkpoint."""

    def call(self, inputs):
        return inputs + 0.1 * keras.random.normal(keras.ops.shape(inputs))


class TensorFlowNoise(keras.layers.Layer):
    """Draws from TensorFlow's own state."""

    def call(self, inputs):
        return inputs + tf.random.normal(tf.shape(inputs), stddev=0.1)


class OwnNoise(keras.layers.Layer):
    """Draws from a generator of its own, as Keras's layers do."""

    def __init__(self):
        super().__init__()
        self.generator = keras.random.SeedGenerator(1)

    def call(self, inputs):
        return inputs + 0.1 * keras.random.normal(keras.ops.shape(inputs), seed=self.generator)


def network_with(layer, dtype="float32"):
    def build(shapes, outputs, hyperparameters):
        dense = keras.layers.Dense(outputs, activation="softmax", dtype=dtype)
        made = keras.Sequential([keras.Input(shapes), keras.layers.Flatten(), layer(), dense])
        made.compile("adam", loss="sparse_categorical_crossentropy")
        return made

    return build


class PythonNoise(keras.layers.Layer):
    """Draws in a Python function that TensorFlow calls."""

    def call(self, inputs):
        noise = tf.numpy_function(lambda: np.float32(np.random.normal()), [], tf.float32)
        return inputs + 0.1 * tf.reshape(noise, (1, 1))


class Sampled(keras.layers.Layer):
    """Draws candidates, as a sampled softmax does."""

    def call(self, inputs):
        zeros = tf.zeros((1, 1), tf.int64)
        drawn = tf.random.uniform_candidate_sampler(zeros, 1, 1, unique=True, range_max=9)
        return inputs + 0.1 * tf.cast(drawn[0][0], tf.float32)


class Clock(keras.layers.Layer):
    def call(self, inputs):
        return inputs + tf.cast(tf.timestamp() % 1, tf.float32)


@pytest.mark.parametrize("layer", [GlobalNoise, TensorFlowNoise, PythonNoise, Sampled, Clock])
def test_a_state_that_a_pause_would_lose_is_refused(digits, monkeypatch, layer):
    monkeypatch.setattr(model, "build", network_with(layer))
    line = r"^stages/training/model.py: the network has a state of its own \(\S+\); make it a variable of"
    with pytest.raises(UserError, match=line + " a layer, .+$"):
        train(BARE, digits[0], epochs=1, seed=1)


@pytest.mark.parametrize(
    "layer",
    [
        OwnNoise,
        lambda: keras.layers.Dropout(0.1),
        lambda: keras.layers.GaussianNoise(0.1),
        keras.layers.BatchNormalization,
    ],
)
def test_a_state_of_a_layer_survives_a_pause(digits, monkeypatch, layer):
    monkeypatch.setattr(model, "build", network_with(layer))
    settings = {"seed": 1}
    whole = train(BARE, digits[0], epochs=2, **settings)
    part = train(BARE, digits[0], epochs=1, **settings)
    assert digest(train(BARE, digits[0], epochs=2, checkpoint=part, **settings)) == digest(whole)


def test_random_numbers_of_a_layer_depend_on_the_seed_the_epoch_and_the_layer(monkeypatch):
    """Two layers that each drop a half keep a quarter; with the same draws, they would keep a half."""

    def build(shapes, outputs, hyperparameters):
        made = keras.Sequential([keras.Input(shapes), keras.layers.Dropout(0.5), keras.layers.Dropout(0.5)])
        made.add(keras.layers.Dense(64, use_bias=False, kernel_initializer="identity"))
        made.compile(keras.optimizers.SGD(0.0), loss="mse")
        return made

    monkeypatch.setattr(model, "build", build)
    monkeypatch.setattr(evaluation, "score", lambda labels, outputs: (outputs != 0).mean(1))
    alike = np.tile(np.linspace(1, 2, 64, dtype=np.float32), (320, 1))  # so that their order does not matter
    histories = [train(BARE, Split(alike, alike), epochs=2, seed=seed).history for seed in (1, 2)]
    assert len({loss for history in histories for loss in history["loss"]}) == 4
    for history in histories:
        assert history[NAME] == pytest.approx([0.25] * 2, abs=0.02)


def test_a_restored_network_draws_the_same_whatever_it_drew_before(digits, monkeypatch):
    monkeypatch.setattr(model, "build", network_with(OwnNoise))
    made = network.build(BARE, digits[0], 1)
    start, outputs = network.checkpoint(made), []
    for _ in range(2):
        network.restore(made, start)
        outputs += [made(digits[1].inputs).numpy() for _ in range(2)]
    np.testing.assert_array_equal(outputs[2:], outputs[:2])
    assert not np.array_equal(outputs[0], outputs[1])


@pytest.mark.parametrize("dtype", ["bfloat16", "float64", "mixed_bfloat16"])
def test_trainings_with_other_dtypes_continue_from_the_store(digits, monkeypatch, tmp_path, dtype):
    monkeypatch.setattr(model, "build", network_with(keras.layers.BatchNormalization, dtype))
    settings = {"seed": 1}
    whole = train(BARE, digits[0], epochs=2, **settings)
    store = Store(tmp_path)
    store.save("key", train(BARE, digits[0], epochs=1, **settings))
    assert digest(train(BARE, digits[0], epochs=2, checkpoint=store.load("key"), **settings)) == digest(whole)
    assert whole.history[NAME][1] > whole.history[NAME][0]


def test_a_training_ends_when_a_loss_is_not_finite(digits, monkeypatch):
    use_optimizer(monkeypatch, lambda: keras.optimizers.SGD(1e30))
    state = train(HYPERPARAMETERS, digits[0], epochs=5, seed=1)
    assert (state.epoch, state.stopped, state.done(5)) == (1, True, True)
    assert state.failure == "loss is nan after epoch 1"
    assert train(HYPERPARAMETERS, digits[0], epochs=5, seed=1, checkpoint=state).epoch == 1


@pytest.mark.filterwarnings("ignore:invalid value")  # in the standard error
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_training_ends_when_a_score_is_not_finite(digits, monkeypatch, value):
    """Here the score of the validation examples, after the second epoch."""
    values = iter([0.5, value])
    monkeypatch.setattr(
        evaluation, "score", lambda labels, outputs: next(values) if len(labels) == 360 else 0.7
    )
    monkeypatch.setattr(evaluation, "values", lambda *arguments: np.full(2, evaluation.mean(*arguments[:2])))
    state = train(HYPERPARAMETERS, digits[0], epochs=5, seed=1, validation=digits[1])
    assert (state.epoch, state.stopped, state.failure) == (2, True, f"{SCORE} is {value} after epoch 2")
    assert state.history[SCORE][0] == 0.5


def test_tensorflow_keeps_nothing_of_a_training(digits):
    """A graph that is kept would take three megabytes for ever."""
    few = {**HYPERPARAMETERS, "batch_size": 500}
    train(few, digits[0], epochs=1, seed=1)
    gc.collect()
    before = len([each for each in gc.get_objects() if isinstance(each, tf.Graph)])
    for seed in range(3):
        train(few, digits[0], epochs=1, seed=seed)
    gc.collect()
    assert len([each for each in gc.get_objects() if isinstance(each, tf.Graph)]) <= before


@pytest.mark.skipif(DEVICE == "GPU", reason="on a GPU, data is always copied")
def test_data_is_copied_only_where_tensorflow_cannot_use_its_memory(tmp_path):
    """An array that is not aligned as TensorFlow needs would abort the process."""
    array = np.arange(64, dtype=np.float32)
    np.save(tmp_path / "array.npy", array)
    mapped = np.load(tmp_path / "array.npy", mmap_mode="c")
    shared, copied = network._tensor(mapped), network._tensor(mapped[1:])
    mapped[:] = 0
    assert tf.reduce_sum(shared).numpy() == 0
    assert tf.reduce_sum(tf.gather(copied, [0, 1])).numpy() == 3
    assert network._tensor(np.load(tmp_path / "array.npy", mmap_mode="r")).numpy().tolist() == array.tolist()


OPTIMIZERS = [
    *(
        "SGD",
        "RMSprop",
        "Adam",
        "AdamW",
        "Adadelta",
        "Adagrad",
        "Adamax",
        "Adafactor",
        "Nadam",
        "Ftrl",
        "Lion",
        "Lamb",
        "Muon",
    ),
    "LossScaleOptimizer",
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "accumulate"), [*((name, None) for name in OPTIMIZERS), ("SGD", 3), ("LossScaleOptimizer", 3)]
)
def test_every_optimizer_continues_from_a_checkpoint(digits, monkeypatch, name, accumulate):
    """To the bit, even if gradients are accumulated over 3 batches, which do not divide an epoch's 10.

    The same `Trainer` is used again: any state that it kept outside the checkpoints would change the result.
    """

    def make():
        inner = getattr(keras.optimizers, "Adam" if name == "LossScaleOptimizer" else name)
        optimizer = inner(
            learning_rate=0.01,
            gradient_accumulation_steps=accumulate,
            use_ema=name == "SGD",
            ema_overwrite_frequency=5,
        )
        return keras.optimizers.LossScaleOptimizer(optimizer) if name == "LossScaleOptimizer" else optimizer

    use_optimizer(monkeypatch, make)
    data = Split(digits[0].inputs[:300], digits[0].labels[:300])
    made = build(data, 1)
    start, training = network.checkpoint(made), trainer.Trainer(made, network.Subset.of(data), batch_size=32)
    part = training.run(start, 1, 1)
    rest, whole = training.run(part, 3, 1), training.run(start, 3, 1)
    assert digest(rest) == digest(whole)
    assert not all(map(np.array_equal, part.weights, whole.weights))


def test_a_loss_that_the_optimizer_scales_leads_to_the_same_weights(digits, monkeypatch):
    """The scale is a power of two, which rounds nothing; the loss in the history is not scaled."""

    def scaled():
        return keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), initial_scale=2.0**10)

    reached = []
    for make in (lambda: keras.optimizers.SGD(0.1), scaled):
        use_optimizer(monkeypatch, make)
        reached.append(train(HYPERPARAMETERS, digits[0], epochs=1, seed=1))
    assert reached[1].history["loss"] == pytest.approx(reached[0].history["loss"], rel=1e-5)
    for plain, other in zip(*(state.weights for state in reached), strict=True):
        np.testing.assert_allclose(other, plain, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("monitor", "values", "stops"),
    [
        ("val_loss", [3, 2, 1], False),
        ("val_loss", [1, 2, 3], True),
        ("val_loss", [1, 2], False),
        ("val_loss", [2, 3, 1, 3], False),
        ("val_loss", [2, 3, 1, 1, 1], True),
        ("val_score", [0.1, 0.2, 0.3], False),
        ("val_score", [0.3, 0.2, 0.1], True),
        ("val_negative_log_loss", [-3, -2, -1], False),
        ("val_negative_log_loss", [-1, -2, -3], True),
        ("val_loss", [float("nan")] * 2, False),
        ("val_loss", [float("nan")] * 3, True),
    ],
)
def test_early_stopping_stops_where_keras_does(monitor, values, stops):
    callback = keras.callbacks.EarlyStopping(
        monitor=monitor, patience=2, mode="min" if monitor == "val_loss" else "max"
    )
    callback.set_model(keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)]))
    callback.model.stop_training = False
    callback.on_train_begin()
    for epoch, value in enumerate(values):
        callback.on_epoch_end(epoch, {monitor: value})
    assert callback.model.stop_training is stops
    assert trainer.stops(monitor, 2, {monitor: values}) is stops


def test_seconds_end_a_training_after_the_epoch(digits):
    made = build(digits[0], 1)
    training = trainer.Trainer(made, network.Subset.of(digits[0]), batch_size=32)
    reached, epochs = network.checkpoint(made), []
    while not epochs or epochs[-1] < 3:
        reached = training.run(reached, 3, 1, seconds_at_most=0)
        epochs.append(reached.epoch)
    assert epochs == [1, 2, 3]
    assert digest(reached) == digest(train(HYPERPARAMETERS, digits[0], epochs=3, seed=1))


def of_numbers(shapes, outputs, hyperparameters):
    made = keras.Sequential([keras.Input(shapes), keras.layers.Flatten(), keras.layers.Dense(outputs)])
    made.compile("adam", loss="mean_absolute_error")
    return made


def test_another_score_is_in_the_history(digits, monkeypatch):
    """Here a regression, scored by the negative absolute error."""
    monkeypatch.setattr(model, "build", of_numbers)
    monkeypatch.setattr(evaluation, "score", lambda labels, outputs: -np.abs(labels - outputs[:, 0]))
    data, validation = (Split(split.inputs, split.labels.astype(np.float32)) for split in digits)
    history = train(BARE, data, epochs=2, seed=1, validation=validation).history
    assert list(history) == [NAME, "loss", *EVALUATED]
    for score, loss in ((NAME, "loss"), (SCORE, LOSS)):
        np.testing.assert_allclose(history[score], [-value for value in history[loss]], rtol=1e-5)
    np.testing.assert_allclose(history[f"{SCORE}_error"], history[f"{LOSS}_error"], rtol=1e-4)


def test_a_score_of_the_whole_set_is_that_of_all_outputs_of_an_epoch(digits, monkeypatch):
    """And has a standard error. Labels and outputs are in the same order; the network does not learn."""

    def build(*arguments):
        made = of_numbers(*arguments)
        made.compile(keras.optimizers.SGD(0.0), loss="mse")
        return made

    def correlation(labels, outputs):
        return np.corrcoef(labels, outputs[:, 0])[0, 1]

    monkeypatch.setattr(model, "build", build)
    monkeypatch.setattr(evaluation, "score", correlation)
    data, validation = (Split(split.inputs, split.labels.astype(np.float32)) for split in digits)
    history = train(BARE, data, epochs=2, seed=1, validation=validation).history
    made = network.build(BARE, data, 1)
    for name, part in ((NAME, data), (SCORE, validation)):
        outputs = made.predict(part.inputs, verbose=0)
        assert history[name] == pytest.approx([correlation(part.labels, outputs)] * 2, abs=1e-5)
    groups = np.arange(len(part.labels)) // 9
    for given, used in ((validation, None), (replace(validation, groups=groups), groups)):
        history = train(BARE, data, epochs=1, seed=1, validation=given).history
        error = evaluation.mean_and_error(evaluation.values(part.labels, outputs, used))[1]
        assert history[f"{SCORE}_error"] == pytest.approx([error], rel=1e-3)


def test_weights_affect_the_loss_of_an_epoch_as_in_fit(digits):
    """Even if the last batch is smaller; compared with `model.fit`."""
    data = Split(digits[0].inputs, digits[0].labels, np.linspace(0, 3, len(digits[0].labels)))
    made, expected = (build(data, 1) for _ in range(2))
    rows = np.random.default_rng([1, 0, 0]).permutation(len(data.labels))
    for layer in (made.layers[2], expected.layers[2]):
        layer.rate = 0.0
    start = network.checkpoint(made)
    reached = trainer.Trainer(made, network.Subset.of(data), batch_size=100).run(start, 1, 1)
    fitted = expected.fit(
        data.inputs[rows],
        data.labels[rows],
        sample_weight=data.weights[rows],
        batch_size=100,
        shuffle=False,
        verbose=0,
    )
    assert reached.history["loss"] == pytest.approx(fitted.history["loss"], rel=1e-5)
    for ours, kerass in zip(made.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_allclose(ours, kerass, rtol=1e-3, atol=1e-5)


def test_a_pause_does_not_reset_patience(digits, monkeypatch):
    """The learning rate is too high, so that the loss soon rises."""
    use_optimizer(monkeypatch, lambda: keras.optimizers.Adam(0.3))
    data, validation = digits
    settings = {
        "seed": 1,
        "validation": validation,
        "early_stopping": {"monitor": LOSS, "patience": 2},
    }
    whole = train(HYPERPARAMETERS, data, epochs=12, **settings)
    assert whole.stopped
    assert whole.epoch < 12
    state = None
    for epoch in range(1, 13):
        state = train(HYPERPARAMETERS, data, epochs=epoch, checkpoint=state, **settings)
    assert digest(state) == digest(whole)


@pytest.mark.parametrize(("error", "shown"), [(ImportError, "noise"), (KeyboardInterrupt, "")])
def test_tensorflows_messages_are_shown_only_if_its_import_fails(capfd, error, shown):
    def start():
        with quiet():
            os.write(2, b"noise")
            raise error

    with pytest.raises(error):
        start()
    assert capfd.readouterr().err == shown
