"""The split and the prepared files."""

import subprocess
import sys

import numpy as np
import pytest

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
    assert sorted(np.concatenate([train.inputs, validation.inputs]).ravel()) == list(range(1000))
    assert np.abs(np.bincount(validation.labels) - 0.2 * np.bincount(data.labels)).max() < 1
    assert np.array_equal(data.labels[train.inputs.ravel().astype(int)], train.labels)


def test_labels_that_are_numbers_are_split_too():
    data = Split(examples().inputs, np.linspace(0, 1, 1000, dtype=np.float32))
    train, validation = split(data, 0.2, seed=1)
    assert (len(train.labels), len(validation.labels)) == (800, 200)
    assert (data.classes, data.outputs, examples().outputs) == (None, 1, 10)


def test_the_seed_draws_the_split():
    first, again, other = (split(examples(), 0.2, seed)[1].inputs for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("share", [0.001, 0.999])
def test_a_share_that_leaves_too_few_images_is_named(share):
    with pytest.raises(UserError, match=f"params.yaml: prepare.validation_split is {share}, too near 0 or 1"):
        split(examples(), share, seed=1)


def test_an_unknown_data_set_is_named_with_those_that_there_are(tmp_path):
    with pytest.raises(UserError, match=r"prepare.dataset is cifar10, but should be one of mnist, fashion_mnist, digits"):
        catalog.load("cifar10", tmp_path)


def test_splits_load_without_pickle_and_memory_mapped(tmp_path):
    splits.save(tmp_path / "train", examples())
    loaded = splits.load(tmp_path / "train")
    assert isinstance(loaded.inputs, np.memmap)
    assert np.array_equal(loaded.inputs, examples().inputs)
    assert (loaded.labels.dtype, loaded.classes) == (np.int32, 10)


def test_prepare_does_not_import_tensorflow():
    code = "import sys, stages.prepare; sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
