"""The split and the prepared files."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

from stages import prepare
from stages.base import splits
from stages.base.console import UserError
from stages.base.splits import Split
from stages.datasets import catalog
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


def test_the_seed_draws_the_split():
    first, again, other = (split(examples(), 0.2, seed)[1] for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_parts_are_written_one_after_the_other_and_come_back_to_the_bit(tmp_path, monkeypatch):
    """Also if they are larger than what is copied at once; what is written to them stays in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(splits, "_CHUNK", 100)
    data = examples()
    train, validation = split(data, 0.2, seed=1)
    splits.save(splits.TRAINING, data, train, validation)
    read = splits.load(splits.TRAINING)
    rows = np.concatenate([train, validation])
    assert np.array_equal(read.inputs, data.inputs[rows])
    assert np.array_equal(read.labels, data.labels[rows])
    assert (read.inputs.dtype, read.labels.dtype, splits.train_size()) == (np.float32, np.int32, 800)
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


def test_an_unknown_data_set_is_named_with_those_that_there_are(tmp_path):
    with pytest.raises(
        UserError, match=r"prepare.dataset is cifar10, but should be one of mnist, fashion_mnist, digits"
    ):
        catalog.load("cifar10", tmp_path)


def numbers(labels=(0, 0, 1, 1), dtype=np.int32, shape=(2,)) -> Split:
    return Split(np.zeros((len(labels), *shape), np.float32), np.array(labels, dtype))


def with_input(value: float) -> Split:
    data = numbers()
    data.inputs[2, 1] = value
    return data


UNLIKE = "the train part has inputs of shape (2,), int32 labels, but the test part inputs of shape"


@pytest.mark.parametrize(
    ("train", "test", "problem"),
    [
        (
            Split(numbers().inputs[:3], numbers().labels),
            numbers(),
            "the train part has 3 examples, but labels of shape (4,)",
        ),
        (numbers(), numbers(()), "the test part has 0 examples, but labels of shape (0,)"),
        (
            numbers(dtype=np.int64),
            numbers(),
            "the train part has float32 inputs and int64 labels, not float32 and int32 or float32",
        ),
        (
            numbers((0, 1, np.nan), np.float32),
            numbers(),
            "1 of 3 labels of the train part are missing (NaN, or a class below 0)",
        ),
        (
            numbers(),
            numbers((0, -1, 1, -1)),
            "2 of 4 labels of the test part are missing (NaN, or a class below 0)",
        ),
        (with_input(np.nan), numbers(), "1 of 4 examples of the train part hold NaN or an infinite value"),
        (numbers(), with_input(-np.inf), "1 of 4 examples of the test part hold NaN or an infinite value"),
        (numbers(), numbers(shape=(3,)), f"{UNLIKE} (3,), int32 labels"),
        (numbers(), numbers(dtype=np.float32), f"{UNLIKE} (2,), float32 labels"),
        (numbers((0, 0)), numbers(), "all labels of the train part are 0; there should be two at least"),
        (
            numbers((1.5, 1.5), np.float32),
            numbers(dtype=np.float32),
            "all labels of the train part are 1.5; there should be",
        ),
        (
            numbers((0, 0, 1)),
            numbers(),
            "the train part has 1 examples of class 1, but needs 2, one of them for validation",
        ),
        (numbers(), numbers((0, 2)), "the test part has class 2, but the train part only classes up to 1"),
    ],
)
def test_what_cannot_be_trained_on_is_named(train, test, problem, monkeypatch, tmp_path):
    monkeypatch.setitem(catalog.DATASETS, "own", lambda raw: catalog.Dataset(train, test, {}))
    with pytest.raises(UserError) as error:
        catalog.load("own", tmp_path)
    assert str(error.value).startswith(f"own: {problem}")
    assert "\n" not in str(error.value)


def test_good_data_are_loaded(monkeypatch, tmp_path):
    for data in (numbers(), numbers(dtype=np.float32)):
        monkeypatch.setitem(catalog.DATASETS, "own", lambda raw, data=data: catalog.Dataset(data, data, {}))
        assert catalog.load("own", tmp_path).train is data


TABLE = pd.DataFrame(
    {"a": [1.0, 3.0, 5.0, 7.0], "b": ["x", "y", "x", "y"], "kind": ["no", "yes", "yes", "no"]}
)


def test_a_table_is_standardised_by_its_train_part(tmp_path):
    """Columns are matched by their names, whatever their order."""
    file = tmp_path / "data.csv"
    TABLE.to_csv(file)
    data = catalog.from_tables(TABLE[:3], TABLE[["kind", "b", "a"]][3:], "kind", file)
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
    of_booleans = catalog.from_tables(true_or_false[:3], true_or_false[3:], "kind")
    assert of_booleans.train.labels.tolist() == [0, 1, 1]
    of_numbers = catalog.from_tables(TABLE[:3], TABLE[3:], "a")
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
    ],
)
def test_columns_that_differ_or_lack_values_are_named(train, test, label, problem):
    with pytest.raises(
        UserError, match=f"^data.csv: {problem}; mend the file, or leave out the column or those rows$"
    ):
        catalog.from_tables(train, test, label, Path("data.csv"))


def test_splits_load_without_pickle_and_memory_mapped(tmp_path):
    splits.save(tmp_path / "train", examples())
    loaded = splits.load(tmp_path / "train")
    assert isinstance(loaded.inputs, np.memmap)
    assert np.array_equal(loaded.inputs, examples().inputs)
    assert (loaded.labels.dtype, loaded.classes) == (np.int32, 10)


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
    assert seen == [tmp_path / "data/raw/mnist"] * 2


def test_prepare_does_not_import_tensorflow():
    code = "import sys, stages.prepare; sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
