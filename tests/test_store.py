"""The store: whole entries or none, whatever happens to the process or the file."""

import errno
import multiprocessing
import os
import pathlib
import signal
from dataclasses import asdict, replace

import numpy as np
import pytest

from stages.base import splits
from stages.base.console import UserError
from stages.base.splits import Split
from stages.compute import store as trials
from stages.compute.store import Store
from stages.training.checkpoint import Checkpoint

KEY, *KEYS = [trials.key(number=number) for number in range(5)]


def checkpoint(epoch=2, size=10) -> Checkpoint:
    history = {"loss": [1 / 3] * epoch, "val_loss": [float("nan")] * epoch}
    weights = [np.arange(size, dtype=np.float32), np.float32([[1, 2], [3, 4]])]
    return Checkpoint(
        epoch, weights, [np.int64(7), np.zeros(3, np.float32)], history, [0.5] * epoch, size + 4, stopped=True
    )


def assert_same(first: Checkpoint, second: Checkpoint) -> None:
    np.testing.assert_equal(asdict(first), asdict(second))
    for one, other in zip(first.weights + first.optimizer, second.weights + second.optimizer, strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def store(folder):
    return Store(folder)


def test_a_checkpoint_is_read_back_to_the_bit(store):
    assert store.load(KEY) is None
    store.save(KEY, checkpoint())
    assert_same(store.load(KEY), checkpoint())
    assert_same(store.load(KEY, arrays=False), replace(checkpoint(), weights=[], optimizer=[]))
    store.save(KEY, checkpoint(epoch=3))
    assert store.load(KEY).epoch == 3
    assert store.load(KEYS[0]) is None


def test_a_damaged_entry_is_ignored_and_made_again(store, folder):
    store.save(KEY, checkpoint())
    (path,) = folder.rglob("*.npz")
    whole = path.read_bytes()
    for damaged in (b"", whole[:10], whole[:-1], b"\x80\x04K\x01.", os.urandom(len(whole))):
        path.write_bytes(damaged)
        assert store.load(KEY) is None
    for position in range(0, len(whole), 7):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        read = store.load(KEY)  # some bits do not matter, such as those of a file's date in the archive
        assert read is None or assert_same(read, checkpoint()) is None
    store.save(KEY, checkpoint())
    assert_same(store.load(KEY), checkpoint())


def test_saving_a_shorter_training_keeps_a_longer_one(store, folder):
    for epoch in (10, 4, 5, 6):
        store.save(KEY, checkpoint(epoch), keep=4)
    assert sorted(int(path.stem.partition("-")[2]) for path in folder.iterdir()) == [4, 6, 10]
    assert [store.load(KEY, epochs).epoch for epochs in (4, 5, 9, 10, None)] == [4, 4, 6, 10, 10]
    assert store.load(KEY, 3) is None
    (folder / f"{KEY}-10.npz").write_bytes(b"damaged")
    assert store.load(KEY).epoch == 6


FORK = multiprocessing.get_context("fork")  # a spawned process would import TensorFlow, which takes seconds


def killed_at(place, name, store) -> None:
    setattr(place, name, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    store.save(KEY, checkpoint(epoch=5))


@pytest.mark.parametrize("moment", [(os, "fsync"), (pathlib.Path, "replace")], ids=["fsync", "replace"])
def test_a_process_killed_before_the_rename_leaves_the_store_as_it_was(store, folder, moment):
    """A process that dies after writing, before the file is on disk or before it is renamed."""
    store.save(KEY, checkpoint(epoch=2))
    process = FORK.Process(target=killed_at, args=(*moment, store))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert len(list(folder.iterdir())) == 2
    assert_same(store.load(KEY), checkpoint(epoch=2))
    assert store.keys() == {KEY}
    os.utime(next(folder.rglob(".writing-*")), (0, 0))
    store.prune(1e9)
    assert [path.suffix for path in folder.rglob("*") if path.is_file()] == [".npz"]


def write_and_read(folder) -> int:
    store, read = Store(folder), 0
    for _ in range(100):
        store.save(KEY, checkpoint(size=10_000))
        read += store.load(KEY) is not None
        store.prune(1e9)
    return read


def test_two_searches_at_once_do_not_disturb_each_other(folder):
    with FORK.Pool(2) as pool:
        assert pool.map(write_and_read, [folder] * 2) == [100, 100]


def test_the_size_is_bounded_and_the_most_recently_used_are_kept(store, folder):
    for number in range(4):
        store.save(KEYS[number], checkpoint(size=1000))
        os.utime(folder / f"{KEYS[number]}-2.npz", (number, number))
    assert store.load(KEYS[0])  # which makes it the most recently used
    size = (folder / f"{KEYS[0]}-2.npz").stat().st_size
    for kept in (2.5 * size, 2 * size):
        store.prune(kept)
        assert store.keys() == {KEYS[0], KEYS[3]}
    store.prune(2 * size - 1)
    assert store.keys() == {KEYS[0]}


@pytest.mark.parametrize(("file", "kind"), [("", "FileExistsError"), ("trials", "NotADirectoryError")])
def test_a_folder_that_cannot_be_used_is_one_line(tmp_path, file, kind):
    (tmp_path / "file").touch()
    with pytest.raises(
        UserError, match=rf"^params.yaml: runtime.store cannot be used: \S+/file\S*: {kind}: .+$"
    ):
        Store(tmp_path / "file" / file)


def test_other_files_in_the_folder_are_left_alone(store, folder):
    mine = {folder / name for name in ("mine-2.npz", f"{KEY}-mine.npz", f"{KEY}-2.txt")}
    for path in mine:
        path.touch()
    store.prune(0)
    assert store.keys() == set()
    assert {*folder.iterdir()} == mine


def test_a_file_that_cannot_be_read_is_not_used(store, monkeypatch):
    store.save(KEY, checkpoint())

    def load(*_, **__):
        raise OSError(errno.EIO, "no disk")

    monkeypatch.setattr(trials.np, "load", load)
    assert store.load(KEY) is None


def test_a_key_depends_on_everything_that_decides():
    base = {"hyperparameters": {"units": 16, "dropout": 0.2}, "seed": 1, "code": "a"}
    assert trials.key(**base) == trials.key(code="a", seed=1, hyperparameters={"dropout": 0.2, "units": 16})
    others = [
        {**base, "seed": 2},
        {**base, "code": "b"},
        {**base, "hyperparameters": {"units": 16, "dropout": 0.25}},
    ]
    assert len({trials.key(**decides) for decides in [base, *others]}) == 4


def test_the_digest_of_data_depends_on_each_pixel_and_label():
    images, labels = np.zeros((4, 2, 2), np.float32), np.zeros(4, np.int32)
    digests = {
        splits.digest(Split(images, labels)),
        splits.digest(Split(images.reshape(2, 2, 2, 2), labels)),
    }
    images[3, 1, 1] = 1
    digests.add(splits.digest(Split(images, labels)))
    labels[0] = 1
    digests.add(splits.digest(Split(images, labels)))
    assert len(digests) == 4
