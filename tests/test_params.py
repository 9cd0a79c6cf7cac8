"""Mistakes in params.yaml: one line each, naming the key, the value and what is allowed."""

import json
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from stages.base.console import UserError
from stages.base.params import load
from stages.review.schema import schema

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
    write_with(path, yaml.safe_load(path.read_text()), key, value)


def write_with(path: Path, content: dict, key: str, value: object) -> None:
    """Write `content` to `path`, with `value` at `key`."""

    def changed(section: dict, name: str, *below: str) -> dict:
        return {**section, name: changed(section[name], *below) if below else value}

    path.write_text(yaml.dump(changed(content, *key.split(".")), Dumper=yaml.CSafeDumper, sort_keys=False))


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
        ("tune.space.unit", {"type": "boolean"}, "tune.space.unit: unknown hyperparameter; use units, dropout"),
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
        ("tune.hyperband.max_trials", 3, "tune.hyperband: unknown key max_trials; use factor, hyperband_iter"),
        ("prepare.validation_split", 1.5, "prepare.validation_split is 1.5, but should be less than 1"),
        ("baseline.dropout", float("nan"), "baseline.dropout is .nan, but should be a finite number"),
        ("baseline.learning_rate", float("inf"), "baseline.learning_rate is .inf, but should be a finite number"),
        ("baseline.units", "512", "baseline.units is '512', but should be a valid integer"),
        ("baseline.units", True, "baseline.units is true, but should be a valid integer"),
        ("train.epochs", None, "train.epochs is null, but should be a valid integer"),
        ("train", 5, "train is 5, but should be a section of keys"),
        ("train.replicates", 4, "train.replicates is 4, but should be greater than or equal to 5"),
        ("tune.selection", "smallest", "tune.selection is smallest, but should be 'tolerance', 'one_standard_error' or 'best'"),
        ("compare.margin", 0.0, "compare.margin is 0.0, but should be greater than 0"),
        ("tune.tolerance", -0.1, "tune.tolerance is -0.1, but should be greater than or equal to 0"),
        ("train.epochs", 10**30, "train.epochs is 1000000000000000000000000000000, but should be less than or equal to 10000"),
        ("runtime.workers", 10**30, "but should be less than or equal to 1024"),
        ("tune.space.units.max", 10**9, "but should be less than or equal to 1000000"),
        ("tune.space.units", {"type": "choice", "values": [[16]]}, "tune.space.units.values.0 is [16], but should be a number"),
        ("tune.strategy", "two\nlines", "tune.strategy is 'two lines', but should be 'hyperband'"),
        ("seed", -1, "seed is -1, but should be greater than or equal to 0"),
    ],
)
def test_a_mistake_is_one_line_that_names_key_value_and_what_is_allowed(path, key, value, message):
    set_key(path, key, value)
    said = mistake(path)
    assert said.startswith("params.yaml: ")
    assert message in said
    assert "\n" not in said


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
        ("seed: !!python/object/apply:os.getcwd []", "params.yaml is not valid YAML: line 1, column 7: the tag tag:yaml.org,"),
    ],
)
def test_a_file_that_is_no_params(path, content, message):
    path.write_text(content)
    assert mistake(path).startswith(message)
    assert "\n" not in mistake(path).split("\nerror: ")[0]


REPLACED = [  # what stands in place of the value of `seed`, and what is said of it
    ("1\nseed: 2", "line {next}, column 1: the key seed stands twice; remove one"),
    ("017", "017 is read in more than one way"),
    ("1:30", "1:30 is read in more than one way"),
    ("1_000", "1_000 is read in more than one way"),
    ("0b11", "0b11 is read in more than one way"),
    ("0x1F", "0x1F is read in more than one way"),
    ("0o17", "seed is 0o17, but should be a valid integer"),
    ("yes", "yes is read in more than one way"),
    ("1_0.5", "1_0.5 is read in more than one way"),
    ("!!int abc", "the tag tag:yaml.org,2002:int is not allowed; remove it"),
    ("!!bool maybe", "the tag tag:yaml.org,2002:bool is not allowed"),
    ("!!timestamp 2026-13-45", "is not allowed"),
    ("2026-13-45", "seed is '2026-13-45', but should be a valid integer"),
    ("2026-11-24", "seed is '2026-11-24', but should be a valid integer"),
    ("9" * 5000, "is read in more than one way"),
    ("[" * 10_000 + "]" * 10_000, "more than 20 levels of nesting"),
    ("{a: " * 10_000 + "1" + "}" * 10_000, "more than 20 levels of nesting"),
    ("&a [1, 1, 1, 1]\nother: [*a, *a]", "anchors and aliases are not allowed; write the value out"),
    ("&a {b: &b 1, <<: *b}", "anchors and aliases are not allowed"),
    ("{<<: {seed: 1}}", "seed is {'<<': {seed: 1}}, but should be a valid integer"),
    ("{[1, 2]: 3}", "a key should be a plain word"),
    ("{1: 2}", "seed is {1: 2}, but should be a valid integer"),
    ("=", "seed is '=', but should be a valid integer"),
    ('"a\\nb\\e[31m"', "but should be a valid integer"),
    ("~", "seed is null, but should be a valid integer"),
    (".inf", "seed is .inf, but should be"),
    ("1e400", "seed is .inf, but should be"),
    ("|\n  a\n  b", "seed is 'a b ', but should be a valid integer"),
]


@pytest.mark.parametrize(("value", "message"), REPLACED, ids=range(len(REPLACED)))
def test_an_odd_value_is_one_line(path, value, message):
    lines = path.read_text().splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("seed:"))
    lines[at] = f"seed: {value}"
    path.write_text("\n".join(lines))
    said = mistake(path)
    assert message.replace("{next}", str(at + 2)) in said
    assert said.startswith("params.yaml")
    assert "\n" not in said
    assert said.isprintable()


def test_a_key_that_stands_twice_in_a_section(path):
    path.write_text(path.read_text().replace("  batch_size: 32", "  batch_size: 32\n  batch_size: 64"))
    assert "the key batch_size stands twice; remove one" in mistake(path)


ODD = [None, True, "x", "", "two\nlines", [], [[]], {}, {"a": {"b": []}}, 0, -1, 10**30, -(10**30), 0.5, float("nan"), 1e308]


def keys(section: dict, above: str = "") -> list[str]:
    """All keys of all sections, as `tune.space.units`."""
    found = []
    for name, value in section.items():
        found += [above + name, *(keys(value, f"{above}{name}.") if isinstance(value, dict) else [])]
    return found


@pytest.mark.parametrize("odd", ODD, ids=range(len(ODD)))
def test_any_odd_value_at_any_key_is_read_or_refused_in_lines(path, odd):
    """Hundreds of files: none makes a traceback, and each line of what is said names the file."""
    content = yaml.safe_load(path.read_text())
    for key in keys(content):
        write_with(path, content, key, odd)
        try:
            load(path)
            said = "params.yaml: nothing"
        except UserError as error:
            said = str(error)
        assert all(line.startswith("params.yaml: ") and line.isprintable() for line in said.split("\nerror: ")), said


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
    assert committed == schema(), "run `python -m stages.review.schema`"
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
