"""A fork's other network: only model.py, the hyperparameters' class and params.yaml change, and all works."""

import json
import re

import pandas as pd
import pytest
import yaml

HYPERPARAMETERS = '''
"""Of a convolutional network."""

from typing import Annotated, Literal

from pydantic import Field

from stages.base.section import PositiveInt, Section


class Hyperparameters(Section):
    """Of a convolutional network."""

    filters: PositiveInt
    kernel_size: Annotated[int, Field(ge=1, le=5)]
    optimizer: Literal["adam", "rmsprop", "sgd"]
'''
MODEL = '''
"""A convolutional network, its first layers in a file of their own."""

from stages.base.hyperparameters import Hyperparameters
from stages.training.layers import augmentation
from stages.training.backend import keras


def build(input_shape: tuple[int, ...], outputs: int, hyperparameters: Hyperparameters) -> keras.Model:
    """Return the network, compiled."""
    filters, size = hyperparameters.filters, hyperparameters.kernel_size
    network = keras.Sequential(
        [
            keras.Input(input_shape),
            keras.layers.Reshape((*input_shape, 1)),
            *augmentation(),
            keras.layers.Conv2D(filters, size, padding="same", activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.GlobalMaxPooling2D(),
            keras.layers.Dense(outputs, activation="softmax"),
        ]
    )
    network.compile(hyperparameters.optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return network
'''
LAYERS = '''
"""What model.py imports."""

from stages.training.backend import keras


def augmentation() -> list:
    """Layers that move images a little while training."""
    return [keras.layers.RandomTranslation(0.1, 0.1), keras.layers.GaussianNoise(0.05)]
'''


@pytest.fixture(scope="module")
def fork(make_project, tmp_path_factory):
    """The fork after `dvc repro`."""
    project = make_project(tmp_path_factory.mktemp("fork"))
    for path, content in {
        "base/hyperparameters": HYPERPARAMETERS,
        "training/model": MODEL,
        "training/layers": LAYERS,
    }.items():
        (project.folder / f"stages/{path}.py").write_text(content.lstrip())
    content = yaml.safe_load((project.folder / "params.yaml").read_text())
    content["baseline"] = {"filters": 8, "kernel_size": 3, "optimizer": "adam"}
    content["tune"]["bayesian"]["max_trials"] = 3
    content["tune"]["space"] = {
        "filters": {"type": "int", "min": 2, "max": 6, "step": 2},
        "optimizer": {"type": "choice", "values": ["adam", "rmsprop"]},
    }
    (project.folder / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    project.commit()
    project.output = project.dvc("repro")
    project.commit()
    return project


def test_it_reproduces_and_says_what_it_searched(fork):
    tune = json.loads((fork.folder / "metrics/tune.json").read_text())
    assert list(tune["hyperparameters"]) == ["filters", "kernel_size", "optimizer"]
    assert tune["failed_trials"] == 0
    trials = pd.read_csv(fork.folder / "metrics/plots/trials.csv")
    assert trials["filters"].nunique() > 1
    lines = pd.read_csv(fork.folder / "metrics/plots/space.csv")
    assert set(lines["hyperparameter"]) == {"filters", "optimizer"}
    assert set(lines["dimensions"]) == {2}
    compared = json.loads((fork.folder / "metrics/comparison.json").read_text())
    assert f"comparison: {' '.join(compared['summary'])}" in fork.output
    assert fork.run("dvc", "status").stdout == "Data and pipelines are up to date.\n"


def test_its_experiments_plots_and_report_work_and_an_edit_trains_again(fork):
    output = fork.dvc("exp", "run", "--set-param", "tune.strategy=bayesian", "tune")
    assert re.search(r"; \d+ epochs, [1-9]\d* of them from data/trials", output)
    fork.run("python", "-m", "stages.review.report", "HEAD", "--output", "report")
    report = (fork.folder / "report/report.md").read_text()
    assert "tune.strategy" in report
    assert (fork.folder / "report/metrics-plots-space.png").stat().st_size > 10_000
    # The search's trainings are in the store now, until what its network imports is edited
    layers = fork.folder / "stages/training/layers.py"
    layers.write_text(layers.read_text().replace("0.05", "0.06"))
    assert ", 0 of them from data/trials" in fork.stage("tune").stdout
    fork.run("git", "reset", "--hard", "--quiet")
    fork.dvc("checkout", "--force", "--quiet")


def test_the_tests_of_the_engine_pass_unchanged(fork):
    """Those that build its network."""
    files = (f"tests/test_{name}.py" for name in ("store", "search", "training"))
    chosen = "test_store or cross_validation or classifier or another_seed"
    output = fork.run("python", "-m", "pytest", "-q", "-n0", "-m", "not slow", "-k", chosen, *files).stdout
    assert re.search(r"^[1-9]\d+ passed", output, re.M), output
