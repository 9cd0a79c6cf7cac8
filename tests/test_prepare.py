"""Data sets of any kind, their split and the prepared files."""

import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import ROOT

from stages import prepare
from stages.base import splits
from stages.base.console import UserError
from stages.base.splits import Split
from stages.datasets import catalog
from stages.datasets.dataset import Dataset
from stages.datasets.tables import from_tables
from stages.prepare import split


def examples(n=1000, classes=10) -> Split:
    labels = np.random.default_rng(0).integers(0, classes, n).astype(np.int32)
    return Split(np.arange(n, dtype=np.float32).reshape(n, 1, 1), labels)


def test_the_split_is_stratified_and_loses_nothing():
    data = examples()
    train, validation = split(data, 0.2, seed=1)
    assert sorted([*train, *validation]) == list(range(1000))
    assert np.abs(np.bincount(data.labels[validation]) - 0.2 * np.bincount(data.labels)).max() < 1


def test_labels_that_are_numbers_are_split_too():
    data = Split(examples().inputs, np.linspace(0, 1, 1000, dtype=np.float32))
    train, validation = split(data, 0.2, seed=1)
    assert (len(train), len(validation)) == (800, 200)
    assert (data.classes, data.outputs, examples().outputs) == (None, 1, 10)


@pytest.mark.parametrize("labels", ["classes", "numbers"])
@pytest.mark.parametrize("seed", range(3))
def test_a_group_is_in_one_part(labels, seed):
    """The share is one of groups, not of examples: a group has 1 to 9."""
    groups = np.repeat(np.arange(200), np.arange(200) % 9 + 1)
    n = len(groups)
    of_labels = np.arange(n, dtype=np.int32) % 2 if labels == "classes" else np.linspace(0, 1, n)
    train, validation = split(Split(np.zeros((n, 1)), of_labels, groups=groups), 0.2, seed)
    assert sorted([*train, *validation]) == list(range(n))
    assert not set(groups[train]) & set(groups[validation])
    assert len(set(groups[validation])) == 40


def test_groups_that_leave_a_part_without_a_class_are_named():
    data = Split(
        np.zeros((40, 1)), np.repeat([0, 1], 20).astype(np.int32), groups=np.repeat([0, 1, 2, 3], 10)
    )
    with pytest.raises(
        UserError, match=r"validation_split is 0.2, too near 0 or 1: one part has no example "
    ):
        split(data, 0.2, seed=0)
    with pytest.raises(UserError, match=r"validation_split is 0.01, too near 0 or 1: "):
        split(Split(data.inputs, data.labels, groups=np.zeros(40, np.int32)), 0.01, seed=0)


@pytest.mark.parametrize(
    ("split", "shapes", "classes", "outputs", "names"),
    [
        (Split(np.zeros((3, 4)), np.int32([0, 2, 1])), (4,), 3, 3, ["inputs", "labels"]),
        (Split(np.zeros((3, 4, 4)), np.zeros(3)), (4, 4), None, 1, ["inputs", "labels"]),
        (Split(np.zeros(3), np.zeros((3, 5), np.uint8)), (), None, 5, ["inputs", "labels"]),
        (Split(np.zeros((3, 1)), np.zeros((3, 2, 7))), (1,), None, 7, ["inputs", "labels"]),
        (
            Split(
                {"a": np.zeros((3, 1)), "b.c": np.zeros((3, 2), int)}, np.zeros(3), np.ones(3), np.arange(3)
            ),
            {"a": (1,), "b.c": (2,)},
            None,
            1,
            ["inputs.a", "inputs.b.c", "labels", "weights", "groups"],
        ),
    ],
)
def test_a_split_knows_its_shapes_classes_and_outputs(split, shapes, classes, outputs, names):
    assert (split.shapes, split.classes, split.outputs, list(split.arrays)) == (
        shapes,
        classes,
        outputs,
        names,
    )
    again = Split.of(split.arrays)
    assert all(array is split.arrays[name] for name, array in again.arrays.items())
    assert list(again.arrays) == names
    assert isinstance(again.inputs, dict) == isinstance(split.inputs, dict)


def test_the_seed_draws_the_split():
    first, again, other = (split(examples(), 0.2, seed)[1] for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_parts_are_written_one_after_the_other_and_come_back_to_the_bit(tmp_path, monkeypatch):
    """Even if they are copied in several chunks. Changes to a loaded array stay in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(splits, "_CHUNK", 100)
    data = examples()
    train, validation = split(data, 0.2, seed=1)
    splits.save(splits.TRAINING, (data, train), (data, validation))
    read = splits.load(splits.TRAINING)
    rows = np.concatenate([train, validation])
    assert np.array_equal(read.inputs, data.inputs[rows])
    assert np.array_equal(read.labels, data.labels[rows])
    assert (read.inputs.dtype, read.labels.dtype) == (np.float32, np.int32)
    digest = splits.digest(read)
    assert digest == splits.digest(Split(data.inputs[rows], data.labels[rows])) != splits.digest(data)
    read.inputs[0] += 1
    assert splits.digest(splits.load(splits.TRAINING)) == digest


@pytest.mark.parametrize("share", [0.001, 0.999])
def test_a_share_that_leaves_too_few_images_is_named(share):
    with pytest.raises(UserError, match=f"params.yaml: prepare.validation_split is {share}, too near 0 or 1"):
        split(examples(), share, seed=1)


def test_a_class_that_a_part_would_lack_is_named():
    labels = np.array([0] * 50 + [1] * 50 + [2] * 2, dtype=np.int32)
    data = Split(np.zeros((102, 1), np.float32), labels)
    with pytest.raises(
        UserError, match=r"validation_split is 0.1, too near 0 or 1: one part has no example of class 2$"
    ):
        split(data, 0.1, seed=0)
    split(data, 0.5, seed=0)


def test_an_unknown_data_set_is_named_with_the_known_ones(tmp_path):
    names = ", ".join(catalog.DATASETS)
    with pytest.raises(UserError, match=f"prepare.dataset is no such, but should be one of {names}"):
        catalog.load("no such", tmp_path)


def test_a_file_that_a_data_set_lacks_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(catalog.DATASETS, "own", lambda raw: np.load(raw / "there.npy"))
    way_out = "put it there, or fix the data set's function in stages/datasets"
    line = f"^own: {tmp_path}/there.npy is missing; {way_out}$"
    with pytest.raises(UserError, match=line):
        catalog.load("own", tmp_path)


@pytest.mark.parametrize(
    ("read", "kind"),
    [
        (zipfile.ZipFile, "BadZipFile"),
        (tarfile.open, "ReadError"),
        (pd.read_csv, "ParserError"),
        (lambda path: path.read_text(encoding="utf-8"), "UnicodeDecodeError"),
        (lambda path: zlib.decompress(path.read_bytes()), "error"),
    ],
)
def test_a_file_that_is_damaged_is_named(monkeypatch, tmp_path, read, kind):
    (tmp_path / "file").write_bytes(b"\xff" if kind == "UnicodeDecodeError" else b"a\n1\n1,2\n")
    monkeypatch.setitem(catalog.DATASETS, "own", lambda raw: read(raw / "file"))
    with pytest.raises(UserError, match=rf"^own: a file is damaged \({kind}: .+\); get it again, or .+$"):
        catalog.load("own", tmp_path)


def numbers(labels=(0, 0, 1, 1), dtype=np.int32, shape=(2,), **optional) -> Split:
    return Split(np.zeros((len(labels), *shape), np.float32), np.array(labels, dtype), **optional)


def with_input(value: float) -> Split:
    data = numbers()
    data.inputs[2, 1] = value
    return data


def weighted(*weights) -> Split:
    return numbers(weights=np.array(weights, np.float32))


FORM = "inputs of shape (2,) float32, labels of shape () int32"
TWO = Split({"a": numbers().inputs, "b": numbers().inputs.astype(np.int32)}, numbers().labels)
GOOD = {
    "classes": numbers(),
    "numbers": numbers(dtype=np.float64),
    "bytes": Split(np.zeros((4, 2), np.uint8), np.uint8([0, 1, 0, 1])),
    "several numbers": Split(np.zeros(4), np.float32([[0, 0], [0, 1], [1, 0], [1, 1]])),
    "two inputs": TWO,
    "weights": weighted(0, 0.5, 1, 2),
    "groups": numbers(groups=np.int64([7, 7, 9, 9])),
}


GROUPED = GOOD["groups"]
MASKS = Split(numbers().inputs, np.arange(4 * 2 * 2).reshape(4, 2, 2) % 3)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([0, 2, 1, 1], "3 classes"),
        ([0.5] * 4, "numbers"),
        (np.zeros((4, 12)), "12 numbers"),
        (np.ones((4, 5), int), "5 numbers"),
        (MASKS.labels % 2, "2 x 2 of 2 classes"),
    ],
)
def test_the_last_line_says_what_an_example_is(labels, said):
    data = Split(np.zeros((4, 8, 8), np.float32), np.array(labels))
    assert prepare.described(data) == f"8 x 8 inputs; labels are {said}"


def test_two_classes_of_words_may_have_names_and_so_may_several_labels(monkeypatch, tmp_path):
    tags = Split(numbers().inputs, np.array([[0, 1, 1], [1, 0, 0]] * 2))
    for names in (["no", "yes"], ["a", "b", "c"]):
        own = Dataset(tags, tags, {}, class_names=names)
        monkeypatch.setitem(catalog.DATASETS, "own", lambda raw, own=own: own)
        assert catalog.load("own", tmp_path).class_names == names


def test_the_labels_determine_the_number_of_outputs():
    """Classes, numbers, multi-label data, three and two classes of pixels, a number for each pixel."""
    images = np.zeros((4, 2, 2))
    labels = [[0, 1, 2, 1], [0.5] * 4, np.ones((4, 5), int), MASKS.labels, MASKS.labels % 2, images]
    assert [Split(images, np.array(each)).outputs for each in labels] == [3, 1, 5, 3, 2, 2]


def test_a_function_that_returns_no_data_set_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setitem(catalog.DATASETS, "own", lambda raw: None)
    line = r"^own: its function in stages/datasets returns NoneType, not a Dataset$"
    with pytest.raises(UserError, match=line):
        catalog.load("own", tmp_path)


@pytest.mark.parametrize("kind", GOOD)
def test_good_data_have_no_problems(kind, monkeypatch, tmp_path):
    """Even with a fixed validation part, and with no weights and groups in the test part."""
    data = GOOD[kind]
    for validation in (None, replace(data, groups=None)):
        dataset = Dataset(data, Split(data.inputs, data.labels), {}, validation=validation)
        assert list(dataset.problems()) == []
        monkeypatch.setitem(catalog.DATASETS, "own", lambda raw, dataset=dataset: dataset)
        assert catalog.load("own", tmp_path).train is data


@pytest.mark.parametrize(
    ("dataset", "problem"),
    [
        (
            {"train": Split(numbers().inputs[:3], numbers().labels)},
            "the train part has 3 inputs, but 4 labels",
        ),
        (
            {"train": Split(numbers().inputs, pd.Series(numbers().labels, index=[4, 5, 6, 7]))},
            "the train part has labels of type Series, not a NumPy array (.to_numpy() returns one)",
        ),
        ({"test": numbers(())}, "the test part has 0 inputs, but 0 labels"),
        (
            {"test": numbers((1,))},
            "the test part has one example, but a standard error needs 2",
        ),
        (
            {"train": Split({"price/m": numbers().inputs}, numbers().labels)},
            "the train part has 'inputs.price/m', which no file can be named after",
        ),
        (
            {"train": Split(numbers().inputs.astype(np.longdouble), numbers().labels)},
            "the train part has inputs of type float128, not integers or floats of 64 bits at most",
        ),
        ({"class_names": np.array(["a", "a"])}, "there are 1 different names for 2 classes"),
        ({"validation": weighted(1, 1)}, "the validation part has 2 weights, but 4 labels"),
        (
            {"train": Split(numbers().inputs, np.array(["a", "b", "a", "b"]))},
            "the train part has labels of type <U1, not integers or floats",
        ),
        (
            {"train": Split(numbers().inputs, numbers().labels > 0)},
            "the train part has labels of type bool, not integers or floats",
        ),
        (
            {"test": Split(numbers().inputs.astype(">f4"), numbers().labels)},
            "the test part has inputs of type >f4, not integers or floats of 64 bits at most",
        ),
        (
            {"train": numbers(weights=np.ones((4, 2)))},
            "the train part has weights of shape (4, 2), not a number for each example",
        ),
        (
            {"train": numbers(groups=np.ones((4, 1), int))},
            "the train part has groups of shape (4, 1), not a number for each example",
        ),
        ({"train": numbers(groups=np.ones(4))}, "the train part has groups of type float64, not integers"),
        (
            {"test": numbers((0, -1, 1, -1))},
            "the test part has 2 of 4 labels missing (a class below 0)",
        ),
        (
            {"train": numbers((0, 1, np.nan, 1), np.float32)},
            "the train part has labels that are NaN or infinite in 1 of 4 examples",
        ),
        (
            {"train": with_input(np.nan)},
            "the train part has inputs that are NaN or infinite in 1 of 4 examples",
        ),
        (
            {"test": with_input(-np.inf)},
            "the test part has inputs that are NaN or infinite in 1 of 4 examples",
        ),
        (
            {"train": Split({"a": with_input(np.inf).inputs}, numbers().labels)},
            "the train part has inputs.a that are NaN or infinite in 1 of 4 examples",
        ),
        ({"train": weighted(1, 1, -1, 1)}, "the train part has weights below 0, or all of them 0"),
        ({"train": weighted(0, 0, 0, 0)}, "the train part has weights below 0, or all of them 0"),
        (
            {"test": numbers(shape=(3,))},
            f"the train part has {FORM}, but the test part {FORM.replace('2', '3', 1)}",
        ),
        (
            {"test": numbers(dtype=np.int64)},
            f"the train part has {FORM}, but the test part {FORM.replace('int32', 'int64')}",
        ),
        (
            {"validation": TWO},
            f"the train part has {FORM}, but the validation part inputs.a of shape (2,) float32, inputs.b of",
        ),
        (
            {"train": weighted(1, 1, 1, 1), "validation": numbers()},
            "the train or the validation part has weights, but the other has none",
        ),
        ({"train": numbers((0, 0, 0, 0))}, "all labels of the train part are the same"),
        (
            {part: numbers((1.5, 1.5), np.float32) for part in ("train", "test")},
            "all labels of the train part",
        ),
        (
            {part: Split(numbers().inputs, np.zeros((4, 3, 3))) for part in ("train", "test")},
            "all labels of the train part are the same",
        ),
        (
            {"train": numbers((0, 0, 1))},
            "the train part has 1 examples of class 1, but needs 2, one of them for validation",
        ),
        (
            {"train": numbers((0, 0, 2)), "validation": numbers()},
            "the train part has 0 examples of class 1, but needs 1 (classes are numbered from 0; numbers to ",
        ),
        ({"test": numbers((0, 2))}, "the test part has class 2, but the train part only classes up to 1"),
        (
            {"validation": numbers((0, 3))},
            "the validation part has class 3, but the train part only classes up",
        ),
        ({"class_names": ["one"]}, "there are 1 different names for 2 classes"),
        (
            {part: Split(numbers().inputs, numbers().labels[:, None]) for part in ("train", "test")},
            "the train part has labels of shape (4, 1); they should be (4,)",
        ),
        (
            {part: Split(numbers().inputs, np.zeros((4, 5, 1), int)) for part in ("train", "test")},
            "the train part has labels of shape (4, 5, 1); they should be (4, 5)",
        ),
        (
            {"train": GROUPED, "validation": GROUPED},
            "the train part and the validation part share 2 groups, such as 7",
        ),
        (
            {"train": GROUPED, "test": replace(GROUPED, groups=np.int64([1, 1, 1, 9]))},
            "the train part and the test part share 1 groups, such as 9",
        ),
        (
            {"test": replace(GROUPED, groups=np.ones(4, np.uint8))},
            "the test part has one group, but a standard error needs 2",
        ),
        (
            {"train": MASKS, "test": replace(MASKS, labels=MASKS.labels + 1)},
            "the test part has class 3, but the train part only classes up to 2",
        ),
        (
            {"train": MASKS, "test": MASKS, "class_names": ["one"]},
            "there are 1 different names for 3 classes",
        ),
    ],
)
def test_what_cannot_be_trained_on_is_one_line(dataset, problem, monkeypatch, tmp_path):
    own = Dataset(**{"train": numbers(), "test": numbers(), "digests": {}, **dataset})
    monkeypatch.setitem(catalog.DATASETS, "own", lambda raw: own)
    with pytest.raises(UserError) as error:
        catalog.load("own", tmp_path)
    assert str(error.value).startswith(f"own: {problem}")
    assert str(error.value).endswith("; fix the data, or its function in stages/datasets")
    assert "\n" not in str(error.value)


def test_names_of_classes_may_be_of_any_type(monkeypatch, tmp_path):
    own = Dataset(numbers(), numbers(), {}, class_names=np.array([3, 7]))
    monkeypatch.setitem(catalog.DATASETS, "own", lambda raw: own)
    assert catalog.load("own", tmp_path).class_names == ["3", "7"]


def test_a_single_example_of_a_class_will_do_with_a_validation_part_of_its_own():
    assert list(Dataset(numbers((0, 0, 1)), numbers(), {}, validation=numbers()).problems()) == []


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """A function that prepares a data set in an empty folder; it returns metrics/prepare.json."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    settings = yaml.safe_load((ROOT / "params.yaml").read_text())
    settings["prepare"] = {"dataset": "own", "validation_split": 0.25}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))

    def run(dataset: Dataset) -> dict:
        monkeypatch.setitem(catalog.DATASETS, "own", lambda raw: dataset)
        prepare.main()
        return json.loads((tmp_path / "metrics/prepare.json").read_text())

    return run


def parts_of(data: Split) -> tuple[Split, Split, Split]:
    """The first 8 rows of `data`, the next 4, the last 4."""

    def rows(part: slice) -> Split:
        return Split.of({name: array[part] for name, array in data.arrays.items()})

    return rows(slice(8)), rows(slice(8, 12)), rows(slice(12, 16))


ALL = Split(
    {"image": np.arange(64, dtype=np.uint8).reshape(16, 2, 2), "age": np.arange(16) / 4},
    np.int32([0, 1] * 8),
    np.linspace(1, 2, 16),
    np.arange(16) // 2,
)


def test_a_validation_part_of_its_own_is_written_after_train(prepared, capsys):
    train, validation, test = parts_of(ALL)
    metrics = prepared(
        Dataset(train, test, {"file": "digest"}, class_names=["no", "yes"], validation=validation)
    )
    read = splits.load(splits.TRAINING).arrays
    for name in ("inputs.image", "inputs.age", "labels", "weights", "groups"):
        np.testing.assert_array_equal(read[name], ALL.arrays[name][:12])
        assert read[name].dtype == ALL.arrays[name].dtype
    np.testing.assert_array_equal(
        splits.load(splits.TEST).arrays["inputs.image"], ALL.arrays["inputs.image"][12:]
    )
    assert splits.about() == {
        "train": 8,
        "validation": 4,
        "own_validation": True,
        "class_names": ["no", "yes"],
    }
    assert (metrics["classes"], metrics["class_names"]) == (2, ["no", "yes"])
    assert [metrics[f"{part}_examples"] for part in ("train", "validation", "test")] == [8, 4, 4]
    assert metrics["examples_per_class"] == {"train": [4, 4], "validation": [2, 2], "test": [2, 2]}
    assert (metrics["input_mean.image"], metrics["input_mean.age"]) == (15.5, 7 / 8)
    assert metrics["sha256"] == [{"file": "file", "digest": "digest"}]
    said = "8 train, 4 validation, 4 test examples of 2 x 2 image and one number age inputs"
    captured = capsys.readouterr()
    groups = "weighted, in 4 train, 2 validation, 2 test groups"
    assert captured.out == f"prepare: own, {said}; labels are 2 classes, {groups}\n"
    few = "part has 2 groups; with fewer than 20, its standard errors are rough"
    assert captured.err == f"note: the validation {few}\nnote: the test {few}\n"


def test_a_part_without_groups_is_named_where_others_have_them(prepared, capsys):
    train, validation, test = parts_of(ALL)
    prepared(Dataset(train, replace(test, groups=None), {}, validation=validation))
    note = "note: the test part has no groups; its standard errors assume independent examples\n"
    assert capsys.readouterr().err.endswith(note)


@pytest.mark.parametrize("part", [0, 1])
def test_a_validation_part_of_its_own_needs_no_groups(prepared, part):
    parts = list(parts_of(ALL))
    parts[part] = Split(parts[part].inputs, parts[part].labels, parts[part].weights)
    prepared(Dataset(parts[0], parts[2], {}, validation=parts[1]))
    read = splits.load(splits.TRAINING)
    np.testing.assert_array_equal(read.labels, ALL.labels[:12])
    assert read.groups is None


def test_groups_of_two_types_stay_apart(prepared):
    train, validation, test = parts_of(ALL)
    train, validation = (
        replace(train, groups=np.arange(-8, 0, dtype=np.int8)),
        replace(validation, groups=256 + np.arange(4)),
    )
    prepared(Dataset(train, test, {}, validation=validation))
    assert splits.load(splits.TRAINING).groups.tolist() == [*range(-8, 0), *range(256, 260)]


def test_weights_of_two_types_keep_their_values(prepared):
    train, validation, test = parts_of(ALL)
    validation = Split(validation.inputs, validation.labels, validation.weights.astype(np.float32))
    prepared(Dataset(train, test, {}, validation=validation))
    np.testing.assert_allclose(splits.load(splits.TRAINING).weights, ALL.weights[:12])


def test_without_a_validation_part_a_share_of_whole_groups_is_drawn_and_written(prepared):
    prepared(Dataset(ALL, replace(ALL, groups=None), {}))
    read, about = splits.load(splits.TRAINING), splits.about()
    assert (about["train"], about["validation"], about["own_validation"]) == (12, 4, False)
    assert sorted(read.groups) == ALL.groups.tolist()
    assert not set(read.groups[:12]) & set(read.groups[12:])
    np.testing.assert_array_equal(read.inputs["age"] // 0.5, read.groups)


def test_files_of_the_previously_prepared_data_set_are_deleted(prepared):
    prepared(Dataset(ALL, replace(ALL, groups=None), {}))
    prepared(Dataset(*2 * [Split(np.arange(16.0), np.linspace(0, 1, 16))], {}))
    for folder in (splits.TRAINING, splits.TEST):
        assert {path.name for path in folder.glob("*.npy")} == {"inputs.npy", "labels.npy"}
    assert splits.load(splits.TRAINING).weights is None


TABLE = pd.DataFrame(
    {"a": [1.0, 3.0, 5.0, 7.0], "b": ["x", "y", "x", "y"], "kind": ["no", "yes", "yes", "no"]}
)


def test_a_table_is_standardised_by_its_train_part(tmp_path):
    """Columns are matched by their names, whatever their order."""
    file = tmp_path / "data.csv"
    TABLE.to_csv(file)
    data = from_tables(TABLE[:3], TABLE[["kind", "b", "a"]][3:], "kind", file)
    np.testing.assert_allclose(data.train.inputs.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(data.train.inputs.std(0), 1, rtol=1e-6)
    np.testing.assert_allclose(data.test.inputs, [[4 / np.sqrt(8 / 3), -np.sqrt(2), np.sqrt(2)]], rtol=1e-6)
    assert (data.train.labels.tolist(), data.test.labels.tolist()) == ([0, 1, 1], [0])
    assert (data.train.inputs.dtype, data.train.labels.dtype, list(data.digests)) == (
        np.float32,
        np.int32,
        ["data.csv"],
    )
    assert data.class_names == ["no", "yes"]
    assert [(about["column"], about["text"]) for about in data.columns] == [
        ("a", None),
        ("b", "x"),
        ("b", "y"),
    ]
    true_or_false = TABLE.assign(kind=TABLE["kind"] == "yes")
    of_booleans = from_tables(true_or_false[:3], true_or_false[3:], "kind")
    assert of_booleans.train.labels.tolist() == [0, 1, 1]
    of_numbers = from_tables(TABLE[:3], TABLE[3:], "a")
    assert (of_numbers.train.labels.tolist(), of_numbers.train.outputs, of_numbers.class_names) == (
        [1, 3, 5],
        1,
        [],
    )


@pytest.mark.parametrize(
    ("train", "test", "label", "problem"),
    [
        (TABLE, TABLE.drop(columns="b"), "kind", "column b is not in both parts"),
        (TABLE, TABLE.rename(columns={"a": "A"}), "kind", "column A is not in both parts"),
        (TABLE, TABLE, "sort", "column sort is not in both parts"),
        (
            TABLE,
            TABLE.replace({"a": {1.0: "?"}}),
            "kind",
            r"column a has text in 1 of 8 rows \(\?\), else numbers",
        ),
        (TABLE, TABLE.replace({"b": {"x": None}}), "kind", "column b has no value in 2 of 8 rows"),
        (TABLE.replace({"kind": {"no": None}}), TABLE, "kind", "column kind has no value in 2 of 8 rows"),
        *(
            (
                table.assign(id=[f"p{i}" for i in range(len(table))]),
                TABLE.assign(id=[f"q{i}" for i in range(4)]),
                "kind",
                f"column id has {len(table) + 4} different texts in {len(table) + 4} rows, too many to be an "
                r"input each \(100 at most, and fewer than rows\)",
            )
            for table in (TABLE, pd.concat([TABLE] * 30))
        ),
        (
            pd.concat([TABLE] * 60).assign(day=[f"2026-11-{i % 120}" for i in range(240)]),
            TABLE.assign(day="2026-11-1"),
            "kind",
            r"column day has 120 different texts in 244 rows, too many to be an input each \(100 at .+\)",
        ),
        (TABLE.replace({"a": {1.0: np.inf}}), TABLE, "kind", "column a has infinite numbers"),
        (TABLE.assign(c=1j), TABLE.assign(c=1j), "kind", "column c has complex numbers"),
        (pd.concat([TABLE, TABLE["a"]], axis=1), TABLE, "kind", "column a appears twice"),
        (TABLE.assign(**{"1": 0}).rename(columns={"1": 1}), TABLE, "kind", "column 1 is not in both parts"),
        (
            TABLE,
            TABLE[:0],
            "kind",
            "the test table has 0 rows and 3 columns; it needs rows, and inputs",
        ),
        (
            TABLE[["kind"]],
            TABLE[["kind"]],
            "kind",
            "the train table has 4 rows and 1 columns; it needs rows, and inputs",
        ),
    ],
)
def test_columns_that_differ_or_lack_values_are_named(train, test, label, problem):
    with pytest.raises(
        UserError, match=f"^data.csv: {problem}; fix the file, or leave out the column or those rows$"
    ):
        from_tables(train, test, label, Path("data.csv"))


def test_a_constant_column_is_not_divided_by_its_rounding_error():
    table = pd.DataFrame({"a": 0.1, "label": np.arange(1000) % 2.0})
    assert table["a"].std(ddof=0) > 0
    data = from_tables(table, table.assign(a=0.2), "label", classes=True)
    assert data.test.inputs[0] == pytest.approx(0.1, rel=1e-6)


def test_a_text_only_in_the_test_part_is_no_input(capsys):
    data = from_tables(TABLE, TABLE.replace({"b": {"x": "z"}}), "kind")
    assert [about["text"] for about in data.columns if about["column"] == "b"] == ["x", "y"]
    assert "note: column b has z in the test part only; no input represents it" in capsys.readouterr().err


def test_dates_are_texts_and_categories_without_rows_are_no_classes():
    months = pd.to_datetime(["2026-01-01", "2026-02-01"] * 2)
    labels = pd.Categorical(["no", "yes", "yes", "no"], ["no", "yes", "never"])
    table = TABLE.assign(month=months, kind=labels)
    data = from_tables(table[:3], table[3:], "kind")
    assert data.class_names == ["no", "yes"]
    assert [about["text"] for about in data.columns if about["column"] == "month"] == [
        "2026-01-01 00:00:00",
        "2026-02-01 00:00:00",
    ]


def test_numbers_are_classes_on_request(capsys):
    table = pd.DataFrame({"a": [1.0, 3.0, 5.0, 7.0], "label": [3, 8, 8, 3]})
    data = from_tables(table[:3], table[3:], "label", classes=True)
    assert (data.train.labels.tolist(), data.test.labels.tolist()) == ([0, 1, 1], [0])
    assert (data.train.labels.dtype, data.class_names) == (np.int32, ["3", "8"])
    assert capsys.readouterr().err == ""
    data = from_tables(table[:3], table[3:], "label")
    assert (data.train.labels.tolist(), data.train.labels.dtype, data.class_names) == (
        [3, 8, 8],
        np.float32,
        [],
    )
    assert capsys.readouterr().err == (
        "note: label label is only 3 and 8, and treated as a number; "
        "pass classes=True to `from_tables` to treat it as classes\n"
    )


@pytest.fixture
def folders(tmp_path):
    """The folders of both parts: a red and a grey image for each class, and a blue one for the second."""
    from PIL import Image

    for part in ("train", "test"):
        for kind, names in (("cat", "ab"), ("dog", "abc")):
            (tmp_path / part / kind).mkdir(parents=True)
            for name, mode, color in zip(
                names, ("RGB", "L", "RGBA"), ((255, 0, 0), 100, (0, 0, 255, 9)), strict=False
            ):
                Image.new(mode, (6, 4), color).save(tmp_path / part / kind / f"{name}.png")
    return tmp_path / "train", tmp_path / "test"


def test_images_in_folders_are_resized_and_their_folders_are_the_classes(folders):
    from stages.datasets.folders import from_folders

    (folders[0] / ".DS_Store").touch()
    (folders[0] / "cat/.hidden").touch()
    (folders[0] / ".ipynb_checkpoints").mkdir()
    data = from_folders(*folders, size=(2, 3))
    assert (data.train.inputs.shape, data.train.inputs.dtype) == ((5, 2, 3, 3), np.uint8)
    assert (data.train.labels.tolist(), data.class_names) == ([0, 0, 1, 1, 1], ["cat", "dog"])
    assert data.train.inputs[:, 0, 0].tolist() == [
        *([[255, 0, 0], [100, 100, 100]] * 2),
        [0, 0, 255],
    ]
    assert list(data.problems()) == []
    grey = from_folders(*folders, size=(4, 6), grey=True)
    assert grey.train.inputs.shape == (5, 4, 6, 1)
    assert grey.train.inputs[:, 0, 0, 0].tolist() == [76, 100, 76, 100, 29]
    assert grey.digests == data.digests
    (folders[1] / "dog/a.png").write_bytes((folders[1] / "dog/b.png").read_bytes())
    assert from_folders(*folders, size=(2, 3)).digests != data.digests


def test_an_image_is_upright_as_its_camera_says(folders):
    from PIL import Image

    from stages.datasets.folders import from_folders

    exif = Image.Exif()
    exif[0x0112] = 6  # turned to the right
    lying = np.zeros((4, 6, 3), np.uint8)
    lying[:, :3] = 255
    Image.fromarray(lying).save(folders[0] / "cat/a.png", exif=exif)
    upright = from_folders(*folders, size=(6, 4)).train.inputs[0, :, :, 0]
    assert (upright[:3] == 255).all()
    assert (upright[3:] == 0).all()


def test_a_folder_in_one_part_only_and_a_file_that_is_no_image_are_named(folders):
    from PIL import Image

    from stages.datasets.folders import from_folders

    (folders[1] / "dog/a.png").write_bytes(b"no image")
    with pytest.raises(
        UserError, match=r"^\S+/test/dog/a.png is not an image \(.+\); remove it from the folder$"
    ):
        from_folders(*folders, size=(2, 3))
    (folders[1] / "dog/a.png").unlink()
    (folders[1] / "dog/a.png").mkdir()
    with pytest.raises(UserError, match=r"^\S+/test/dog/a.png is not an image \(.+directory.+\); remove it"):
        from_folders(*folders, size=(2, 3))
    (folders[1] / "dog/a.png").rmdir()
    Image.fromarray(np.full((4, 6), 3000, np.uint16)).save(folders[1] / "dog/a.png")
    with pytest.raises(UserError, match=r"^\S+/test/dog/a.png has more than 8 bits per channel; read it"):
        from_folders(*folders, size=(2, 3))
    for path in (folders[1] / "dog").iterdir():
        path.unlink()
    with pytest.raises(UserError, match=r"^\S+/test/dog has no image; each class needs some in each part$"):
        from_folders(*folders, size=(2, 3))
    (folders[0] / "emu").mkdir()
    with pytest.raises(
        UserError, match=r"train has folders cat, dog, emu, but \S+/test cat, dog; each part "
    ):
        from_folders(*folders, size=(2, 3))


def test_splits_load_without_pickle_and_memory_mapped(tmp_path):
    splits.save(tmp_path / "train", (examples(), np.arange(1000)))
    loaded = splits.load(tmp_path / "train")
    assert isinstance(loaded.inputs, np.memmap)
    assert np.array_equal(loaded.inputs, examples().inputs)
    assert (loaded.labels.dtype, loaded.classes) == (np.int32, 10)


@pytest.mark.parametrize("missing", ["inputs", "labels"])
def test_a_part_that_is_missing_or_damaged_is_one_line(tmp_path, missing):
    folder = tmp_path / "train"
    splits.save(folder, (examples(), np.arange(1000)))
    (folder / f"{missing}.npy").write_bytes(b"no array")
    with pytest.raises(UserError, match=rf"^{folder} is damaged \(.+\); `dvc repro prepare` makes it again$"):
        splits.load(folder)
    (folder / f"{missing}.npy").unlink()
    with pytest.raises(
        UserError, match=rf"^{folder}/{missing}.npy is missing; `dvc repro prepare` makes it$"
    ):
        splits.load(folder)


def test_an_experiments_copy_shares_the_downloads(tmp_path, monkeypatch):
    copy, seen = tmp_path / ".dvc/tmp/exps/copy", []
    copy.mkdir(parents=True)
    monkeypatch.setattr(catalog, "load", lambda name, raw: seen.append(raw.resolve()) or sys.exit("seen"))
    for folder in (tmp_path, copy):
        shutil.copy(ROOT / "params.yaml", folder)
        shutil.copy(ROOT / "pyproject.toml", folder)
        monkeypatch.chdir(folder)
        with pytest.raises(SystemExit, match="seen"):
            prepare.main()
    name = yaml.safe_load((ROOT / "params.yaml").read_text())["prepare"]["dataset"]
    assert seen == [tmp_path / "data/raw" / name] * 2


def test_prepare_does_not_import_tensorflow():
    code = "import sys, stages.prepare; sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
