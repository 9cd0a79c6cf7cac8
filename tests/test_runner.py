"""What the client makes of what workers tell, in the tests' own process: a stand-in is Dask's client."""

import time
from concurrent.futures import Future
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

    def submit(self, _, name: str, task: str, job: dict, device: str, *sent, **how) -> Future:
        self.submitted.append((job["key"], sent, how["priority"]))
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
    """A runner that was asked for one training to epoch 5, and what it says is done of it."""
    one, one.counted = make(), []
    one.progress = one.counted.append
    one._asked["key"] = TRAINING, 5
    one._note("key", 0)
    return one


def test_an_epoch_is_counted_once_and_none_beyond_what_was_asked_for(one):
    for epoch in (2, 1, 2, 9, 3):
        one._heed("worker", key="key", epoch=epoch)
    assert (one.counted, one.epochs) == ([2, 3], {TRAINING: 5})


def test_a_training_of_which_workers_died_four_times_without_getting_further_has_failed(one):
    killed = Future()
    killed.set_exception(distributed.KilledWorker("task", None, 3))

    def results(begun: int) -> list[dict | None]:
        found = []
        for _ in range(begun):
            one._heed("worker", key="key")
            found.append(one._result("key", killed))
        return found

    assert results(3) == [None, None, None]
    one._heed("worker", key="key", epoch=1)
    said = {"failure": "the worker died 4 times while training it, as for want of memory"}
    assert results(4) == [None, None, None, said]


def test_a_mistake_and_what_a_worker_cannot_do_end_the_stage_in_one_line(one):
    mistake, fault = Future(), Future()
    mistake.set_result({"mistake": "mend it"})
    fault.set_exception(RuntimeError("worker a: OSError: no"))
    with pytest.raises(UserError, match=r"^mend it$"):
        one._result("key", mistake)
    with pytest.raises(
        UserError, match=r"^worker a: OSError: no, after 3 tries; mend or stop the worker; .+$"
    ):
        one._result("key", fault)


def test_tasks_are_as_urgent_as_they_stand_and_are_done_again_without_a_result(one, dask):
    one._heed("worker", device="CPU")
    dask.answers = {"a": [{}, {"parameters": 1}], "b": [{"parameters": 2}]}
    results = dict(one._results("compare", {key: {"key": key} for key in dask.answers}))
    assert results == {"a": {"parameters": 1}, "b": {"parameters": 2}}
    assert dask.submitted == [("a", (), 0), ("b", (), -1), ("a", (), 0)]


def test_the_longest_training_starts_first_and_what_is_stored_is_not_done_again(make, dask):
    """By workers that do not reach the store: a checkpoint goes with the task, and comes with the result."""

    def run(asked: dict[Training, int]) -> Runner:
        started = make()
        started._heed("worker", device="CPU")
        dask.submitted.clear()
        for training, epoch in asked.items():
            history, seconds = {"loss": [1.0] * epoch}, [0.5] * epoch
            reached = Checkpoint(epoch, [np.ones(3)], [np.ones(2)], history, seconds, 3)
            dask.answers[started.key(training, epoch)] = [vars(reached)]
        done = {training: checkpoint.epoch for training, checkpoint, _ in started.run(asked)}
        assert done == started.epochs == asked
        return started

    other = Training({"units": 32}, 1, "rows")
    first = run({TRAINING: 2, other: 5})
    assert [key for key, *_ in dask.submitted] == [first.key(other, 5), first.key(TRAINING, 2)]
    assert ([sent for _, sent, _ in dask.submitted], first.epochs_reused) == ([(None,), (None,)], 0)
    second = run({TRAINING: 2, other: 7})
    [(key, [sent], _)] = dask.submitted
    assert (key, sent["epoch"], sent["weights"][0].tolist()) == (first.key(other, 5), 5, [1, 1, 1])
    assert (second.epochs_reused, second.stored) == (7, {first.key(other, 5), first.key(TRAINING, 2)})
    assert list(second.run({TRAINING: 2}))
    assert second.epochs_reused == 7


def test_a_test_goes_on_from_the_epoch_asked_for_or_an_earlier_one(one):
    for epoch in (2, 4):
        one._store.save("key", Checkpoint(epoch, [], [], {}, [], 3), keep=2)
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
    with pytest.raises(UserError, match=r"^there are no workers \(b: keras 9.9\); start one with .+$"):
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
    monkeypatch.setattr(runner, "MOST_SENT", 200e-9)
    assert not make()._shared  # data of 10 x 4 + 10 numbers of four bytes each
    monkeypatch.setattr(runner, "MOST_SENT", 199e-9)
    with pytest.raises(
        UserError, match=r"^data/prepared has 0\.0 GB, but .+ unset it to train on this machine$"
    ):
        make()
    dask.cluster = object()
    assert make()._shared


def test_workers_with_another_python_are_retired(one, dask, capsys):
    ours, retired = one._search.expected["Python"], []
    pythons = {"a": f"{ours}.9.final.0", "b": "3.1.9.final.0"}
    hosts = {worker: {"host": {"python": python}} for worker, python in pythons.items()}
    dask.get_versions = lambda: {"workers": hosts}
    dask.retire_workers = lambda workers, close_workers: retired.extend(workers)
    one._send_other_pythons_away()
    assert retired == ["b"]
    assert capsys.readouterr().err == f"worker b was sent away: Python 3.1 where the client has {ours}\n"


def test_the_end_leaves_a_client_alone_that_is_closed(one, dask):
    dask.status = "closed"
    one.__exit__()
    assert dask.ended == []
    dask.status = "running"
    one.__exit__()
    assert dask.ended == [one._name]
