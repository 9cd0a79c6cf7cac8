"""Small forks: a network, data and a score of another kind each, by the real stages on real workers."""

import importlib
import json
import re
import shutil
import textwrap
from contextlib import nullcontext
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import OWN, ROOT
from sklearn.datasets import load_digits

from stages.base.splits import Split
from stages.compute import code
from stages.datasets import catalog
from stages.datasets.dataset import Dataset
from stages.training import evaluation

DIGITS = load_digits()
IMAGES, CLASSES = DIGITS.images[:400].astype(np.uint8), DIGITS.target[:400].astype(np.int32)
TOKENS = IMAGES.reshape(400, 64)[:, ::4].astype(np.int32)
NUMBERS = IMAGES.reshape(400, 64).astype(np.float32) / 16
SERIES = np.sin(np.arange(400)[:, None] / 9 + np.arange(24) / 3).astype(np.float32)


@dataclass
class Fork:
    """What a fork changes: `build`, the data, params.yaml and perhaps the score."""

    name: str
    build: str
    inputs: object
    labels: np.ndarray
    baseline: dict
    space: dict
    strategy: str = "grid"
    weights: np.ndarray | None = None
    groups: np.ndarray | None = None
    own_validation: bool = False
    score: str = ""
    objects: str = ""
    expected: dict = field(default_factory=dict)
    compared: bool = False  # whether it is retrained too

    def part(self, rows) -> Split:
        """These rows of its data."""
        inputs = self.inputs
        of_inputs = {k: v[rows] for k, v in inputs.items()} if isinstance(inputs, dict) else inputs[rows]
        optional = (None if array is None else array[rows] for array in (self.weights, self.groups))
        return Split(of_inputs, self.labels[rows], *optional)

    def dataset(self, _raw) -> Dataset:
        """All but the last 100 examples to train on, of which some may be a validation part."""
        if self.own_validation:
            parts = self.part(slice(240)), self.part(slice(240, 300))
            return Dataset(parts[0], self.part(slice(300, None)), {}, validation=parts[1])
        return Dataset(self.part(slice(300)), self.part(slice(300, None)), {})


UNITS = {"units": {"type": "choice", "values": [8, 16]}}
DENSE = """
    def build(shapes, outputs, hyperparameters):
        layers = keras.layers
        model = keras.Sequential([
            keras.Input(shapes),
            layers.Flatten(),
            layers.Dense(hyperparameters.units, "relu"),
            layers.Dense({outputs}, "{activation}"),
        ])
        model.compile(keras.optimizers.Adam(0.01), loss="{loss}")
        return model
"""
FORKS = [
    Fork(
        "several labels",
        DENSE.format(outputs="outputs", activation="sigmoid", loss="binary_crossentropy"),
        NUMBERS,
        np.stack([CLASSES % 2, CLASSES > 4, CLASSES % 3 == 0], 1).astype(np.uint8),
        {"units": 8},
        UNITS,
        score="((outputs > 0.5) == labels).mean(1)",
    ),
    Fork(
        "one sigmoid",
        DENSE.format(outputs="1", activation="sigmoid", loss="binary_crossentropy"),
        NUMBERS,
        (CLASSES > 4).astype(np.int64),
        {"units": 8},
        UNITS,
        score="(outputs[:, 0] > 0.5) == labels",
        expected={"classes": 2},
    ),
    Fork(
        "two inputs of different types",
        """
        def build(shapes, outputs, hyperparameters):
            layers = keras.layers
            inputs = {
                "image": keras.Input(shapes["image"], dtype="uint8"),
                "tokens": keras.Input(shapes["tokens"], dtype="int32"),
            }
            image = layers.Flatten()(layers.Rescaling(1 / 16)(inputs["image"]))
            tokens = layers.Flatten()(layers.Embedding(17, 4)(inputs["tokens"]))
            hidden = layers.Dense(hyperparameters.units, "relu")(layers.concatenate([image, tokens]))
            model = keras.Model(inputs, layers.Dense(outputs, "softmax")(hidden))
            model.compile("adam", loss="sparse_categorical_crossentropy")
            return model
        """,
        {"image": IMAGES, "tokens": TOKENS},
        CLASSES,
        {"units": 8},
        UNITS,
        expected={"classes": 10},
        compared=True,
    ),
    Fork(
        "tokens, and a schedule of the learning rate",
        """
        def build(shapes, outputs, hyperparameters, *, steps_per_epoch, epochs):
            layers = keras.layers
            model = keras.Sequential([
                keras.Input(shapes, dtype="int32"),
                layers.Embedding(17, hyperparameters.width),
                layers.Flatten(),
                layers.Dense(outputs, "softmax"),
            ])
            schedule = keras.optimizers.schedules.CosineDecay(0.01, steps_per_epoch * epochs)
            model.compile(keras.optimizers.Adam(schedule), loss="sparse_categorical_crossentropy")
            return model
        """,
        TOKENS,
        CLASSES,
        {"width": 4},
        {"width": {"type": "int", "min": 2, "max": 4, "step": 2}},
        strategy="hyperband",
        compared=True,
    ),
    Fork(
        "a label for each token",
        """
        def build(shapes, outputs, hyperparameters):
            layers = keras.layers
            model = keras.Sequential([
                keras.Input(shapes, dtype="int32"),
                layers.Embedding(17, hyperparameters.width),
                layers.Dense(3, "softmax"),
            ])
            model.compile("adam", loss="sparse_categorical_crossentropy")
            return model
        """,
        TOKENS,
        TOKENS % 3,
        {"width": 4},
        {"width": {"type": "choice", "values": [2, 4]}},
        weights=np.linspace(0, 2, 400, dtype=np.float32),
        score="(outputs.argmax(2) == labels).mean(1)",
        compared=True,
    ),
    Fork(
        "a forecast, with a validation part of its own",
        DENSE.format(outputs="outputs", activation="linear", loss="mean_squared_error"),
        SERIES[:, :12],
        SERIES[:, 12:],
        {"units": 8},
        UNITS,
        own_validation=True,
        score="-((labels - outputs) ** 2).mean(1)",
        compared=True,
    ),
    Fork(
        "groups, in folds",
        DENSE.format(outputs="1", activation="linear", loss="mean_squared_error"),
        NUMBERS,
        CLASSES.astype(np.float64),
        {"units": 8},
        UNITS,
        strategy="sklearn",
        groups=np.arange(400) // 20,
        score="-abs(labels - outputs[:, 0])",
    ),
    Fork(
        "conditional layers, and the batch size in the space",
        """
        def build(shapes, outputs, hyperparameters):
            layers = keras.layers
            hidden = [getattr(hyperparameters, f"units_{i + 1}") for i in range(hyperparameters.num_layers)]
            model = keras.Sequential([
                keras.Input(shapes),
                layers.Flatten(),
                *[layers.Dense(units, "relu") for units in hidden],
                layers.Dense(outputs, "softmax"),
            ])
            model.compile("adam", loss="sparse_categorical_crossentropy")
            return model
        """,
        NUMBERS,
        CLASSES,
        {"num_layers": 1, "units_1": 8},
        {
            "num_layers": {"type": "int", "min": 1, "max": 2},
            "units_1": {"type": "choice", "values": [8, 16]},
            "units_2": {"type": "choice", "values": [8, 16], "when": {"num_layers": [2]}},
            "batch_size": {"type": "choice", "values": [32, 64]},
        },
    ),
    Fork(
        "a score of the whole set, and weights",
        DENSE.format(outputs="1", activation="sigmoid", loss="binary_crossentropy"),
        NUMBERS,
        (CLASSES % 2).astype(np.int32),
        {"units": 8},
        UNITS,
        weights=np.where(CLASSES == 3, 5.0, 0.5).astype(np.float32),
        score="__import__('sklearn.metrics').metrics.roc_auc_score(labels, outputs[:, 0])",
        expected={"classes": 2},
        compared=True,
    ),
    Fork(
        "a layer, a loss and an optimizer of its own, and images of bytes",
        """
        def build(shapes, outputs, hyperparameters):
            layers = keras.layers
            model = keras.Sequential([
                keras.Input(shapes, dtype="uint8"),
                Scaled(),
                layers.Reshape((*shapes, 1)),
                layers.RandomTranslation(0.1, 0.1),
                layers.Conv2D(hyperparameters.filters, 3, activation="relu"),
                layers.BatchNormalization(),
                layers.GlobalMaxPooling2D(),
                layers.Dense(outputs, "softmax"),
            ])
            model.compile(hyperparameters.optimizer, loss=Smoothed())
            return model
        """,
        IMAGES,
        CLASSES,
        {"filters": 4, "optimizer": "sgd"},
        {"optimizer": {"type": "choice", "values": ["sgd", "rmsprop"]}},
        objects="""
        @keras.saving.register_keras_serializable()
        class Scaled(keras.layers.Layer):
            def call(self, inputs):
                return keras.ops.cast(inputs, "float32") / 16


        @keras.saving.register_keras_serializable()
        class Smoothed(keras.losses.Loss):
            def call(self, y_true, y_pred):
                many = keras.ops.one_hot(keras.ops.cast(y_true, "int32"), y_pred.shape[-1])
                return keras.losses.categorical_crossentropy(many, y_pred, label_smoothing=0.1)
        """,
        expected={"classes": 10},
    ),
]


@pytest.fixture(params=FORKS, ids=lambda fork: fork.name)
def fork(request, tmp_path, client, monkeypatch, capsys):
    """A function that runs a stage of the fork and returns its output."""
    fork = request.param
    shutil.copytree(ROOT / "stages", tmp_path / "stages", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(OWN, tmp_path, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    objects, build = textwrap.dedent(fork.objects), textwrap.dedent(fork.build)
    model = f"from stages.training.backend import keras\n{objects}\n{build}"
    (tmp_path / "stages/training/model.py").write_text(model)
    if fork.score:
        body = f"def score(labels, outputs):\n    return {fork.score}\n"
        (tmp_path / "stages/training/score.py").write_text(f'NAME = "accuracy"\n\n\n{body}')
        functions: dict = {}
        exec(body, functions)  # noqa: S102 - the client's copy of it
        monkeypatch.setattr(evaluation, "score", functions["score"])
    content = yaml.safe_load((tmp_path / "params.yaml").read_text())
    content["prepare"]["dataset"] = "own"
    content["baseline"] = {**fork.baseline, "batch_size": 32}
    content["train"] = {**content["train"], "epochs": 2, "replicates": 5}
    tune = content["tune"] | {"space": fork.space, "strategy": fork.strategy, "max_epochs": 2}
    tune |= {
        "grid": {"max_trials": None},
        "sklearn": {**content["tune"]["sklearn"], "max_trials": 2, "cv": 2},
    }
    content["tune"] = tune | {"hyperband": {"factor": 2, "hyperband_iterations": 1}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(code, "ROOT", tmp_path)
    monkeypatch.setitem(catalog.DATASETS, "own", fork.dataset)

    def run(stage: str) -> str:
        script = importlib.import_module(f"stages.{stage}")
        monkeypatch.setattr(script, "connect", lambda _: nullcontext(client), raising=False)
        script.main()
        captured = capsys.readouterr()
        assert "warning" not in captured.err
        return captured.out

    run.fork, run.folder = fork, tmp_path
    return run


def test_it_goes_through_the_stages(fork):
    fork("prepare")
    prepared = json.loads((fork.folder / "metrics/prepare.json").read_text())
    assert prepared.get("classes") == fork.fork.expected.get("classes", prepared.get("classes"))
    if fork.fork.groups is not None:
        read = np.load(fork.folder / "data/prepared/training/groups.npy")
        assert not {*read[: prepared["train_examples"]]} & {*read[prepared["train_examples"] :]}
    fork("baseline")
    groups = fork.fork.groups
    scores = np.load(fork.folder / "data/baseline/scores.npy")
    assert scores.shape[1] in ((50, 100) if groups is None else (len(set(groups[300:])),))
    predictions = np.load(fork.folder / "data/baseline/predictions.npy")
    assert len(predictions[0]) == 100
    assert len(np.unique(predictions)) > 1
    fork("tune")
    tune = json.loads((fork.folder / "metrics/tune.json").read_text())
    assert tune["failed_trials"] == 0
    assert np.isfinite(tune["score"])
    trials = pd.read_csv(fork.folder / "metrics/plots/trials.csv")
    assert np.isfinite(trials[["val_accuracy", "standard_error"]]).all(axis=None)
    if fork.fork.space.keys() > {"units_2"}:
        assert trials["units_2"].isna().tolist() == (trials["num_layers"] == 1).tolist()
        assert len(trials) == 13
    if fork.fork.compared:
        fork("retrain")
        compared = json.loads((fork.folder / "metrics/comparison.json").read_text())
        score = compared["test_accuracy"]
        assert score["low"] <= score["difference"] <= score["high"]
        assert re.search("instead of|the same hyperparameters", compared["summary"][0])
