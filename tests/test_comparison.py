"""The comparison: its figures, its times and its sentence."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trainings
from conftest import ROOT
from trainings import HYPERPARAMETERS

from stages.base import splits
from stages.base.console import UserError, decimals
from stages.base.files import write_json
from stages.base.params import load
from stages.base.splits import Split
from stages.comparison import comparison, measure
from stages.comparison.replicates import predicted, result_line, save_model
from stages.compute.worker import Session
from stages.training import model
from stages.training.backend import keras
from stages.training.score import NAME

TEST = f"test {NAME.replace('_', ' ')}"


def test_times_are_measured_alternately():
    order = []

    def function(name, seconds):
        return lambda: (order.append(name), seconds)[1]

    timed = {"baseline": function("baseline", 0.02), "tuned": function("tuned", 0.01)}
    seconds = measure.compare_seconds(timed, 1000, rounds=5)
    assert order == ["baseline", "tuned"] * 6
    assert seconds == {"baseline": 20, "tuned": 10, "ratio": 2, "ratio_low": 2, "ratio_high": 2}


BEFORE = {"units": 512, "dropout": 0.2}
DEFAULTS = {"parameters": 1.0, "training": (1.0, 0.9, 1.1), "epochs": (5, 5), "margin": 0.003}


def compared(verdict: str, interval: tuple[float, float, float], settled=None, **changes) -> dict:
    """What `compare` returns for an interval, a ratio of parameters and ratios of training times."""
    given = {**DEFAULTS, **changes}
    estimate, low, high = interval
    ratios = dict(zip(("ratio", "ratio_low", "ratio_high"), given["training"], strict=True))
    return {
        "verdict": verdict,
        "superior": "yes" if low > 0 else "no",
        "worse": "yes" if high < 0 else "no",
        "margin": given["margin"],
        "epochs": dict(zip(("baseline", "tuned"), given["epochs"], strict=True)),
        f"test_{NAME}": {"difference": estimate, "low": low, "high": high},
        "parameters": {"ratio": given["parameters"]},
        "seconds_per_training": ratios,
        **dict(zip(("probability_within_margin", "replicates_to_settle"), settled or (), strict=False)),
    }


ABOUT = "trained in 0.9 to 1.1 times the time"


@pytest.mark.parametrize(
    ("tuned", "found", "sentence"),
    [
        (
            {**BEFORE, "units": 208},
            compared("non_inferior", (-0.0004, -0.0017, 0.0009), parameters=2.46, training=(2.0, 1.9, 2.1)),
            "units 208 instead of units 512: 59 % fewer parameters, trained in 0.5 of the time, "
            f"{TEST} -0.0004 (95 % interval -0.0017 to +0.0009): not inferior by more than 0.003",
        ),
        (
            {**BEFORE, "units": 500},
            compared("non_inferior", (0, -0.001, 0.001), parameters=1.1, training=(1.02, 1.01, 1.03)),
            "units 500 instead of units 512: 9 % fewer parameters, trained in about the same time, "
            f"{TEST} +0.0000 (95 % interval -0.0010 to +0.0010): not inferior by more than 0.003",
        ),
        (
            {**BEFORE, "units": 500},
            compared("non_inferior", (0, -0.001, 0.001), parameters=1.1, training=(1.01, 0.98, 1.03)),
            "units 500 instead of units 512: 9 % fewer parameters, trained in about the same time, "
            f"{TEST} +0.0000 (95 % interval -0.0010 to +0.0010): not inferior by more than 0.003",
        ),
        (
            {**BEFORE, "units": 48},
            compared("inferior", (-0.04, -0.05, -0.03), parameters=10, training=(2.94, 2.8, 3.0)),
            "units 48 instead of units 512: 90 % fewer parameters, trained in 0.3 of the time, "
            f"{TEST} -0.0400 (95 % interval -0.0500 to -0.0300): inferior by more than 0.003",
        ),
        (
            {"units": 16, "dropout": 0.5},
            compared("inferior", (-0.04, -0.05, -0.03), parameters=32, training=(0.4, 0.3, 0.5)),
            "units 16, dropout 0.5 instead of units 512, dropout 0.2: 97 % fewer parameters, trained in 2.5 "
            f"times the time, {TEST} -0.0400 (95 % interval -0.0500 to -0.0300): inferior by more than 0.003",
        ),
        (
            BEFORE,
            compared("non_inferior", (0, 0, 0)),
            f"the same hyperparameters: as many parameters, {ABOUT}, "
            f"{TEST} +0.0000 (95 % interval +0.0000 to +0.0000): not inferior by more than 0.003",
        ),
        (
            {**BEFORE, "units": 1024},
            compared("non_inferior", (0.002, 0.001, 0.003), parameters=0.5),
            f"units 1024 instead of units 512: 100 % more parameters, {ABOUT}, {TEST} +0.0020 "
            "(95 % interval +0.0010 to +0.0030): not inferior by more than 0.003, and superior",
        ),
        (
            {"units": 64},
            compared("non_inferior", (-0.002, -0.0025, -0.001), parameters=8, epochs=(5, 12)),
            "units 64, 12 epochs instead of units 512, dropout 0.2, 5 epochs: 88 % fewer parameters, "
            f"{ABOUT}, {TEST} -0.0020 (95 % interval -0.0025 to -0.0010): not inferior by more than 0.003, "
            "but worse by 0.0010 to 0.0025",
        ),
        (
            {**BEFORE, "momentum": 0.9},
            compared("inconclusive", (-0.002, -0.004, 0.0), (0.841, 12)),
            f"momentum 0.9 instead of nothing: as many parameters, {ABOUT}, {TEST} -0.0020 (95 % interval "
            "-0.0040 to +0.0000): open whether worse by more than 0.003 (at 84 % confidence it is not; 12 "
            "trainings of each with another seed would probably settle it)",
        ),
        (
            {"units": 512},
            compared("inconclusive", (-0.003, -0.005, -0.001), (0.5, None)),
            f"nothing instead of dropout 0.2: as many parameters, {ABOUT}, {TEST} -0.0030 (95 % interval "
            "-0.0050 to -0.0010): worse by 0.0010 to 0.0050; open whether by more than 0.003 "
            "(at 50 % confidence it is not; more trainings would not settle it)",
        ),
        (
            BEFORE,
            compared("non_inferior", (0.0, -0.001, 0.001), epochs=(5, 9)),
            f"9 epochs instead of 5 epochs: as many parameters, {ABOUT}, {TEST} +0.0000 (95 % interval "
            "-0.0010 to +0.0010): not inferior by more than 0.003",
        ),
    ],
)
def test_the_sentence(tuned, found, sentence):
    assert " ".join(comparison.sentence(found, BEFORE, tuned)) == sentence


class Measured:
    """A stand-in for a runner that measures sizes and times."""

    def ask(self, task, networks):
        times = dict.fromkeys(("baseline", "tuned", "ratio", "ratio_low", "ratio_high"), 1.0)
        sizes = {"parameters": {"baseline": 100, "tuned": 50}}
        return sizes | dict.fromkeys(("seconds_per_epoch", "seconds_per_training"), times)


@pytest.mark.parametrize(
    ("margin", "examples", "right_or_wrong", "note"),
    [
        (
            0.003,
            360,
            True,
            "note: compare.margin 0.003 is 1.08 of 360 test examples; fewer than 10 decide little",
        ),
        (0.003, 360, False, ""),
        (0.003, 4000, True, ""),
        (2**-5, 320, True, ""),  # exactly 10
    ],
)
def test_a_margin_of_a_few_answers_is_noted(
    tmp_path, monkeypatch, capsys, margin, examples, right_or_wrong, note
):
    settings = load(ROOT / "params.yaml")
    compare = settings.compare.model_copy(update={"margin": margin})
    settings = settings.model_copy(update={"compare": compare})
    monkeypatch.chdir(tmp_path)
    labels = np.arange(examples) % 2
    for folder in (splits.TRAINING, splits.TEST):
        splits.save(folder, (Split(np.zeros(examples), labels), np.arange(examples)))
    splits.write_about(examples, 0, True, [])
    for name, share in (("baseline", 1.0), ("retrain", 0.9)):
        (tmp_path / "data" / name).mkdir(parents=True)
        rng = np.random.default_rng(1)
        scores = rng.random((6, examples)) < share if right_or_wrong else share * rng.random((6, examples))
        np.save(tmp_path / f"data/{name}/scores.npy", scores)
    np.save(tmp_path / "data/retrain/predictions.npy", labels[None])
    found = comparison.compare(settings, {**settings.baseline, "units": 1}, 5, Measured())
    assert found["verdict"] == "inferior"
    assert capsys.readouterr().err.rpartition(":")[0] == note


def test_a_margin_is_not_counted_in_groups_or_parts_of_examples(tmp_path, monkeypatch, capsys):
    """Nor if both networks are the same: they differ by 0, and neither is superior or worse."""
    settings = load(ROOT / "params.yaml")
    monkeypatch.chdir(tmp_path)
    for folder in (splits.TRAINING, splits.TEST):
        splits.save(folder, (Split(np.zeros(200), np.arange(200) % 2), np.arange(200)))
    splits.write_about(200, 0, True, [])
    (tmp_path / "data/retrain").mkdir(parents=True)
    (tmp_path / "data/baseline").mkdir()
    np.save(tmp_path / "data/retrain/predictions.npy", (np.arange(200) % 2)[None])
    for parts, changed in ((10, {"units": 1}), (200, {})):
        for name in ("baseline", "retrain"):
            np.save(tmp_path / f"data/{name}/scores.npy", np.ones((6, parts)))
        tuned, epochs = {**settings.baseline, **changed}, settings.train.epochs
        found = comparison.compare(settings, tuned, epochs, Measured())
        assert capsys.readouterr().err == ""
    assert [found[name] for name in ("verdict", "superior", "worse")] == ["non_inferior", "no", "no"]
    assert [found[f"test_{NAME}"][name] for name in ("low", "high")] == [0, 0]


def test_the_answer_has_the_difference_and_shares_of_the_baseline():
    """Ratios are baseline to tuned, so that the lower end of a ratio is the upper end of a share."""
    times = {"baseline": 4, "tuned": 2, "ratio": 2, "ratio_low": 1.6, "ratio_high": 2.5}
    compared = {
        "verdict": "inferior",
        "margin": 0.003,
        f"test_{NAME}": {"baseline": 0.9, "tuned": 0.8, "difference": -0.1, "low": -0.2, "high": -0.01},
        "epochs": {"baseline": 5, "tuned": 5},
        "parameters": {"baseline": 300, "tuned": 100, "ratio": 3},
        "seconds_per_epoch": times,
        "seconds_per_training": times,
    }
    assert comparison.answer(compared).astype(object).fillna("").to_numpy().tolist() == [
        [f"test_{NAME}", -0.1, -0.2, -0.01, 0.003, "inferior"],
        ["parameters", 33.33, "", "", "", ""],
        ["seconds_per_training", 50, 40, 62.5, "", ""],
    ]


def test_the_sentence_has_as_many_digits_as_the_margin_asks_for():
    found = compared("non_inferior", (-1.234, -1.9, 40.749), parameters=0.01064, margin=2)
    assert comparison.sentence(found, BEFORE, {**BEFORE, "units": 4096})[1:] == [
        "94 times as many parameters,",
        f"{ABOUT},",
        f"{TEST} -1.2",
        "(95 % interval -1.9 to +40.7):",
        "not inferior by more than 2",
    ]


@pytest.mark.parametrize(
    ("ratio", "words"),
    [
        *((300, "more than 99 % fewer"), (150, "99 % fewer"), (1.231, "19 % fewer"), (1.001, "as many")),
        *((0.8, "25 % more"), (0.5, "100 % more"), (0.25, "4 times as many")),
    ],
)
def test_how_many_fewer(ratio, words):
    """A network never has 100 % fewer, as it would have none."""
    assert comparison.fewer(ratio) == words


@pytest.mark.parametrize(
    ("scale", "form"),
    [(0.003, ".4f"), (0.02, ".3f"), (0.5, ".2f"), (2, ".1f"), (1000, ".0f"), (0, ".4f"), (2e-17, ".4f")],
)
def test_a_number_is_shown_to_two_digits_of_what_it_is_read_against(scale, form):
    assert decimals(scale) == form


@pytest.mark.parametrize(
    ("epochs", "words"), [(1, "6 trainings of 1 epoch,"), (5, "6 trainings of 5 epochs,")]
)
def test_a_result_counts_in_words(epochs, words):
    test = {"mean": 0.98, "std": 0.002}
    metrics = {
        "hyperparameters": {},
        "parameters": 7,
        "replicates": 6,
        "epochs": epochs,
        f"test_{NAME}": test,
    }
    assert words in result_line("retrain", metrics)


SOFTMAX = np.float32([[0.2, 0.5, 0.3], [0.6, 0.3, 0.1]])


@pytest.mark.parametrize(
    ("outputs", "labels", "expected"),
    [
        (SOFTMAX, np.int32([1, 2]), np.int32([1, 0])),
        (np.float32([[0.4], [0.6]]), np.int32([1, 1]), np.int32([0, 1])),
        (np.float32([0.4, 0.6]), np.int32([1, 1]), np.int32([0, 1])),
        (np.float32([0.4, -0.6]), np.int32([1, 1]), np.int32([1, 0])),
        (np.float32([[1.5], [-2.5]]), np.float32([1, 2]), np.float32([1.5, -2.5])),
        (np.float32([1.5, -2.5]), np.float32([1, 2]), np.float32([1.5, -2.5])),
        (SOFTMAX, np.zeros((2, 3), np.float32), SOFTMAX),
        (SOFTMAX, np.zeros((2, 3), np.int32), np.int32([[0, 0, 0], [1, 0, 0]])),
        (SOFTMAX, np.int32([[0, 1, 2], [1, 2, 3]]), SOFTMAX),
        (SOFTMAX[..., None], np.ones((2, 3), np.int32), np.int32([[0, 0, 0], [1, 0, 0]])),
        (SOFTMAX, np.float32([1, 2]), np.float32([0.2, 0.6])),
        (np.stack([SOFTMAX, SOFTMAX[::-1]]), np.int32([[0, 1], [1, 2]]), np.int32([[1, 0], [0, 1]])),
    ],
    ids=[
        *("softmax", "one sigmoid", "one sigmoid, flat", "logits", "a number", "a number, flat"),
        *("several numbers", "several sigmoids", "counts", "a mask", "a mean and its deviation", "tokens"),
    ],
)
def test_what_a_network_predicts(outputs, labels, expected):
    """The second network has the outputs of the first in reverse order."""
    found = predicted(np.stack([outputs, outputs[::-1]]), labels)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, np.stack([expected, expected[::-1]]))


@pytest.fixture
def tested(tmp_path, monkeypatch):
    """A function that writes test labels and their predictions, and returns the table of both."""
    monkeypatch.chdir(tmp_path)

    def run(labels: np.ndarray, predictions: np.ndarray, class_names=()) -> list[tuple]:
        rows = np.arange(len(labels))
        for folder in (splits.TRAINING, splits.TEST):
            splits.save(folder, (Split(np.zeros(len(labels)), labels), rows))
        splits.write_about(len(labels), 0, True, list(class_names))
        (tmp_path / "data/retrain").mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / "data/retrain/predictions.npy", predictions[None])
        table = comparison.predictions()
        return list(table), [tuple(row) for row in table.to_numpy().tolist()]

    return run


def test_the_table_of_classes_has_each_pair_with_its_name(tested):
    columns, found = tested(np.int32([0, 1, 1, 1]), np.int32([0, 1, 0, 1]), ["no", "yes"])
    assert columns == ["actual", "predicted", "examples"]
    assert found == [("no", "no", 1), ("no", "yes", 0), ("yes", "no", 1), ("yes", "yes", 2)]


def test_names_of_several_labels_are_not_taken_for_those_of_yes_and_no(tested):
    _, found = tested(np.int32([[0, 1], [1, 1]]), np.int32([[0, 1], [0, 1]]), ["cat", "dog"])
    assert found == [(0, 0, 1), (0, 1, 0), (1, 0, 1), (1, 1, 2)]
    _, found = tested(np.int32([[0, 1, 1]]), np.int32([[0, 1, 0]]), ["no", "yes"])  # for three labels
    assert found == [("no", "no", 1), ("no", "yes", 0), ("yes", "no", 1), ("yes", "yes", 1)]


def test_the_table_of_masks_has_each_pair_of_their_pixels(tested):
    masks = np.int32([[[0, 2], [2, 1]]])
    _, found = tested(masks, np.int32([[[0, 2], [1, 1]]]), ["sky", "tree", "car"])
    counts = {(actual, predicted): n for actual, predicted, n in found if n}
    assert len(found) == 9
    assert counts == {("sky", "sky"): 1, ("car", "car"): 1, ("car", "tree"): 1, ("tree", "tree"): 1}


def test_labels_that_the_loss_ignores_are_in_no_table(tested):
    _, pairs = tested(np.int32([[[0, -1], [1, 1]]]), np.int32([[[0, 1], [1, 0]]]))
    assert pairs == [(0, 0, 1), (0, 1, 0), (1, 0, 1), (1, 1, 1)]


def test_the_table_of_very_many_classes_has_the_most_frequent_mistakes(tested, capsys):
    """All pairs of 8,000 classes would be 64 million rows. A class without training labels is left out."""
    labels = np.arange(8000, dtype=np.int32)
    predicted = labels.copy()
    predicted[:3], labels[:3], predicted[3] = 7999, 5, 9000
    _, found = tested(labels, predicted)
    assert found == [(5, 5, 1), (7999, 7999, 1), (5, 7999, 3)]
    assert capsys.readouterr().err == (
        "note: metrics/plots/confusion.csv has the 1 most frequent mistakes among 8,000 classes\n"
    )
    actual = np.repeat(np.arange(8000, dtype=np.int32), 2)
    _, found = tested(actual, (actual + 1 + np.arange(16_000, dtype=np.int32) % 2) % 8000)
    assert found[:27] == [(i, i, 0) for i in range(27)]  # both axes of the plot have this order
    assert found[27:30] == [(0, 1, 1), (0, 2, 1), (1, 2, 1)]
    assert len(found) == 27 + comparison.MOST_CLASSES // 2


def test_the_table_of_very_many_numbers_has_some_of_them(tested, monkeypatch):
    labels = np.arange(12, dtype=np.float32).reshape(6, 2)
    monkeypatch.setattr(comparison, "MOST_POINTS", 4)
    columns, found = tested(labels, labels + 0.5)
    assert columns == ["actual", "predicted"]
    assert found == [(0, 0.5), (3, 3.5), (7, 7.5), (11, 11.5)]


@pytest.mark.parametrize(("groups", "most"), [(None, 120), (np.arange(120) // 2, 60)])
def test_a_baseline_has_a_score_for_each_test_example_or_group_or_part_of_these(
    tmp_path, monkeypatch, groups, most
):
    settings = load(ROOT / "params.yaml")
    monkeypatch.chdir(tmp_path)
    splits.save(splits.TEST, (Split(np.zeros(120), np.zeros(120), groups=groups), np.arange(120)))
    trained = {"epochs": settings.train.epochs, "seed": settings.seed}
    write_json(Path("data/baseline/network.json"), {"hyperparameters": settings.baseline, **trained})
    for count in (most, 50):
        np.save("data/baseline/scores.npy", np.zeros((settings.train.replicates, count)))
        comparison.check(settings)
    np.save("data/baseline/scores.npy", np.zeros((settings.train.replicates, 119)))
    what = "test examples" if groups is None else "groups of test examples"
    asked = f"train.replicates and the {what} ask for {settings.train.replicates} x {most}; `dvc repro base"
    with pytest.raises(
        UserError, match=f"scores.npy holds {settings.train.replicates} x 119 scores, but {asked}"
    ):
        comparison.check(settings)


class Own(keras.layers.Layer):
    """A layer whose code a `.keras` file does not contain."""

    def call(self, inputs):
        return 2 * inputs


def test_a_model_file_that_keras_cannot_load_is_written_with_the_reason(tmp_path):
    for layer, loadable in ((keras.layers.Dense(2), True), (Own(), False)):
        made = keras.Sequential([keras.Input((3,)), layer])
        content, reason = measure.keras_file(made)
        (tmp_path / "model.keras").write_bytes(content)
        assert (reason is None) is loadable
        if loadable:
            assert keras.models.load_model(tmp_path / "model.keras").count_params() == 8
        else:
            assert "Own" in reason
            assert "\n" not in reason
        assert measure.keras_file(made)[0] == content


class Unsaved(keras.Model):
    """A model that Keras cannot save, because of its constructor's argument."""

    def __init__(self, table):
        super().__init__()
        self.table = self.add_weight(shape=table.shape)

    def call(self, inputs):
        return inputs @ self.table


def test_a_model_that_keras_cannot_save_is_left_out_with_a_warning(tmp_path, capsys):
    made = Unsaved(np.zeros((3, 2)))
    made(np.zeros((1, 3)))
    content, reason = measure.keras_file(made)
    assert content == b""
    assert "get_config" in reason
    (tmp_path / "model.keras").write_bytes(b"an older one")
    save_model(tmp_path / "model.keras", content, reason)
    assert not list(tmp_path.iterdir())
    assert re.fullmatch(
        r"warning: \S+/model.keras cannot be saved \(.+\); put @.+\n", capsys.readouterr().err
    )


@pytest.fixture
def final():
    """A session of the final trainings on digits, and a job of one epoch."""
    parts = dict(zip(("training", "test"), trainings.digits(), strict=True))
    digests = {name: splits.digest(part) for name, part in parts.items()}
    rows = np.arange(500)
    data = {name: part.arrays for name, part in parts.items()}
    session = Session(data, digests, {"rows": (rows, rows[:0])}, early_stopping=None)
    job = {"key": "key", "hyperparameters": HYPERPARAMETERS, "seed": 1, "subset": "rows", "epochs": 1}
    return session, job | {"all_epochs": 1, "checkpoint": None, "seconds": 100, "model": False}


def test_averaged_weights_are_tested_and_saved_as_fit_leaves_them(final, monkeypatch, tmp_path):
    session, job = final

    def build(shapes, outputs, hyperparameters):
        made = trainings.build(shapes, outputs, hyperparameters)  # which asks for the rate of its optimizer
        made.compile(keras.optimizers.SGD(0.5, use_ema=True, ema_momentum=0.9), loss=made.loss)
        made.layers[2].rate = 0.0
        return made

    monkeypatch.setattr(model, "build", build)
    job["hyperparameters"] = {**HYPERPARAMETERS, "batch_size": 50}
    tested = measure.test(session, job | {"model": True})["test"]
    fitted = session.build(job["hyperparameters"], 1, 500, 1)
    rows = np.random.default_rng([1, 0, 0]).permutation(500)
    training, test = (session.data[name] for name in ("training", "test"))
    fitted.fit(training.inputs[rows], training.labels[rows], batch_size=50, shuffle=False, verbose=0)
    expected = fitted.predict(test.inputs, verbose=0)
    np.testing.assert_allclose(tested["outputs"], expected, atol=1e-4)
    (tmp_path / "model.keras").write_bytes(tested["model"])
    saved = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(saved.predict(test.inputs, verbose=0), expected, atol=1e-4)


def test_a_network_that_draws_random_numbers_is_tested_the_same_whatever_was_before(final, monkeypatch):
    """One example is dropout that stays on in predictions (Gal and Ghahramani 2016)."""

    class Always(keras.layers.Dropout):
        def call(self, inputs, training=False):
            return super().call(inputs, training=True)

    def build(shapes, outputs, hyperparameters):
        made = trainings.build(shapes, outputs, hyperparameters)
        inputs = keras.Input(shapes)
        drawn = keras.Model(inputs, made(Always(0.5)(inputs)))
        drawn.compile("sgd", loss=made.loss)
        return drawn

    monkeypatch.setattr(model, "build", build)
    session, job = final
    outputs = []
    for seed in (1, 2, 1):
        outputs.append(measure.test(session, job | {"seed": seed})["test"]["outputs"])
    np.testing.assert_array_equal(outputs[0], outputs[2])
    assert not np.array_equal(outputs[0], outputs[1])


def test_a_test_score_that_is_not_finite_fails_the_training(final, monkeypatch):
    """An AUC without positives, for example, is NaN."""
    session, job = final
    parts = session.data
    tested = measure.test(session, job)["test"]
    assert tested["scores"].shape == (len(parts["test"].labels),)
    session.data["test"] = replace(parts["test"], groups=np.arange(360) // 36)
    of_groups = tested["scores"].reshape(10, 36).mean(1)
    assert measure.test(session, job)["test"]["scores"] == pytest.approx(of_groups, rel=1e-12)
    monkeypatch.setattr(measure.evaluation, "values", lambda *_: np.array([1.0, np.nan]))
    assert measure.test(session, job) == {"failure": f"test_{NAME} is not finite after epoch 1"}
    monkeypatch.setattr(measure.evaluation, "values", lambda *_: np.zeros(3) @ np.zeros(2))
    assert measure.test(session, job)["failure"].startswith("ValueError: ")


def test_times_and_sizes_of_both_networks_are_measured(monkeypatch):
    """Predictions are for 1000 examples, even if the test part has fewer. Each network has its batch size.

    The part of an epoch that is timed has 20 batches of the larger size.
    """
    parts = dict(zip(("training", "test"), trainings.digits(), strict=True))
    digests = {name: splits.digest(part) for name, part in parts.items()}
    data = {name: part.arrays for name, part in parts.items()}
    session = Session(data, digests, {}, early_stopping=None)
    sizes, original, batches = set(), measure.predictor, []

    def recording(network):
        predict = original(network)
        return lambda inputs: (sizes.add(len(inputs)), predict(inputs))

    def trainer(network, part, **options):
        batches.append((options["batch_size"], len(part.rows)))
        return measure_trainer(network, part, **options)

    measure_trainer = measure.Trainer
    monkeypatch.setattr(measure, "predictor", recording)
    monkeypatch.setattr(measure, "Trainer", trainer)
    small = {**HYPERPARAMETERS, "units": 16, "batch_size": 64}
    large = {**HYPERPARAMETERS, "units": 512, "batch_size": 8}
    networks = {
        "baseline": {"hyperparameters": large, "epochs": 6},
        "tuned": {"hyperparameters": small, "epochs": 2},
    }
    measured = measure.compare(session, {"networks": networks})
    assert (sizes, batches) == ({1000}, [(8, 1280), (64, 1280)])
    assert measured["parameters"] == {"baseline": 38_410, "tuned": 1_210}
    epoch, training = measured["seconds_per_epoch"], measured["seconds_per_training"]
    assert epoch["ratio"] > 1
    for name, factor in (("baseline", 6), ("tuned", 2), ("ratio", 3), ("ratio_low", 3), ("ratio_high", 3)):
        assert training[name] == pytest.approx(factor * epoch[name], rel=1e-3)


@pytest.mark.parametrize(("batch_size", "steps"), [(32, 45), (512, 3), (5000, 1)])
def test_the_seconds_of_an_epoch_are_those_of_its_steps(monkeypatch, batch_size, steps):
    """A fortieth of few examples may be less than a batch: 1,437 digits are only three batches of 512."""
    parts = dict(zip(("training", "test"), trainings.digits(), strict=True))
    digests = {name: splits.digest(part) for name, part in parts.items()}
    session = Session({name: part.arrays for name, part in parts.items()}, digests, {}, early_stopping=None)

    class OneSecondAStep:
        def __init__(self, network, part, *, batch_size):
            self.steps = -(-len(part.rows) // batch_size)

        def train_epoch(self, seed, epoch, history):
            return self.steps

    monkeypatch.setattr(measure, "Trainer", OneSecondAStep)
    network = {"hyperparameters": {**HYPERPARAMETERS, "batch_size": batch_size}, "epochs": 1}
    measured = measure.compare(session, {"networks": {"baseline": network, "tuned": network}})
    assert measured["seconds_per_epoch"]["tuned"] == pytest.approx(steps, rel=0.05)
