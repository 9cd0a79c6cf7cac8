"""What the client makes of what workers tell, in the tests' own process: a stand-in is Dask's client."""

import pickle
import time
from collections import deque
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import distributed
import numpy as np
import pytest

from stages.base import splits
from stages.base.console import UserError
from stages.base.splits import Split
from stages.compute import code, runner
from stages.compute.runner import Runner, Training
from stages.training.checkpoint import Checkpoint

TRAINING = Training({"units": 16}, 1, "rows")


class Client:
    """Dask's client, as far as the runner knows it; each task that it is given ends at once."""

    id, status, cluster = "Client-a", "running", None
    scheduler = SimpleNamespace(address="tcp://scheduler")

    def __init__(self):
        self.threads, self.submitted, self.answers, self.ended = {}, [], {}, []

    def nthreads(self) -> dict[str, int]:
        return self.threads

    def submit(self, _, name: str, task: str, job: dict, device: str, **how) -> Future:
        self.submitted.append(job)
        future = Future()
        future.set_result(self.answers[job["key"]].pop(0))
        return future

    def unregister_worker_plugin(self, name: str) -> None:
        self.ended.append(name)


@pytest.fixture
def dask():
    return Client()


@pytest.fixture
def make(dask, tmp_path, monkeypatch):
    """A function that makes a runner on data of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(code, "training_code", dict)
    monkeypatch.setattr(code, "imported", lambda _: {})
    data = Split(np.zeros((10, 4), np.float32), np.zeros(10, np.int32))
    splits.save(splits.TRAINING, (data, np.arange(10)))
    settings = SimpleNamespace(runtime=SimpleNamespace(store="trials", store_gigabytes=1))
    return lambda: Runner(dask, settings, {"rows": (np.arange(8), np.arange(8, 10))})


@pytest.fixture
def one(make):
    return make()


def test_an_epoch_is_counted_once(one):
    one.progress, one.epochs = (counted := []).append, {TRAINING: 0}
    assert [one._count(TRAINING, epoch) for epoch in (2, 1, 2, 5, 3)] == [2, 0, 0, 3, 0]
    assert (counted, one.epochs) == ([2, 0, 0, 3, 0], {TRAINING: 5})


def test_a_training_of_which_workers_died_as_often_as_dask_allows_has_failed(one):
    killed = Future()
    killed.set_exception(distributed.KilledWorker("task", None, 3))
    said = {"failure": "the worker died 4 times while training it, as for want of memory"}
    assert one._result(killed) == said


def test_a_mistake_and_what_a_worker_cannot_do_end_the_stage_in_one_line(one):
    mistake, fault = Future(), Future()
    mistake.set_result({"mistake": "mend it"})
    fault.set_exception(RuntimeError("worker a: OSError: no"))
    with pytest.raises(UserError, match=r"^mend it$"):
        one._result(mistake)
    with pytest.raises(
        UserError, match=r"^worker a: OSError: no, after 3 tries; mend or stop the worker; .+$"
    ):
        one._result(fault)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_each_worker_has_one_task_at_a_time_in_the_order_of_the_jobs(one, dask, workers):
    one._heed("worker", device="CPU")
    dask.threads = {str(number): 4 for number in range(workers)}
    dask.answers = {key: [{"of": key}] for key in "abcd"}
    jobs, submitted = deque({"key": key} for key in "abc"), []
    for job, result in one._results("compare", jobs):
        assert result == {"of": job["key"]}
        submitted.append("".join(each["key"] for each in dask.submitted))
        if job["key"] == "a":
            jobs.appendleft({"key": "d"})  # what goes on comes first
    assert submitted == (["ab", "abd", "abdc", "abdc"] if workers == 2 else ["a", "ad", "adb", "adbc"])


def reached(epoch: int, size: int = 3) -> Checkpoint:
    history, seconds = {"loss": [1.0] * epoch}, [0.5] * epoch
    return Checkpoint(epoch, [np.ones(size)], [np.ones(2)], history, seconds, size)


def test_the_longest_training_starts_first_and_what_is_stored_is_not_done_again(make, dask):
    def run(asked: dict[Training, int]) -> Runner:
        started = make()
        started._heed("worker", device="CPU")
        dask.submitted.clear()
        for training, epoch in asked.items():
            dask.answers[started.key(training, epoch)] = [vars(reached(epoch))]
        done = {training: checkpoint.epoch for training, checkpoint, _ in started.run(asked)}
        assert done == started.epochs == asked
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
    """Those on the way are stored in place of each other; the one that it began with stays."""
    one._heed("worker", device="CPU")
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


def corrupt(path: Path) -> None:
    """Damage the arrays, which come after the JSON."""
    path.write_bytes(path.read_bytes().replace(np.ones(3).tobytes(), np.zeros(3).tobytes()))


@pytest.mark.parametrize("damage", [Path.unlink, corrupt])
def test_a_checkpoint_that_is_gone_or_damaged_in_its_arrays_is_made_again(one, dask, monkeypatch, damage):
    """Only its JSON is read before the training starts."""
    one._heed("worker", device="CPU")
    key, load = one.key(TRAINING, 9), one._load
    one._store.save(key, reached(5))
    one.stored = {key}
    (path,) = Path("trials").glob("*/5.npz")

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


def test_a_large_checkpoint_travels_less_often(one, monkeypatch):
    job = {"key": "key", "epochs": 9, "start": 0}
    assert one._with_checkpoint(job)["seconds"] == runner.SECONDS
    one._store.save("key", reached(2, size=998))  # 1,000 numbers of eight bytes, with those of the optimizer
    monkeypatch.setattr(runner, "BYTES_PER_SECOND", 100)
    assert one._with_checkpoint(job)["seconds"] == 80
    assert one._with_checkpoint({"networks": {}}) == {"networks": {}}


def test_a_test_goes_on_from_the_epoch_asked_for_or_an_earlier_one(one):
    for epoch in (2, 4):
        one._store.save("key", reached(epoch), keep=2)
    assert one._load("key", 3).epoch == 4
    one._tests = "a.module"
    assert one._load("key", 3).epoch == 2


def test_a_gpu_is_what_the_search_computes_on_if_a_worker_has_one(one):
    for device in ("CPU", "GPU"):
        one._heed("worker", device=device)
    assert one._device == "GPU"


def test_without_workers_the_wait_is_a_minute_unless_the_only_ones_cannot_do_it(one, dask, capsys):
    one._last_seen = time.monotonic() - runner.WORKERS_TIMEOUT + 20
    one._check_workers()
    one._last_seen -= 30
    with pytest.raises(
        UserError, match=r"^there are no workers; start one with `dask worker tcp://scheduler`$"
    ):
        one._check_workers()
    one._last_seen += 30
    for worker in ("a", "b"):
        one._heed(worker, left="keras 9.9")
    assert capsys.readouterr().err == "worker a was sent away: keras 9.9\n"
    dask.threads = {"c": 1}
    before = one._last_seen
    one._check_workers()  # c is not ready, and may become it, but not for ever
    assert one._last_seen == before
    dask.threads = {}
    with pytest.raises(UserError, match=r"^there are no workers \(a: keras 9.9\); start one with .+$"):
        one._check_workers()
    one._heed("c", device="CPU")
    one._check_workers()  # c was there, and another may come
    one._last_seen, dask.threads = 0, {"c": 1}
    one._check_workers()
    assert time.monotonic() - one._last_seen < 10
    dask.status = "closed"
    with pytest.raises(OSError, match="the connection is closed"):
        one._check_workers()


def test_data_that_no_message_can_hold_is_refused_where_it_has_to_be_sent(make, dask, monkeypatch):
    def sent() -> object:
        return pickle.loads(make()._search.arguments)["data"]["training"]  # noqa: S301 - made here

    monkeypatch.setattr(runner, "MOST_SENT", 200e-9)
    assert sent().keys() == {"inputs", "labels"}  # 10 x 4 + 10 numbers of four bytes each
    monkeypatch.setattr(runner, "MOST_SENT", 199e-9)
    with pytest.raises(
        UserError, match=r"^data/prepared has 0\.0 GB, but .+ unset it to train on this machine$"
    ):
        make()
    dask.cluster = object()
    assert sent() == str(splits.TRAINING.absolute())


def test_workers_with_another_python_are_retired(one, dask, capsys):
    ours, retired = one._search.expected["Python"], []
    pythons = {"a": f"{ours}.9.final.0", "b": "3.1.9.final.0"}
    hosts = {worker: {"host": {"python": python}} for worker, python in pythons.items()}
    dask.get_versions = lambda: {"workers": hosts, "scheduler": hosts["a"]}
    dask.retire_workers = lambda workers, close_workers: retired.extend(workers)
    one._send_other_pythons_away()
    assert retired == ["b"]
    assert capsys.readouterr().err == f"worker b was sent away: Python 3.1 where the client has {ours}\n"


def test_a_scheduler_with_another_python_is_one_line(one, dask):
    ours = one._search.expected["Python"]
    dask.get_versions = lambda: {"workers": {}, "scheduler": {"host": {"python": "3.1.9.final.0"}}}
    line = rf"^the scheduler has Python 3.1 where the client has {ours}; start it anew$"
    with pytest.raises(UserError, match=line):
        one._send_other_pythons_away()


def test_a_mistake_that_a_worker_finds_at_its_start_ends_the_search(one, dask):
    dask.threads = {"a": 1}
    one._heed("a", mistake="AttributeError: Denze")
    with pytest.raises(UserError, match=r"^AttributeError: Denze$"):
        one.key(TRAINING, 1)


def test_a_scheduler_that_dies_before_a_worker_is_ready_is_one_line(one, dask):
    dask.status = "closed"
    with pytest.raises(UserError, match=r"^the cluster is gone \(the connection is closed\); run again$"):
        one.key(TRAINING, 1)


def test_the_end_leaves_a_client_alone_that_is_closed(one, dask):
    dask.status = "closed"
    one.__exit__()
    assert dask.ended == []
    dask.status = "running"
    one.__exit__()
    assert dask.ended == [one._name]
