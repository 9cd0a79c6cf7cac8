"""What the client makes of what workers tell, in the tests' own process: a stand-in is Dask's client."""

import pickle
import time
from collections import deque
from concurrent.futures import Future

import distributed
import pytest
from stand_in import DaskClient

from stages.base.console import UserError
from stages.compute import workers
from stages.compute.workers import Workers


@pytest.fixture
def dask():
    return DaskClient()


@pytest.fixture
def one(dask):
    return Workers(dask, {}, "a.module", {})


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
    for job, result in one.results("compare", jobs):
        assert result == {"of": job["key"]}
        submitted.append("".join(each["key"] for each in dask.submitted))
        if job["key"] == "a":
            jobs.appendleft({"key": "d"})  # what goes on comes first
    assert submitted == (["ab", "abd", "abdc", "abdc"] if workers == 2 else ["a", "ad", "adb", "adbc"])


def test_a_gpu_is_what_the_search_computes_on_if_a_worker_has_one(one):
    for device in ("CPU", "GPU"):
        one._heed("worker", device=device)
    assert one.wait() == ("GPU", False)


def test_without_workers_the_wait_is_a_minute_unless_the_only_ones_cannot_do_it(one, dask, capsys):
    one._last_seen = time.monotonic() - workers.TIMEOUT + 20
    one._check()
    one._last_seen -= 30
    with pytest.raises(
        UserError, match=r"^there are no workers; start one with `dask worker tcp://scheduler`$"
    ):
        one._check()
    one._last_seen += 30
    for worker in ("a", "b"):
        one._heed(worker, left="keras 9.9")
    assert capsys.readouterr().err == "worker a was sent away: keras 9.9\n"
    dask.threads = {"c": 1}
    before = one._last_seen
    one._check()  # c is not ready, and may become it, but not for ever
    assert one._last_seen == before
    dask.threads = {}
    with pytest.raises(UserError, match=r"^there are no workers \(a: keras 9.9\); start one with .+$"):
        one._check()
    one._heed("c", device="CPU")
    one._check()  # c was there, and another may come
    one._last_seen, dask.threads = 0, {"c": 1}
    one._check()
    assert time.monotonic() - one._last_seen < 10
    dask.status = "closed"
    with pytest.raises(OSError, match="the connection is closed"):
        one._check()


def test_what_no_message_can_hold_is_refused(dask, monkeypatch):
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
    one._send_other_pythons_away()
    assert retired == ["b"]
    assert capsys.readouterr().err == f"worker b was sent away: Python 3.1 where the client has {ours}\n"


def test_a_scheduler_with_another_python_is_one_line(one, dask):
    ours = one.versions["Python"]
    dask.get_versions = lambda: {"workers": {}, "scheduler": {"host": {"python": "3.1.9.final.0"}}}
    line = rf"^the scheduler has Python 3.1 where the client has {ours}; start it anew$"
    with pytest.raises(UserError, match=line):
        one._send_other_pythons_away()


def test_a_mistake_that_a_worker_finds_at_its_start_ends_the_search(one, dask):
    dask.threads = {"a": 1}
    one._heed("a", mistake="AttributeError: Denze")
    with pytest.raises(UserError, match=r"^AttributeError: Denze$"):
        one.wait()


def test_a_scheduler_that_dies_before_a_worker_is_ready_is_one_line(one, dask):
    dask.status = "closed"
    with pytest.raises(
        UserError, match=r"^the cluster is gone \(the connection is closed\); finished epochs .+$"
    ):
        one.wait()


def test_the_end_leaves_a_client_alone_that_is_closed(one, dask):
    dask.status = "closed"
    one.__exit__()
    assert dask.ended == []
    dask.status = "running"
    one.__exit__()
    assert dask.ended == [one._name]
