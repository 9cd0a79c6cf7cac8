"""How a stage handles the workers' results, in the tests' own process, with a stand-in for Dask's client."""

import pickle
import time
from collections import deque
from concurrent.futures import Future

import distributed
import pytest
from stand_in import ABOUT, DaskClient

from stages.base.console import UserError
from stages.compute import workers
from stages.compute.workers import Workers


@pytest.fixture
def dask():
    return DaskClient()


@pytest.fixture
def one(dask):
    return Workers(dask, {}, "a.module", {}).__enter__()


def failed(error: Exception) -> Future:
    future = Future()
    future.set_exception(error)
    return future


def test_a_training_that_killed_as_many_workers_as_dask_allows_has_failed(one):
    said = {"failure": "the worker died 4 times while training it, perhaps out of memory"}
    assert one._result(failed(distributed.KilledWorker("task", None, 3))) == said


def test_a_network_that_is_too_large_has_failed(one):
    """It must not end the stage, which would then end the same way on every run."""
    said = {"failure": "out of memory in 3 tries (MemoryError: 9 GB)"}
    assert one._result(failed(MemoryError("MemoryError: 9 GB"))) == said


def test_a_mistake_and_what_a_worker_cannot_do_end_the_stage_in_one_line(one):
    mistake = Future()
    mistake.set_result({"mistake": "fix it"})
    with pytest.raises(UserError, match=r"^fix it$"):
        one._result(mistake)
    line = r"^worker a: OSError: no, after 3 tries; fix or stop the worker; .+$"
    with pytest.raises(UserError, match=line):
        one._result(failed(RuntimeError("worker a: OSError: no")))


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_each_worker_has_one_task_at_a_time_in_the_order_of_the_jobs(one, dask, workers):
    dask.threads = {str(number): 4 for number in range(workers)}
    dask.answers = {key: [{"of": key}] for key in "abcd"}
    jobs, submitted = deque({"key": key} for key in "abc"), []
    for job, result in one.results("compare", jobs):
        assert result == {"of": job["key"]}
        submitted.append("".join(each["key"] for each in dask.submitted))
        if job["key"] == "a":
            jobs.appendleft({"key": "d"})  # an unfinished training continues before others start
    assert submitted == (["ab", "abd", "abdc", "abdc"] if workers == 2 else ["a", "ad", "adb", "adbc"])


def test_all_train_on_gpus_if_a_worker_has_one(dask):
    """The device is part of the keys in the store, so workers that join later do not change it."""
    dask.threads = dict.fromkeys("abc", 1)
    dask.abouts = [ABOUT, {"device": "GPU", "takes_epochs": False}, ABOUT]
    one = Workers(dask, {}, "a.module", {}).__enter__()
    assert one.about["device"] == "GPU"
    dask.answers = {"key": [{}]}
    assert list(one.results("train", deque([{"key": "key"}]))) == [({"key": "key"}, {})]
    assert dask.devices == ["GPU"]


def test_a_worker_that_does_not_answer_holds_up_the_others_for_a_minute_only(dask, monkeypatch):
    dask.threads = dict.fromkeys("ab", 1)
    submit, futures = dask.submit, [Future()]
    dask.submit = lambda *arguments, **how: futures.pop() if futures else submit(*arguments, **how)
    one = Workers(dask, {}, "a.module", {}).__enter__()
    monkeypatch.setattr(workers, "TIMEOUT", 0)
    one._last_seen = 0
    assert one.about == ABOUT


def test_the_reason_why_workers_leave_is_printed_once(one, dask, capsys):
    for worker in "ab":
        dask.topics[one._name](("time", {"worker": worker, "reason": "keras 9.9"}))
    assert capsys.readouterr().err == "worker a was sent away: keras 9.9\n"


class LostOnce(Future):
    """A finished task whose result is lost at the first try."""

    lost = False

    def result(self, timeout: float) -> dict:
        self.lost = not self.lost
        if self.lost:
            raise TimeoutError
        return {"of": "a"}


def test_a_result_that_is_lost_with_its_worker_is_waited_for_again(one, dask):
    assert one.about == ABOUT
    future = LostOnce()
    future.set_result(None)
    dask.submit = lambda *_, **__: future
    assert list(one.results("train", deque([{"key": "a"}]))) == [({"key": "a"}, {"of": "a"})]


def test_without_workers_the_wait_is_a_minute_unless_the_only_ones_cannot_be_used(one, dask):
    one._last_seen = time.monotonic() - workers.TIMEOUT + 20
    one._check()
    one._last_seen -= 30
    with pytest.raises(
        UserError, match=r"^there are no workers; start one with `dask worker tcp://scheduler`$"
    ):
        one._check()
    one._last_seen += 30
    one._report("a", "keras 9.9")
    with pytest.raises(UserError, match=r"^there are no workers \(a: keras 9.9\); start one with .+$"):
        one._check()
    one._last_seen, dask.threads = time.monotonic() - workers.TIMEOUT + 20, {"b": 1}
    one._check()  # b may still become ready, but not for ever
    one._last_seen -= 30
    one._reasons.clear()
    with pytest.raises(UserError, match=r"^there are no workers \(the connected ones do not answer\); .+$"):
        one._check()
    dask.threads = {}
    assert one.about == ABOUT  # of a worker that has gone
    one._last_seen = time.monotonic()
    one._check()  # another may join
    one._last_seen, dask.threads = 0, {"c": 1}
    one._check()
    assert time.monotonic() - one._last_seen < 10
    dask.status = "closed"
    with pytest.raises(OSError, match="the connection is closed"):
        one._check()


def test_once_a_worker_was_ready_another_is_waited_for_though_some_cannot_be_used(one):
    assert one.about == ABOUT
    one._report("a", "keras 9.9")
    one._last_seen = time.monotonic() - workers.TIMEOUT + 20
    one._check()
    one._last_seen -= 30
    with pytest.raises(UserError, match=r"^there are no workers \(a: keras 9.9\); start one with .+$"):
        one._check()


def test_data_too_large_for_a_message_is_refused(dask, monkeypatch):
    line = r"^data/prepared has 0\.0 GB, but .+ unset it to train on this machine$"
    session = {"data": bytes(200)}
    size = len(pickle.dumps(session))
    monkeypatch.setattr(workers, "LARGEST_MESSAGE", size)
    Workers(dask, {}, "a.module", session)
    monkeypatch.setattr(workers, "LARGEST_MESSAGE", size - 1)
    with pytest.raises(UserError, match=line):
        Workers(dask, {}, "a.module", session)


def test_workers_with_another_python_are_retired(one, dask, capsys):
    ours, retired = one.versions["Python"], []
    pythons = {"a": f"{ours}.9.final.0", "b": "3.1.9.final.0"}
    hosts = {worker: {"host": {"python": python}} for worker, python in pythons.items()}
    dask.get_versions = lambda: {"workers": hosts, "scheduler": hosts["a"]}
    dask.retire_workers = lambda workers, close_workers: retired.extend(workers)
    one._retire_other_pythons()
    assert retired == ["b"]
    assert capsys.readouterr().err == f"worker b was sent away: Python 3.1 where the client has {ours}\n"


def test_a_scheduler_with_another_python_is_one_line(one, dask):
    ours = one.versions["Python"]
    dask.get_versions = lambda: {"workers": {}, "scheduler": {"host": {"python": "3.1.9.final.0"}}}
    line = rf"^the scheduler has Python 3.1 where the client has {ours}; restart it$"
    with pytest.raises(UserError, match=line):
        one._retire_other_pythons()


def test_what_a_worker_finds_at_its_start_ends_the_stage(dask):
    dask.abouts = [{"mistake": "AttributeError: Denze"}]
    one = Workers(dask, {}, "a.module", {}).__enter__()
    with pytest.raises(UserError, match=r"^AttributeError: Denze$"):
        next(one.results("train", deque([{}])))
    dask.submit = lambda *_, **__: failed(distributed.KilledWorker("task", None, 3))
    line = r"^no worker can start: out of memory; set a smaller runtime.workers, or .+$"
    with pytest.raises(UserError, match=line):
        _ = Workers(dask, {}, "a.module", {}).__enter__().about


def test_a_scheduler_that_dies_before_a_worker_is_ready_is_one_line(dask):
    dask.submit = lambda *_, **__: Future()
    one = Workers(dask, {}, "a.module", {}).__enter__()
    dask.status = "closed"
    line = r"^the cluster is gone \(the connection is closed\); finished epochs .+$"
    with pytest.raises(UserError, match=line):
        _ = one.about


def test_the_plugin_is_not_unregistered_if_the_client_is_closed(one, dask):
    dask.status = "closed"
    one.__exit__()
    assert dask.ended == []
    dask.status = "running"
    one.__exit__()
    assert dask.ended == [one._name]
