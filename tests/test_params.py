"""Mistakes in params.yaml: one line each, naming the key, the value and what is allowed."""

import json
import math
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from stages.base.console import UserError
from stages.base.params import load
from stages.review.schema import schema

COMMITTED = Path(__file__).parent.parent / "params.yaml"


QUICKSTART = {"units": 512, "dropout": 0.2, "learning_rate": 0.001, "batch_size": 32}


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A copy of the committed params.yaml, as `params.yaml` here; in a fork, with this network's values."""
    monkeypatch.chdir(tmp_path)
    path = Path("params.yaml")
    path.write_text(COMMITTED.read_text())
    if yaml.safe_load(path.read_text())["baseline"] != QUICKSTART:
        set_key(path, "baseline", QUICKSTART)
        set_key(path, "tune.space", {"units": {"type": "int", "min": 16, "max": 512, "step": 16}})
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
            "tune.space.units is {type: int, min: 600, max: 512, step: 16}, "
            "but min 600 should not be greater than max",
        ),
        ("tune.space.units.step", 0, "tune.space.units.step is 0, but should be greater than or equal to 1"),
        (
            "tune.space.units.type",
            "integer",
            "but its type should be one of 'int', 'float', 'choice', 'boolean'",
        ),
        (
            "tune.space.unit",
            {"type": "boolean"},
            "tune.space.unit: unknown hyperparameter; use units, dropout, learning_rate, batch_size, or add",
        ),
        (
            "tune.space.units",
            {"type": "choice", "values": [16, "32"]},
            "values [16, '32'] should be of one type",
        ),
        ("tune.space.units", {"type": "choice", "values": []}, "should have at least 1 item"),
        (
            "tune.space.learning_rate",
            {"type": "float", "min": 0.0, "max": 0.1, "sampling": "log"},
            "min 0.0 should be greater than 0 with sampling log",
        ),
        ("tune.space", {}, "tune.space is {}, but should have at least 1 item"),
        (
            "tune.space.units",
            48,
            "for one value: `dvc exp run -S tune.strategy=grid -S tune.space.units.min=48 "
            "-S tune.space.units.max=48 -S tune.tolerance=1`",
        ),
        ("runtime.store", "~nobody-here/x", "~nobody-here/x, but should be a folder; there is no such user"),
        (
            "tune.hyperband.max_trials",
            3,
            "unknown key tune.hyperband.max_trials; use factor, hyperband_iter",
        ),
        ("prepare.validation_split", 1.5, "prepare.validation_split is 1.5, but should be less than 1"),
        ("baseline.dropout", float("nan"), "baseline.dropout is .nan, but should be a number, text, true or"),
        ("baseline.dropout", float("inf"), "baseline.dropout is .inf, but should be a number, text, true or"),
        ("baseline.dropout", [0.2], "baseline.dropout is [0.2], but should be a number, text, true or false"),
        ("baseline.dropout", None, "baseline.dropout is null, but should be a number, text, true or false"),
        ("baseline.units", "512", "baseline.units is '512', but tune.space says int"),
        ("baseline.units", True, "baseline.units is true, but tune.space says int"),
        ("baseline.units", 512.0, "baseline.units is 512.0, but tune.space says int"),
        ("train.batch_size", 32, "unknown key train.batch_size; use epochs, replicates"),
        ("train.epochs", None, "train.epochs is null, but should be a valid integer"),
        (
            "retrain.epochs",
            "bset",
            "retrain.epochs is bset, but should be 'best' or should be a valid integer",
        ),
        ("baseline.budget", 1, "baseline.budget is a column of metrics/plots/trials.csv; give the hyperp"),
        ("baseline.val_loss", 1, "baseline.val_loss is a column of metrics/plots/trials.csv; give the hy"),
        ("train", 5, "train is 5, but should be a section of keys"),
        ("train.replicates", 4, "train.replicates is 4, but should be greater than or equal to 5"),
        (
            "tune.selection",
            "smallest",
            "tune.selection is smallest, but should be 'tolerance', 'one_standard_error' or 'best'",
        ),
        ("compare.margin", 0.0, "compare.margin is 0.0, but should be greater than 0"),
        ("tune.tolerance", -0.1, "tune.tolerance is -0.1, but should be greater than or equal to 0"),
        (
            "train.epochs",
            10**30,
            "train.epochs is 1000000000000000000000000000000, but should be less than or equal to 10000",
        ),
        ("runtime.workers", 10**30, "but should be less than or equal to 1024"),
        ("tune.space.units.max", 10**9, "but should be less than or equal to 1000000"),
        (
            "tune.space.units",
            {"type": "choice", "values": [[16]]},
            "tune.space.units.values.0 is [16], but should be a number",
        ),
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


TINY, LARGEST = 5e-324, 1_000_000
BAYESIAN = {
    "max_trials": ([1, LARGEST], [0, LARGEST + 1, None]),
    "num_initial_points": ([1, LARGEST, None], [0, LARGEST + 1]),
    "alpha": ([TINY], [0.0, -TINY]),
    "beta": ([0.0], [-TINY]),
    "trials_at_once": ([1, LARGEST], [0, LARGEST + 1, None]),
}
BOUNDS = {  # by key: values that are just allowed, and values that are just not
    "seed": ([0, 2**31 - 1], [-1, 2**31]),
    "prepare.validation_split": ([TINY, math.nextafter(1, 0)], [0.0, 1.0]),
    "baseline.batch_size": ([1, 10**9], [0, -1, 32.0, True, "32"]),
    "train.epochs": ([1, 10_000], [0, 10_001]),
    "train.replicates": ([5, 1000], [4, 1001]),
    "tune.tolerance": ([0.0, 1e6], [-TINY, math.nextafter(1e6, math.inf)]),
    "tune.max_epochs": ([1, 10_000], [0, 10_001]),
    "tune.executions_per_trial": ([1, 1000], [0, 1001]),
    "tune.early_stopping": (
        [{"monitor": "val_loss", "patience": patience} for patience in (1, 10_000)],
        [{"monitor": "val_loss", "patience": patience} for patience in (0, 10_001)],
    ),
    "tune.hyperband.factor": ([2, LARGEST], [1, LARGEST + 1]),
    "tune.hyperband.hyperband_iterations": ([1, LARGEST], [0, LARGEST + 1]),
    "tune.random.max_trials": ([1, LARGEST], [0, LARGEST + 1, None]),
    **{f"tune.bayesian.{name}": bounds for name, bounds in BAYESIAN.items()},
    **{f"tune.sklearn.{name}": bounds for name, bounds in BAYESIAN.items()},
    "tune.sklearn.cv": ([2, 1000], [1, 1001]),
    "tune.grid.max_trials": ([1, LARGEST, None], [0, LARGEST + 1]),
    "retrain.epochs": ([1, 10_000, "best", None], [0, 10_001, "last"]),
    "compare.margin": ([TINY, 1e6], [0.0, math.nextafter(1e6, math.inf)]),
    "runtime.workers": ([1, 1024, None], [0, 1025]),
    "runtime.store_gigabytes": ([TINY], [0.0]),
}


@pytest.mark.parametrize("key", BOUNDS)
def test_a_number_may_be_at_its_bounds_and_not_beyond(path, key):
    allowed, refused = BOUNDS[key]
    for value in allowed:
        set_key(path, key, value)
        read = load(path).model_dump()
        for name in key.split("."):
            read = read[name]
        assert read == value
    for value in refused:
        set_key(path, key, value)
        assert mistake(path).startswith(f"params.yaml: {key}")


def log(kind: str, **changes) -> dict:
    return {"type": kind, "min": 1, "max": 512, "sampling": "log", **changes}


@pytest.mark.parametrize(
    ("name", "dimension"),
    [
        ("units", {"type": "int", "min": 16, "max": 16}),
        ("units", {"type": "int", "min": 16, "max": 32, "step": 1}),
        ("units", {"type": "int", "min": 16, "max": 32, "step": LARGEST}),
        ("units", {"type": "int", "min": 1, "max": LARGEST}),
        ("units", log("int", step=2)),
        ("units", log("int", step=None)),
        ("dropout", {"type": "float", "min": 0.25, "max": 0.25}),
        ("dropout", {"type": "float", "min": 0.0, "max": 0.5, "step": TINY}),
        ("dropout", {"type": "float", "min": 0.0, "max": 0.5, "step": 1.0}),
        ("dropout", {"type": "choice", "values": [0, 1]}),
        ("batch_size", {"type": "int", "min": 1, "max": 1}),
        ("batch_size", {"type": "choice", "values": [1, 2]}),
        ("learning_rate", log("float", step=1.0000001)),
        ("learning_rate", log("float", min=TINY, max=TINY)),
        ("units", {"type": "choice", "values": [16]}),
    ],
)
def test_a_dimension_that_is_just_allowed(path, name, dimension):
    set_key(path, "tune.space", {name: dimension})
    read = load(path).tune.space[name]
    assert read.model_dump(exclude_unset=True) == dimension
    assert getattr(read, "sampling", "linear") == dimension.get("sampling", "linear")


@pytest.mark.parametrize(
    ("name", "dimension", "message"),
    [
        ("units", {"type": "int", "min": 17, "max": 16}, "min 17 should not be greater than max 16"),
        ("dropout", {"type": "float", "min": TINY, "max": 0.0}, "min 5e-324 should not be greater than max"),
        ("units", {"type": "int", "min": 16, "max": 32, "step": 0}, "should be greater than or equal to 1"),
        (
            "units",
            {"type": "int", "min": 16, "max": 32, "step": LARGEST + 1},
            "should be less than or equal to 1000000",
        ),
        ("units", {"type": "int", "min": 16, "max": 32, "step": 1.5}, "should be a valid integer"),
        (
            "units",
            {"type": "int", "min": -LARGEST - 1, "max": 32},
            "should be greater than or equal to -1000000",
        ),
        ("units", {"type": "int", "min": 16, "max": LARGEST + 1}, "should be less than or equal to 1000000"),
        ("units", log("int", min=0), "min 0 should be greater than 0 with sampling log"),
        (
            "dropout",
            log("float", min=-TINY, max=0.5),
            "min -5e-324 should be greater than 0 with sampling log",
        ),
        ("units", log("int", step=1), "step 1 should be greater than 1 with sampling log"),
        ("learning_rate", log("float", step=1.0), "step 1.0 should be greater than 1 with sampling log"),
        ("learning_rate", log("float", step=0.5), "step 0.5 should be greater than 1 with sampling log"),
        (
            "dropout",
            {"type": "float", "min": 0.0, "max": 0.5, "step": 0.0},
            "step is 0.0, but should be greater",
        ),
        ("units", {"type": "choice", "values": [16, 32, 16]}, "values [16, 32, 16] should differ"),
        ("units", {"type": "choice", "values": [16, math.inf]}, "values.1 is .inf, but should be a number"),
        ("units", {"type": "choice", "values": [-math.inf]}, "values.0 is -.inf, but should be a number"),
        ("units", {"type": "choice", "values": [math.nan]}, "values.0 is .nan, but should be a number"),
        ("units", {"type": "boolean"}, "baseline.units is 512, but tune.space says boolean"),
        ("units", {"type": "choice", "values": ["16"]}, "baseline.units is 512, but tune.space says choice"),
        ("units", {"type": "choice", "values": [True]}, "baseline.units is 512, but tune.space says choice"),
        ("dropout", {"type": "int", "min": 0, "max": 1}, "baseline.dropout is 0.2, but tune.space says int"),
        *(
            ("batch_size", dimension, "tune.space.batch_size should be integers, 1 at least")
            for dimension in (
                {"type": "int", "min": 0, "max": 32},
                {"type": "float", "min": 16.0, "max": 32.0},
                {"type": "boolean"},
                {"type": "choice", "values": [32, 0]},
                {"type": "choice", "values": ["32"]},
                {"type": "choice", "values": [16.5, 32.0]},
            )
        ),
    ],
)
def test_a_dimension_that_is_just_not_allowed(path, name, dimension, message):
    set_key(path, "tune.space", {name: dimension})
    assert message in mistake(path)


@pytest.mark.parametrize("dimension", [{"min": 0.0, "max": 1.0}, {"min": 1, "max": 2}])
def test_a_baseline_that_tune_space_calls_a_float_is_one(path, dimension):
    """So that a trial with the same value is the same network, by the same name in the store."""
    set_key(path, "tune.space", {"units": {"type": "float", **dimension}})
    value = load(path).baseline["units"]
    assert (value, type(value)) == (512.0, float)


def test_no_two_purposes_and_no_two_seeds_share_a_training(path):
    seeds = []
    for seed in (0, 1, 42):
        set_key(path, "seed", seed)
        seeds += [*load(path).seeds("search", 100), *load(path).seeds("final", 100)]
        assert load(path).seeds("final", 3) == load(path).seeds("final", 100)[:3]
    assert len(set(seeds)) == 600
    assert all(type(seed) is int and 0 <= seed < 2**32 for seed in seeds)


def test_hyperparameters_may_be_of_any_name_and_kind(path):
    own = {"batch_size": 32, "optimizer": "sgd", "depth": 2, "rate": -0.5, "bias": True}
    set_key(path, "baseline", own)
    set_key(path, "tune.space", {"bias": {"type": "boolean"}})
    assert load(path).baseline == own


def test_a_baseline_without_batch_size_is_refused(path):
    content = yaml.safe_load(path.read_text())
    del content["baseline"]["batch_size"]
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    assert mistake(path) == (
        "params.yaml: baseline.batch_size is missing, but should be an integer, 1 at least"
    )


LAYERS = {"type": "int", "min": 1, "max": 3}
WIDTH = {"type": "choice", "values": [8, 16]}
KIND = {"type": "choice", "values": ["adam", "sgd"]}


def conditional(path: Path, baseline: dict, space: dict) -> None:
    set_key(path, "baseline", {"batch_size": 32, **baseline})
    set_key(path, "tune.space", space)


@pytest.mark.parametrize(
    "baseline",
    [
        {"layers": 1, "kind": "adam"},
        {"layers": 2, "kind": "adam", "width_2": 8},
        {"layers": 2, "kind": "sgd", "width_2": 8, "momentum": 0.9},
    ],
)
def test_the_baseline_has_a_hyperparameter_where_it_is_active(path, baseline):
    space = {
        "layers": LAYERS,
        "kind": KIND,
        "width_2": {**WIDTH, "when": {"layers": [2, 3]}},
        "momentum": {"type": "float", "min": 0.5, "max": 0.9, "when": {"kind": ["sgd"], "layers": [2]}},
    }
    conditional(path, baseline, space)
    read = load(path)
    assert read.baseline == {"batch_size": 32, **baseline}
    assert [name for name, dimension in read.tune.space.items() if dimension.active(baseline)] == [
        name for name in space if name in baseline
    ]


@pytest.mark.parametrize(
    ("baseline", "space", "message"),
    [
        (
            {"layers": 1},
            {"layers": LAYERS, "width": {**WIDTH, "when": {"layer": [2]}}},
            "tune.space.width.when has layer, but use one listed above it: layers",
        ),
        (
            {"layers": 1},
            {"width": {**WIDTH, "when": {"layers": [2]}}, "layers": LAYERS},
            "tune.space.width.when has layers, but none is listed above it",
        ),
        (
            {"width": 8},
            {"width": {**WIDTH, "when": {"width": [8]}}},
            "tune.space.width.when has width, but none is listed above it",
        ),
        (
            {"layers": 1, "batch": 2},
            {"layers": {**LAYERS, "when": {"batch": [2]}}},
            "tune.space.layers.when has batch, but none is listed above it",
        ),
        (
            {"layers": 1, "width": 8},
            {"layers": LAYERS, "width": {**WIDTH, "when": {"layers": [2, 3]}}},
            "baseline.width is never used: it is active when layers is in [2, 3]; remove it",
        ),
        (
            {"layers": 2},
            {"layers": LAYERS, "width": {**WIDTH, "when": {"layers": [2, 3]}}},
            "tune.space.width: unknown hyperparameter; use batch_size, layers, or add it to baseline",
        ),
        (
            {"layers": 2, "width": "8"},
            {"layers": LAYERS, "width": {**WIDTH, "when": {"layers": [2, 3]}}},
            "baseline.width is '8', but tune.space says choice",
        ),
        (
            {"layers": 1},
            {"layers": LAYERS, "width": {**WIDTH, "when": {"layers": 2}}},
            "tune.space.width.when.layers is 2, but should be a valid list",
        ),
        (
            {"layers": 1},
            {"layers": LAYERS, "width": {**WIDTH, "when": {"layers": []}}},
            "tune.space.width.when.layers is [], but should have at least 1 item",
        ),
        (
            {"layers": 1},
            {"layers": LAYERS, "width": {**WIDTH, "when": {"layers": [[2]]}}},
            "tune.space.width.when.layers.0 is [2], but should be a number, text, true or false",
        ),
        (
            {"layers": 1},
            {"layers": LAYERS, "width": {**WIDTH, "when": ["layers"]}},
            "tune.space.width.when is [layers], but should be a valid dictionary",
        ),
        (
            {"layers": 1},
            {"layers": LAYERS, "width": {**WIDTH, "when": {"layers": [3, 4]}}},
            "tune.space.width.when: layers is never 4",
        ),
        (
            {"kind": "adam"},
            {"kind": KIND, "width": {**WIDTH, "when": {"kind": ["sdg"]}}},
            "tune.space.width.when: kind is never sdg",
        ),
        (
            {"layers": 1},
            {"layers": LAYERS, "batch_size": {**WIDTH, "when": {"layers": [1]}}},
            "tune.space.batch_size should be integers, 1 at least, without `when`",
        ),
    ],
)
def test_a_mistake_in_a_condition_is_one_line(path, baseline, space, message):
    conditional(path, baseline, space)
    assert mistake(path) == f"params.yaml: {message}"


@pytest.mark.parametrize(
    ("kind", "ends", "beyond"), [("int", (1, 3), (0, 4)), ("float", (0.5, 1.5), (0.499, 1.501))]
)
def test_a_condition_may_name_either_end_of_a_range_and_nothing_beyond(path, kind, ends, beyond):
    for value in (*ends, *beyond):
        layers = {"type": kind, "min": ends[0], "max": ends[1]}
        space = {"layers": layers, "width": {**WIDTH, "when": {"layers": [value]}}}
        conditional(path, {"layers": 1 if kind == "float" else 2}, space)
        if value in ends:
            assert load(path).tune.space["width"].when == {"layers": [value]}
        else:
            assert mistake(path) == f"params.yaml: tune.space.width.when: layers is never {value}"


@pytest.mark.parametrize("store", ["data/trials", "..data/trials", "a@b", "/mnt/shared/trials", "~/trials"])
def test_a_store_is_a_folder(path, store):
    set_key(path, "runtime.store", store)
    assert load(path).runtime.store == store


@pytest.mark.parametrize("store", ["", ".", "data/../..", "s3://bucket/trials"])
def test_a_store_that_is_no_folder_is_refused(path, store):
    set_key(path, "runtime.store", store)
    assert "should be a folder, such as data/trials" in mistake(path)


@pytest.mark.parametrize("word", ["yes", "No", "on", "OFF"])
def test_a_word_that_yaml_once_took_for_a_truth_value_is_no_text(path, word):
    path.write_text(path.read_text().replace("  batch_size: 32", f"  batch_size: 32\n  bias: {word}"))
    assert f"baseline.bias is '{word}', but should be true or false" in mistake(path)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("1" + "0" * 30, "1" + "0" * 30),
        ("017", "17"),
        ("1_000", "1000"),
        ("-7", "-7"),
        ("+7", "7"),
        ("0", "0"),
        ("1.", "1.0"),
        (".5", "0.5"),
        ("-1.5e-3", "-0.0015"),
        ("2E3", "2000.0"),
        ("00.5", "0.5"),
        ("true", "true"),
        ("FALSE", "false"),
        ("-.inf", "-.inf"),
        (".NaN", ".nan"),
    ],
)
def test_a_plain_number_or_truth_value_is_no_text(path, text, shown):
    set_key(path, "prepare.dataset", "REPLACED")
    path.write_text(path.read_text().replace("REPLACED", text))
    assert mistake(path) == f"params.yaml: prepare.dataset is {shown}, but should be a valid string"


@pytest.mark.parametrize("text", ["tru", "1e3x", "e3", ".", "1.2.3", "'7'", '"true"'])
def test_what_is_no_number_is_text(path, text):
    set_key(path, "prepare.dataset", "REPLACED")
    path.write_text(path.read_text().replace("REPLACED", text))
    assert load(path).prepare.dataset == text.strip("'\"")


def test_a_mistake_of_yaml_is_told_with_its_place_once_and_without_one_where_there_is_none(path):
    path.write_text("seed: 1\n  prepare: 2")
    assert mistake(path) == (
        "params.yaml is not valid YAML: line 2, column 10: mapping values are not allowed here"
    )
    path.write_text("seed: \0")
    assert mistake(path).startswith("params.yaml is not valid YAML: unacceptable character #x0000: ")


def test_each_of_several_mistakes_has_its_line(path):
    set_key(path, "train.epochs", 0)
    set_key(path, "seed", 1.5)
    assert [line.split(" is ")[0] for line in mistake(path).split("\n")] == [
        "params.yaml: seed",
        "error: params.yaml: train.epochs",
    ]


def test_an_unknown_key_hides_no_other_mistake(path):
    """Neither in its section nor in those below."""
    content = yaml.safe_load(path.read_text())
    content["train"] |= {"epoch": 3, "epochs": 0}
    del content["train"]["replicates"]
    content["tune"]["space"]["units"] |= {"maximum": 600, "step": 0}
    write_with(path, content, "other", 1)
    said = [line.removeprefix("params.yaml: ") for line in mistake(path).split("\nerror: ")]
    assert said == [
        "train.epochs is 0, but should be greater than or equal to 1",
        "train.replicates is missing; add it",
        "unknown key train.epoch; use epochs, replicates",
        "tune.space.units.step is 0, but should be greater than or equal to 1",
        "unknown key tune.space.units.maximum; use when, sampling, type, min, max, step",
        "unknown key other; use seed, prepare, baseline, train, tune, retrain, compare, runtime",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "params.yaml is empty, but should hold the keys seed, prepare,"),
        ("# only a comment\n", "params.yaml is empty"),
        ("- 1\n", "params.yaml holds [1], but should hold the keys"),
        ("seed: [1\nprepare: 2", "params.yaml is not valid YAML: line 2, column 8: "),
        ("seed: 1\n  prepare: 2", "params.yaml is not valid YAML: line 2, column 10: "),
        (
            "seed: !!python/object/apply:os.getcwd []",
            "params.yaml is not valid YAML: line 1, column 7: could not determine a constructor for the tag",
        ),
    ],
)
def test_a_file_that_is_no_params(path, content, message):
    path.write_text(content)
    assert mistake(path).startswith(message)
    assert "\n" not in mistake(path).split("\nerror: ")[0]


REPLACED = [  # what stands in place of the value of `seed`, and what is said of it
    ("1\nseed: 2", 'line {next}, column 1: found duplicate key "seed" with value "2"'),
    ("1:30", "seed is '1:30', but should be a valid integer"),
    ("yes", "seed is 'yes', but should be a valid integer"),
    ("1_0.5", "seed is 10.5, but should be a valid integer"),
    ("!!int abc", "invalid literal for int()"),
    ("!!bool maybe", "is not valid YAML: 'maybe'"),
    ("!!timestamp 2026-13-45", "month must be in 1..12"),
    ("2026-11-24", "seed is 2026-11-24, but should be a valid integer"),
    ("9" * 5000, "Exceeds the limit (4300 digits)"),
    ("[" * 10_000 + "]" * 10_000, "maximum recursion depth exceeded"),
    ("1\n1: [2]", "unknown key 1; use seed, prepare"),
    ("1\n? [1, 2]\n: 3", "unknown key [1, 2]; use seed, prepare"),
    ("&a 1\nother: [*a, *a]", "unknown key other; use seed, prepare"),
    ("&a {b: &b 1, <<: *b}", "expected a mapping or list of mappings for merging"),
    ("{[1, 2]: 3}", "but should be a valid integer"),
    ("{1: 2}", "seed is {1: 2}, but should be a valid integer"),
    ("=", "could not determine a constructor for the tag"),
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
    assert 'found duplicate key "batch_size" with value "64"' in mistake(path)


ODD = [
    None,
    True,
    "x",
    "",
    "two\nlines",
    [],
    [[]],
    {},
    {"a": {"b": []}},
    0,
    -1,
    10**30,
    -(10**30),
    0.5,
    float("nan"),
    1e308,
]


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
        assert all(
            line.startswith("params.yaml: ") and line.isprintable() for line in said.split("\nerror: ")
        ), said


def test_a_missing_file_and_a_missing_key(path):
    set_key(path, "seed", 1)
    content = yaml.safe_load(path.read_text())
    del content["train"]["epochs"]
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    assert mistake(path) == "params.yaml: train.epochs is missing; add it"
    path.unlink()
    assert mistake(path).startswith("params.yaml is missing; ")


def test_a_file_that_is_no_text(path):
    path.write_bytes(b"seed: \xff")
    assert mistake(path).startswith("params.yaml is not UTF-8 text")


def test_numbers_are_read_as_dvc_reads_them(path):
    path.write_text(path.read_text().replace("learning_rate: 0.001", "learning_rate: 1e-3"))
    assert load(path).baseline["learning_rate"] == 0.001


def test_the_schema_is_current_and_says_what_is_allowed(path):
    committed = json.loads((COMMITTED.parent / "params.schema.json").read_text())
    assert committed == schema(), "run `python -m stages.review.schema`"
    check = Draft202012Validator(committed)
    content = yaml.safe_load(path.read_text())
    assert list(check.iter_errors(content)) == []
    assert COMMITTED.read_text().startswith("# yaml-language-server: $schema=params.schema.json\n")
    for key, value in (
        ("tune.strategy", "bayes"),
        ("tune.max_epochs", 0),
        ("baseline.dropout", [0.2]),
        ("train.epoch", 3),
    ):
        set_key(path, key, value)
        assert not check.is_valid(yaml.safe_load(path.read_text())), key
        path.write_text(COMMITTED.read_text())
