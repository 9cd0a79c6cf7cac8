"""Networks built, checked against data of many kinds, and evaluated."""

import inspect
import math
from functools import partial

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from trainings import BARE, HYPERPARAMETERS

from stages.base.console import UserError
from stages.base.splits import Split
from stages.training import evaluation, model, network
from stages.training.backend import keras, tf
from stages.training.network import Subset
from stages.training.trainer import Trainer

N = 300  # examples, more than `_CHECKED`
RNG = np.random.default_rng(0)
INPUTS = RNG.random((N, 4), np.float32)
IMAGES = RNG.integers(0, 256, (N, 6, 6, 3)).astype(np.uint8)
TOKENS = RNG.integers(0, 9, (N, 5)).astype(np.int32)
CLASSES = (np.arange(N) % 3).astype(np.int32)
BINARY = (np.arange(N) % 2).astype(np.int32)
NUMBERS = RNG.random(N, np.float32)
SEVERAL = RNG.random((N, 12), np.float32)
LABELS = RNG.integers(0, 2, (N, 12)).astype(np.int32)
CCE, BCE = "sparse_categorical_crossentropy", "binary_crossentropy"


def dense(outputs, loss, activation=None, shape=(4,)) -> keras.Model:
    """A compiled network of one layer."""
    keras.utils.set_random_seed(1)
    layers = keras.Input(shape), keras.layers.Dense(outputs, activation)
    made = keras.Sequential(layers)
    made.compile("sgd", loss=loss)
    return made


def failing(labels, outputs):
    raise ValueError("no\nloss")


def two_outputs() -> keras.Model:
    inputs = keras.Input((4,))
    made = keras.Model(inputs, {name: keras.layers.Dense(3, name=name)(inputs) for name in ("a", "b")})
    made.compile("sgd", loss="mse")
    return made


class Smoothed(keras.losses.Loss):
    """A loss that is not Keras's."""

    def call(self, labels, outputs):
        hot = 0.9 * keras.ops.one_hot(keras.ops.cast(labels, "int32"), outputs.shape[-1]) + 0.1 / 3
        return keras.losses.categorical_crossentropy(hot, outputs)


class Own(keras.Model):
    """A network whose shapes are unknown before it is called."""

    def __init__(self, outputs):
        super().__init__()
        self.dense = keras.layers.Dense(outputs, activation="softmax")

    def call(self, inputs):
        return self.dense(inputs)


def own(outputs=3) -> keras.Model:
    made = Own(outputs)
    made.compile("sgd", loss=CCE)
    return made


def two_inputs() -> keras.Model:
    image, tokens = keras.Input((6, 6, 3), name="image"), keras.Input((5,), dtype="int32", name="tokens")
    embedded = keras.layers.Flatten()(keras.layers.Embedding(9, 2)(tokens))
    both = keras.layers.Concatenate()(
        [keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(image)), embedded]
    )
    made = keras.Model({"image": image, "tokens": tokens}, keras.layers.Dense(3, "softmax")(both))
    made.compile("sgd", loss=CCE)
    return made


def tagger() -> keras.Model:
    layers = keras.Input((5,), dtype="int32"), keras.layers.Embedding(9, 4), keras.layers.Dense(9, "softmax")
    made = keras.Sequential(layers)
    made.compile("sgd", loss=CCE)
    return made


def of_images() -> keras.Model:
    layers = keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(3, "softmax")
    made = keras.Sequential([keras.Input((6, 6, 3)), *layers])
    made.compile("sgd", loss=CCE)
    return made


ACCEPTED = {
    "softmax": (lambda: dense(3, CCE, "softmax"), INPUTS, CLASSES),
    "one sigmoid": (lambda: dense(1, BCE, "sigmoid"), INPUTS, BINARY),
    "a loss object": (lambda: dense(1, keras.losses.BinaryCrossentropy(), "sigmoid"), INPUTS, BINARY),
    "several sigmoids": (lambda: dense(12, BCE, "sigmoid"), INPUTS, LABELS),
    "a number": (lambda: dense(1, "mse"), INPUTS, NUMBERS),
    "several numbers": (lambda: dense(12, "mae"), INPUTS, SEVERAL),
    "a class of each token": (tagger, TOKENS, TOKENS),
    "two inputs": (two_inputs, {"image": IMAGES, "tokens": TOKENS}, CLASSES),
    "images of bytes": (of_images, IMAGES, CLASSES),
    "a loss of its own": (lambda: dense(3, Smoothed(), "softmax"), INPUTS, CLASSES),
    "weights": (lambda: dense(3, CCE, "softmax"), INPUTS, CLASSES, NUMBERS),
    "few examples": (lambda: dense(3, CCE, "softmax"), INPUTS[:3], CLASSES[:3]),
    "categories": (lambda: dense(3, "categorical_crossentropy", "softmax"), INPUTS, np.eye(3)[CLASSES]),
}


@pytest.fixture
def any_score(monkeypatch):
    """A score that accepts any labels and outputs."""
    monkeypatch.setattr(evaluation, "score", lambda labels, outputs: np.zeros(len(labels)))


@pytest.mark.usefixtures("any_score")
@pytest.mark.parametrize("kind", ACCEPTED)
def test_each_kind_of_network_is_trained_and_evaluated_as_keras_does(kind):
    """Compare the loss of an epoch, the loss of the trained network, and its outputs."""
    make, *arrays = ACCEPTED[kind]
    data = Split(*arrays)
    made, subset = make(), Subset.of(data)
    network.check(made, subset)
    size = len(data.labels)
    expected = make()
    expected.set_weights(made.get_weights())
    start = network.checkpoint(made)
    reached = Trainer(made, subset, batch_size=size, validation=subset).run(start, 1, 0)
    fitted = expected.fit(
        data.inputs, data.labels, sample_weight=data.weights, batch_size=size, epochs=1, verbose=0
    )
    assert reached.history["loss"] == pytest.approx(fitted.history["loss"], rel=1e-5)
    loss, error, outputs = network.evaluator(made)(subset)
    assert reached.history["val_loss"] == [loss]
    assert reached.history["val_loss_error"] == [error]
    np.testing.assert_allclose(outputs, expected.predict(data.inputs, verbose=0), rtol=1e-4, atol=1e-5)
    assert loss == pytest.approx(expected.evaluate(data.inputs, data.labels, verbose=0), rel=1e-5)
    np.testing.assert_allclose(network.predictor(made)(data.inputs), outputs, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("any_score")
def test_the_standard_error_of_a_loss_is_that_of_the_mean_of_the_examples_losses():
    """Even with a sigmoid output (n, 1), labels (n,) and a plain function as the loss."""
    own_loss = keras.losses.BinaryCrossentropy(reduction=None)
    for loss in (BCE, own_loss.__class__()):
        made = dense(1, loss, "sigmoid")
        value, error, outputs = network.evaluator(made)(Subset.of(Split(INPUTS, BINARY)))
        losses = own_loss(BINARY[:, None].astype(np.float32), outputs).numpy()
        assert losses.shape == (N,)
        assert value == pytest.approx(losses.mean(), rel=1e-5)
        assert error == pytest.approx(losses.std(ddof=1) / math.sqrt(N), rel=1e-5)


def test_each_example_has_the_same_weight_in_the_loss_whatever_the_batch_sizes():
    """The second batch is smaller, and its losses are larger."""
    size = network.EVALUATION_BATCH + 100
    inputs = np.random.default_rng(1).random((size, 4), np.float32)
    labels = np.linspace(0, 9, size, dtype=np.float32)
    made = dense(1, "mse")
    loss, error, outputs = network.evaluator(made)(Subset.of(Split(inputs, labels)))
    np.testing.assert_allclose(outputs, made(inputs), rtol=1e-4, atol=1e-5)
    losses = (outputs[:, 0].astype(np.float64) - labels) ** 2
    assert loss == pytest.approx(losses.mean(), rel=1e-5)
    assert error == pytest.approx(losses.std(ddof=1) / math.sqrt(size), rel=1e-5)


@pytest.mark.usefixtures("any_score")
def test_the_standard_error_of_a_loss_of_tokens_is_that_of_each_texts_mean():
    made = tagger()
    _, error, outputs = network.evaluator(made)(Subset.of(Split(TOKENS, TOKENS)))
    losses = keras.losses.sparse_categorical_crossentropy(TOKENS, outputs).numpy()
    assert losses.shape == (N, 5)
    assert error == pytest.approx(losses.mean(1).std(ddof=1) / math.sqrt(N), rel=1e-5)


@pytest.mark.usefixtures("any_score")
def test_the_standard_error_of_a_loss_is_that_of_groups_where_there_are_several():
    made, groups = dense(1, "mse"), np.arange(N) // 10
    subset = Subset.of(Split(INPUTS, NUMBERS, groups=groups)).at(np.arange(N)[::-1])
    _, error, outputs = network.evaluator(made)(subset)
    of_groups = ((outputs[:, 0] - NUMBERS[::-1]) ** 2).reshape(-1, 10).mean(1)
    assert error == pytest.approx(of_groups.std(ddof=1) / math.sqrt(N / 10), rel=1e-5)
    assert (subset.groups == groups[::-1]).all()
    assert subset.at(np.arange(10)).groups is None
    assert Subset.of(Split(INPUTS, NUMBERS)).groups is None


BOTH = "outputs of shape (256, {}) and labels of shape (256{})"


@pytest.mark.usefixtures("any_score")
@pytest.mark.parametrize(
    ("make", "labels", "said"),
    [
        (two_outputs, NUMBERS, "for 256 examples the network returns dict; it should be one array of shape"),
        (lambda: dense(3, "mse"), NUMBERS, f"the loss .*{BOTH.format(3, ',')}"),
        (lambda: dense(1, "mse"), SEVERAL, f"would broadcast labels or .*{BOTH.format(1, ', 12')}"),
        (lambda: dense(3, "mse"), NUMBERS[:, None], f"would broadcast labels .*{BOTH.format(3, ', 1')}"),
        (lambda: dense(1, BCE, "sigmoid"), LABELS, f"the loss .*{BOTH.format(1, ', 12')}"),
        (lambda: dense(2, CCE, "softmax"), CLASSES, f".*{BOTH.format(2, ',')}"),
        (lambda: dense(1, BCE, "sigmoid"), CLASSES, f"classes up to 2, too many for {BOTH.format(1, ',')}"),
        (lambda: dense(1, "mse"), CLASSES, f"classes up to 2, too many for {BOTH.format(1, ',')}"),
        (
            lambda: dense(3, failing),
            CLASSES,
            f"cannot be computed from {BOTH.format(3, ',')} (ValueError: no",
        ),
        (lambda: dense(12, CCE, "softmax"), SEVERAL, f"the loss .*{BOTH.format(12, ', 12')}"),
        (
            lambda: dense(3, lambda a, b: keras.ops.mean(b)),
            CLASSES,
            "has shape (); it should be a number for each",
        ),
        (lambda: dense(3, lambda a, b: b[1:, 0]), CLASSES, "has shape (255,)"),
        (lambda: dense(3, None), CLASSES, "the loss cannot be computed"),
        (
            lambda: dense(1, "categorical_crossentropy", "sigmoid"),
            BINARY,
            f"the loss is the same whatever the network returns: {BOTH.format(1, ',')}",
        ),
        (lambda: dense(1, BCE, "softmax"), BINARY, "a softmax of one output is 1 for each example"),
        (lambda: dense(3, CCE), CLASSES, f"{CCE} takes probabilities; let .*softmax.*{BOTH.format(3, ',')}"),
        (lambda: dense(3, CCE, "relu"), CLASSES, "takes probabilities"),
        (lambda: dense(1, BCE), BINARY, f"{BCE} takes probabilities; let the network end in a sigmoid"),
        (
            lambda: dense(3, keras.losses.SparseCategoricalCrossentropy(from_logits=True), "softmax"),
            CLASSES,
            f"{CCE} has from_logits, but the network ends in a softmax",
        ),
        (
            lambda: dense(12, keras.losses.BinaryCrossentropy(from_logits=True), "sigmoid"),
            LABELS,
            f"{BCE} has from_logits, but the network ends in a sigmoid",
        ),
        (lambda: dense(12, BCE, "sigmoid"), 255 * LABELS, f"{BCE} takes labels from 0 to 1, but .*0 to 255"),
        (
            lambda: dense(1, keras.losses.MeanSquaredError(reduction="sum")),
            NUMBERS,
            "the loss has reduction sum; remove that",
        ),
    ],
)
def test_what_does_not_fit_is_one_line(make, labels, said):
    """Class labels are checked in all examples, not only in those tried."""
    with pytest.raises(UserError) as error:
        network.check(make(), Subset.of(Split(INPUTS, labels)))
    message = str(error.value)
    assert message.startswith("stages/training/model.py: ")
    assert all(part in message for part in said.split(".*")), message
    assert "\n" not in message


@pytest.mark.usefixtures("any_score")
@pytest.mark.parametrize(
    ("outputs", "loss", "labels"),
    [
        (3, keras.losses.SparseCategoricalCrossentropy(from_logits=True), CLASSES),
        (12, keras.losses.BinaryFocalCrossentropy(from_logits=True), LABELS),
        (3, Smoothed(), CLASSES),
    ],
    ids=["softmax", "sigmoids", "a loss of its own"],
)
@pytest.mark.parametrize("weights", [None, 0, np.nan])
def test_logits_are_right_where_the_loss_takes_them(outputs, loss, labels, weights):
    """Also zeros, which could be probabilities, and a network that fails as soon as it is trained."""
    made = dense(outputs, loss)
    if weights is not None:
        made.set_weights([np.full(array.shape, weights) for array in made.get_weights()])
    network.check(made, Subset.of(Split(INPUTS, labels)))


@pytest.mark.usefixtures("any_score")
@pytest.mark.parametrize("loss", ["mse", "mae", "huber", "mape"])
def test_a_loss_of_large_numbers_is_not_taken_for_a_constant(loss):
    """In float32, 1e10 and 1e10 + 1 are the same."""
    network.check(dense(1, loss), Subset.of(Split(INPUTS, 1e10 * (1 + NUMBERS))))


@pytest.mark.usefixtures("any_score")
def test_a_class_that_the_outputs_lack_is_found_in_any_row():
    labels = CLASSES.copy()
    labels[1] = 3  # which is not among the rows that are checked
    with pytest.raises(UserError, match="classes up to 3, too many for"):
        network.check(dense(3, CCE, "softmax"), Subset.of(Split(INPUTS, labels)).at(np.arange(2, N)))


@pytest.mark.parametrize(
    ("own_score", "said"),
    [
        (
            lambda labels, outputs: outputs,
            "score returns float32 of shape (256, 3) for labels of shape (256,)",
        ),
        (lambda labels, outputs: labels[:, None] == labels, "score returns bool of shape (256, 256)"),
        (lambda labels, outputs: "good", "score returns <U4 of shape ()"),
        (
            lambda labels, outputs: labels + outputs[0, :2],
            f"cannot be computed from {BOTH.format(3, ',')} (Val",
        ),
    ],
)
def test_a_score_that_does_not_fit_is_one_line(monkeypatch, own_score, said):
    monkeypatch.setattr(evaluation, "score", own_score)
    with pytest.raises(UserError) as error:
        network.check(dense(3, CCE, "softmax"), Subset.of(Split(INPUTS, CLASSES)))
    assert str(error.value).startswith("stages/training/score.py: score ")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_score_of_the_whole_set_may_need_each_class(monkeypatch):
    """Even a class of a single example, which is not among those tried."""
    score = partial(roc_auc_score, multi_class="ovr")
    monkeypatch.setattr(evaluation, "score", score)
    labels = np.where(CLASSES == 2, 0, CLASSES)
    labels[6] = 2
    subset = Subset.of(Split(INPUTS, labels))
    network.check(dense(3, CCE, "softmax"), subset)
    with pytest.raises(UserError, match="score cannot be computed from outputs of shape"):
        network.check(dense(3, CCE, "softmax"), subset.at(np.arange(7, N)))


FOUR, IN_A = Split(INPUTS, CLASSES), Split({"a": INPUTS}, CLASSES)


@pytest.fixture
def use_build(monkeypatch):
    """A function that replaces `build` by its argument."""
    return lambda build: monkeypatch.setattr(model, "build", build)


@pytest.mark.usefixtures("any_score")
@pytest.mark.parametrize("data", [FOUR, IN_A])
def test_a_network_that_is_not_built_is_built_for_the_shapes_of_the_data(use_build, data):
    class OfDictionary(Own):
        def call(self, inputs):
            return super().call(inputs["a"] if isinstance(inputs, dict) else inputs)

    def build(shapes, outputs, hyperparameters):
        made = OfDictionary(outputs)
        made.compile("sgd", loss=CCE)
        return made

    use_build(build)
    made = network.build(BARE, data, 1)
    assert made.count_params() == 4 * 3 + 3
    network.check(made, Subset.of(data))
    again = network.build(BARE, data, 1)
    np.testing.assert_equal(made.get_weights(), again.get_weights())


def test_a_network_that_is_not_built_gets_numbers_of_the_datas_type(use_build):
    class Rows(keras.Model):
        """Looks up rows of a table by integer inputs."""

        def __init__(self):
            super().__init__()
            self.table = self.add_weight(shape=(9, 3))

        def call(self, tokens):
            return keras.ops.softmax(keras.ops.mean(keras.ops.take(self.table, tokens, axis=0), 1))

    def build(shapes, outputs, hyperparameters):
        made = Rows()
        made.compile("sgd", loss=CCE)
        return made

    use_build(build)
    assert network.build(BARE, Split(TOKENS, CLASSES), 1).count_params() == 27


@pytest.mark.parametrize(
    ("hyperparameters", "said"),
    [
        (
            {"dropout": 0.2, "learning_rate": 0.1, "batch_size": 32},
            "asks for the hyperparameter units, but there are dropout, learning_rate, batch_size; add it in",
        ),
        (
            {**HYPERPARAMETERS, "depth": 2},
            "never reads the hyperparameter depth; remove it from baseline and",
        ),
    ],
)
def test_other_hyperparameters_than_the_network_reads_are_refused(hyperparameters, said):
    with pytest.raises(UserError) as error:
        network.build(hyperparameters, FOUR, 1)
    assert str(error.value).startswith(f"stages/training/model.py {said}")
    assert "\n" not in str(error.value)


def test_hyperparameters_are_attributes_and_optional_ones_may_be_asked_for_by_a_computed_name(use_build):
    asked = []

    def build(shapes, outputs, hyperparameters):
        asked.extend(getattr(hyperparameters, f"units_{i}") for i in range(hyperparameters.layers))
        assert hyperparameters.batch_size == 32
        return dense(outputs, CCE, "softmax", shapes)

    use_build(build)
    network.build({**BARE, "layers": 2, "units_0": 8, "units_1": 4}, FOUR, 1)
    assert asked == [8, 4]
    with pytest.raises(UserError, match="never reads the hyperparameter units_2"):
        network.build({**BARE, "layers": 2, "units_0": 8, "units_1": 4, "units_2": 4}, FOUR, 1)


@pytest.mark.parametrize("made", [None, "a model", "not compiled", "without a loss"])
def test_what_build_returns_is_a_compiled_model(use_build, made):
    plain = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    if made == "without a loss":
        plain.compile("sgd")
    use_build(lambda *_: plain if made in ("not compiled", "without a loss") else made)
    line = r"model.py: build returns a \w+; it should be a Keras model, compiled with a loss$"
    with pytest.raises(UserError, match=line):
        network.build(BARE, FOUR, 1)


def test_a_policy_of_model_py_holds_for_each_network(use_build, monkeypatch):
    """Keras's `clear_session` resets it."""
    policies = []

    def build(shapes, outputs, hyperparameters):
        policies.append(keras.config.dtype_policy().name)
        keras.config.set_dtype_policy("float64")  # for this network alone
        return dense(outputs, CCE, "softmax", shapes)

    use_build(build)
    before = keras.config.dtype_policy()
    monkeypatch.setattr(network, "_POLICY", keras.dtype_policies.get("mixed_bfloat16"))
    try:
        for seed in (1, 2):
            network.build(BARE, FOUR, seed)
    finally:
        keras.config.set_dtype_policy(before)
    assert policies == ["mixed_bfloat16"] * 2


def test_a_loss_that_adds_an_axis_to_labels_is_no_mistake():
    def pinball(labels, outputs):
        if len(labels.shape) < len(outputs.shape):
            labels = keras.ops.expand_dims(labels, -1)
        error, quantiles = labels - outputs, keras.ops.convert_to_tensor([0.1, 0.5, 0.9])
        return keras.ops.mean(keras.ops.maximum(quantiles * error, (quantiles - 1) * error), -1)

    network.check(dense(3, pinball), Subset.of(Split(INPUTS, NUMBERS)))


def test_large_inputs_are_evaluated_in_small_batches():
    """The batch size depends on their size as floats, whatever their own type."""
    inputs = np.zeros((3, 1024, 1024, 5), np.uint8)
    made = keras.Sequential([keras.Input((1024, 1024, 5)), keras.layers.GlobalAveragePooling2D()])
    sizes = []
    call = made.call
    made.call = lambda batch, **options: sizes.append(batch.shape[0]) or call(batch, **options)
    assert network.predictor(made)(inputs).shape == (3, 5)
    assert sizes == [1]  # traced once, for one


@pytest.mark.parametrize("names", [(), ("epochs",), ("steps_per_epoch",), ("steps_per_epoch", "epochs")])
def test_steps_and_epochs_are_given_to_a_build_that_has_such_parameters(use_build, names):
    got = {}

    def build(shapes, outputs, hyperparameters, **optional):
        got.update(optional)
        return dense(outputs, CCE, "softmax", shapes)

    keywords = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in names]
    build.__signature__ = inspect.Signature(keywords)
    use_build(build)
    network.build(BARE, FOUR, 1, steps_per_epoch=45, epochs=7)
    assert got == {name: {"steps_per_epoch": 45, "epochs": 7}[name] for name in names}
    assert network.takes_epochs() == ("epochs" in names)


def test_rows_of_a_subset_are_those_of_its_data():
    split = Split({"image": IMAGES, "tokens": TOKENS}, CLASSES, weights=NUMBERS.astype(np.float64))
    subset = Subset.of(split).at(np.array([5, 3]))
    assert (subset.rows.dtype, subset.labels.tolist()) == (np.int32, CLASSES[[5, 3]].tolist())
    rows = network.gather(subset.tensors, tf.constant(subset.rows))
    assert (rows["weights"].dtype, rows["inputs"]["image"].dtype) == (tf.float32, tf.uint8)
    np.testing.assert_array_equal(rows["inputs"]["tokens"], TOKENS[[5, 3]])
    np.testing.assert_array_equal(rows["labels"], CLASSES[[5, 3]])
    np.testing.assert_allclose(rows["weights"], NUMBERS[[5, 3]])
