"""Trainings that continue from the store, in the tests' own process, with a stand-in for Dask's client."""

import pickle
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from stand_in import DaskClient

from stages.base import splits
from stages.base.splits import Split
from stages.compute import code, runner
from stages.compute.runner import Runner, Training
from stages.training.checkpoint import Checkpoint

TRAINING = Training({"units": 16}, 1, "rows")


@pytest.fixture
def dask():
    return DaskClient()


@pytest.fixture
def make(dask, tmp_path, monkeypatch):
    """A function that makes a runner on small data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(code, "training_code", dict)
    monkeypatch.setattr(code, "imported", lambda _: {})
    data = Split(np.zeros((10, 4), np.float32), np.zeros(10, np.int32))
    splits.save(splits.TRAINING, (data, np.arange(10)))
    settings = SimpleNamespace(runtime=SimpleNamespace(store="trials", store_gigabytes=1))
    return lambda rows=8: Runner(dask, settings, {"rows": (np.arange(rows), np.arange(rows, 10))})


@pytest.fixture
def one(make):
    with make() as started:
        yield started


def test_an_epoch_is_counted_once(one):
    one.progress, one.epochs = (counted := []).append, {TRAINING: 0}
    assert [one._count(TRAINING, epoch) for epoch in (2, 1, 2, 5, 3)] == [2, 0, 0, 3, 0]
    assert (counted, one.epochs) == ([2, 0, 0, 3, 0], {TRAINING: 5})


def reached(epoch: int, size: int = 3) -> Checkpoint:
    history, seconds = {"loss": [1.0] * epoch}, [0.5] * epoch
    return Checkpoint(epoch, [np.ones(size)], [np.ones(2)], history, seconds, size)


def test_the_longest_training_starts_first_and_what_is_stored_is_not_done_again(make, dask):
    def run(epochs_of: dict[Training, int]) -> Runner:
        started = make().__enter__()
        dask.submitted.clear()
        for training, epoch in epochs_of.items():
            dask.answers[started.key(training, epoch)] = [vars(reached(epoch))]
        done = {training: checkpoint.epoch for training, checkpoint, _ in started.run(epochs_of)}
        assert done == started.epochs == epochs_of
        return started

    other = Training({"units": 32}, 1, "rows")
    first = run({TRAINING: 2, other: 5})
    assert [job["key"] for job in dask.submitted] == [first.key(other, 5), first.key(TRAINING, 2)]
    assert ([job["checkpoint"] for job in dask.submitted], first.epochs_reused) == ([None, None], 0)
    second = run({TRAINING: 2, other: 7})
    [job] = dask.submitted
    assert (job["key"], job["checkpoint"]["epoch"]) == (first.key(other, 5), 5)
    assert job["checkpoint"]["weights"][0].tolist() == [1, 1, 1]
    assert (second.epochs_reused, second.stored) == (7, {first.key(other, 5), first.key(TRAINING, 2)})
    assert list(second.run({TRAINING: 2}))
    assert second.epochs_reused == 7


def test_a_training_goes_on_from_each_checkpoint_until_it_is_done(one, dask):
    """Each new checkpoint replaces the one before; the one that the training began with is kept."""
    key = one.key(TRAINING, 9)
    one._store.save(key, reached(2))
    one.stored = {key}
    dask.answers[key] = [vars(reached(epoch)) for epoch in (4, 7, 9)]
    one.progress = (counted := []).append
    [(training, checkpoint, _)] = one.run({TRAINING: 9})
    assert (training, checkpoint.epoch, checkpoint.weights) == (TRAINING, 9, [])
    assert [job["checkpoint"]["epoch"] for job in dask.submitted] == [2, 4, 7]
    assert (counted, one.epochs, one.epochs_reused) == ([2, 2, 3, 2], {TRAINING: 9}, 2)
    assert [one._store.load(key, epoch).epoch for epoch in (8, 9)] == [2, 9]


def test_other_data_and_other_rows_of_the_same_name_are_another_training(make):
    keys = [make(rows).__enter__().key(TRAINING, 1) for rows in (8, 7, 8)]
    other = Split(np.ones((10, 4), np.float32), np.zeros(10, np.int32))
    splits.save(splits.TRAINING, (other, np.arange(10)))
    keys.append(make().__enter__().key(TRAINING, 1))
    assert keys[0] == keys[2]
    assert len(set(keys)) == 3


def corrupt(path: Path) -> None:
    """Damage the arrays, but not the JSON."""
    path.write_bytes(path.read_bytes().replace(np.ones(3).tobytes(), np.zeros(3).tobytes()))


@pytest.mark.parametrize("damage", [Path.unlink, corrupt])
def test_a_checkpoint_that_is_gone_or_damaged_in_its_arrays_is_made_again(one, dask, monkeypatch, damage):
    """Before the training starts, only the JSON of its checkpoint is read."""
    key, load = one.key(TRAINING, 9), one._load
    one._store.save(key, reached(5))
    one.stored = {key}
    (path,) = Path("trials").glob("*-5.npz")

    def damage_and_load(*arguments, arrays=True):
        if arrays and path.exists():
            damage(path)
        return load(*arguments, arrays=arrays)

    monkeypatch.setattr(one, "_load", damage_and_load)
    dask.answers[key] = [vars(reached(epoch)) for epoch in (3, 9)]
    [(_, checkpoint, _)] = one.run({TRAINING: 9})
    assert checkpoint.epoch == 9
    assert [job["checkpoint"] and job["checkpoint"]["epoch"] for job in dask.submitted] == [None, 3]
    assert one._store.load(key).epoch == 9


def test_a_large_checkpoint_is_sent_less_often(one, monkeypatch):
    job = {"key": "key", "epochs": 9, "start": 0}
    assert one._with_checkpoint(job)["seconds"] == runner.SECONDS
    one._store.save("key", reached(2, size=998))  # 1,000 numbers of 8 bytes, 2 of them the optimizer's
    monkeypatch.setattr(runner, "BYTES_PER_SECOND", 100)
    assert one._with_checkpoint(job)["seconds"] == 80


def test_with_a_test_no_later_checkpoint_is_loaded(one):
    for epoch in (2, 4):
        one._store.save("key", reached(epoch), keep=2)
    assert one._load("key", 3).epoch == 4
    one._tests = "a.module"
    assert one._load("key", 3).epoch == 2


def test_data_is_sent_where_workers_may_share_no_disk(make, dask):
    def sent() -> object:
        return pickle.loads(make()._workers._plugin.arguments)["data"]["training"]  # noqa: S301 - made here

    assert sent().keys() == {"inputs", "labels"}
    dask.cluster = object()
    assert sent() == str(splits.TRAINING.absolute())
