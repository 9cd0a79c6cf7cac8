"""Mistakes in params.yaml: one line each, naming the key, the value and what is allowed."""

import json
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from stages.console import UserError
from stages.params import load
from stages.schema import schema

COMMITTED = Path(__file__).parent.parent / "params.yaml"


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A copy of the committed params.yaml, as `params.yaml` of the current folder."""
    monkeypatch.chdir(tmp_path)
    path = Path("params.yaml")
    path.write_text(COMMITTED.read_text())
    return path


def mistake(path: Path) -> str:
    with pytest.raises(UserError) as error:
        load(path)
    return str(error.value)


def set_key(path: Path, key: str, value: object) -> None:
    content = section = yaml.safe_load(path.read_text())
    *parents, last = key.split(".")
    for parent in parents:
        section = section[parent]
    section[last] = value
    path.write_text(yaml.safe_dump(content, sort_keys=False))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "tune.strategy",
            "bayes",
            "tune.strategy is bayes, but should be 'hyperband', 'random', 'bayesian', 'grid' or 'sklearn'",
        ),
        (
            "tune.space.units.min",
            600,
            "tune.space.units is {type: int, min: 600, max: 512, step: 16}, but min 600 should not be greater than max",
        ),
        ("tune.space.units.step", 0, "tune.space.units.step is 0, but should be greater than or equal to 1"),
        ("tune.space.units.type", "integer", "but its type should be one of 'int', 'float', 'choice', 'boolean'"),
        ("tune.space.unit", {"type": "boolean"}, "tune.space.unit is no hyperparameter of the model; use units, dropout"),
        ("tune.space.units", {"type": "choice", "values": [16, "32"]}, "values [16, '32'] should be of one type"),
        ("tune.space.units", {"type": "choice", "values": []}, "should have at least 1 item"),
        (
            "tune.space.dropout",
            {"type": "float", "min": 0.0, "max": 1.0},
            "tune.space.dropout holds 1.0: should be less than 1",
        ),
        (
            "tune.space.units",
            {"type": "float", "min": 1.5, "max": 2.5},
            "tune.space.units holds 1.5: should be a valid integer",
        ),
        (
            "tune.space.learning_rate",
            {"type": "float", "min": 0.0, "max": 0.1, "sampling": "log"},
            "min 0.0 should be greater than 0 with sampling log",
        ),
        ("tune.space", {}, "tune.space is {}, but should have at least 1 item"),
        ("tune.objective", "f1", "tune.objective is f1, but should be 'val_accuracy' or 'val_loss'"),
        ("tune.hyperband.max_trials", 3, "tune.hyperband.max_trials is no key that is known here; use factor, hyperband_iter"),
        ("prepare.validation_split", 1.5, "prepare.validation_split is 1.5, but should be less than 1"),
        ("prepare.dataset", "cifar10", "prepare.dataset is cifar10, but should be 'mnist', 'fashion_mnist' or 'digits'"),
        ("baseline.dropout", float("nan"), "baseline.dropout is .nan, but should be a finite number"),
        ("baseline.learning_rate", float("inf"), "baseline.learning_rate is .inf, but should be a finite number"),
        ("baseline.units", "512", "baseline.units is '512', but should be a valid integer"),
        ("baseline.units", True, "baseline.units is true, but should be a valid integer"),
        ("train.epochs", None, "train.epochs is null, but should be a valid integer"),
        ("train", 5, "train is 5, but should be a section of keys"),
        ("train.replicates", 2, "train.replicates is 2, but should be greater than or equal to 3"),
        ("tune.selection", "smallest", "tune.selection is smallest, but should be 'one_standard_error' or 'best'"),
        ("tune.target_accuracy", 97, "tune.target_accuracy is 97, but should be less than or equal to 1"),
        ("compare.margin", 0.0, "compare.margin is 0.0, but should be greater than 0"),
        ("seed", -1, "seed is -1, but should be greater than or equal to 0"),
    ],
)
def test_a_mistake_is_one_line_that_names_key_value_and_what_is_allowed(path, key, value, message):
    set_key(path, key, value)
    said = mistake(path)
    assert said.startswith("params.yaml: ")
    assert message in said
    assert "\n" not in said


def test_sklearn_refuses_another_objective_than_accuracy(path):
    set_key(path, "tune.strategy", "sklearn")
    set_key(path, "tune.objective", "val_loss")
    assert mistake(path) == (
        "params.yaml: tune.objective is val_loss, but tune.strategy sklearn scores by accuracy; use val_accuracy"
    )


def test_each_of_several_mistakes_has_its_line(path):
    set_key(path, "train.epochs", 0)
    set_key(path, "seed", 1.5)
    assert [line.split(" is ")[0] for line in mistake(path).split("\n")] == [
        "params.yaml: seed",
        "error: params.yaml: train.epochs",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "params.yaml is empty, but should hold the keys seed, prepare,"),
        ("# only a comment\n", "params.yaml is empty"),
        ("- 1\n", "params.yaml holds [1], but should hold the keys"),
        ("seed: [1\nprepare: 2", "params.yaml is not valid YAML: line 2, column 8: "),
        ("seed: 1\n  prepare: 2", "params.yaml is not valid YAML: line 2, column 10: "),
        ("seed: !!python/object/apply:os.getcwd []", "params.yaml is not valid YAML: line 1, column 7: could not determine"),
    ],
)
def test_a_file_that_is_no_params(path, content, message):
    path.write_text(content)
    assert mistake(path).startswith(message)
    assert "\n" not in mistake(path).split("\nerror: ")[0]


def test_a_missing_file_and_a_missing_key(path):
    set_key(path, "seed", 1)
    content = yaml.safe_load(path.read_text())
    del content["baseline"]["units"]
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    assert mistake(path) == "params.yaml: baseline.units is missing; add it"
    path.unlink()
    assert mistake(path).startswith("params.yaml is missing; ")


def test_a_file_that_is_no_text(path):
    path.write_bytes(b"seed: \xff")
    assert mistake(path).startswith("params.yaml is not UTF-8 text")


def test_numbers_are_read_as_dvc_reads_them(path):
    path.write_text(path.read_text().replace("learning_rate: 0.001", "learning_rate: 1e-3"))
    assert load(path).baseline.learning_rate == 0.001


def test_the_schema_is_current_and_says_what_is_allowed(path):
    committed = json.loads((COMMITTED.parent / "params.schema.json").read_text())
    assert committed == schema(), "run `python -m stages.schema`"
    check = Draft202012Validator(committed)
    content = yaml.safe_load(path.read_text())
    assert list(check.iter_errors(content)) == []
    assert path.read_text().startswith("# yaml-language-server: $schema=params.schema.json\n")
    for key, value in (("tune.strategy", "bayes"), ("tune.max_epochs", 0), ("baseline.dropout", 1.0), ("train.epoch", 3)):
        set_key(path, key, value)
        assert not check.is_valid(yaml.safe_load(path.read_text())), key
        path.write_text(COMMITTED.read_text())


def test_a_hyperparameter_is_added_to_the_space_in_one_line(path):
    path.write_text(
        path.read_text().replace("    # dropout:", "    dropout:").replace("    # learning_rate:", "    learning_rate:")
    )
    assert list(load(path).tune.space) == ["units", "dropout", "learning_rate"]
