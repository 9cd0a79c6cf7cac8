"""What a worker does when a search comes to it, in the tests' own process: a stand-in is Dask's worker."""

import asyncio
import pickle
import sys
from dataclasses import replace
from enum import Enum
from importlib.metadata import version
from types import SimpleNamespace

import pytest
from distributed import Reschedule

from stages.compute import plugin
from stages.compute.plugin import Search, call, end_the_dead, versions

TASKS = b"""
class UserError(Exception):
    pass

class Session:
    def __init__(self, device):
        self.device, self.takes_epochs = device, False

def train(session, job):
    return {"device": session.device, "key": job["key"]}

def fail(session, job):
    raise {"mistake": UserError, "fault": ValueError}[job["what"]]("too\\nwide" + "!" * 400)
"""
Status = Enum("Status", ["running", "paused"])


class Worker:
    """Dask's worker, as far as the plugin knows it."""

    address = "tcp://worker"

    def __init__(self, folder):
        self.local_directory, self.status = str(folder), Status.paused
        self.memory_manager = SimpleNamespace(memory_pause_fraction=0.8)
        self.loop = SimpleNamespace(add_callback=lambda *_, **how: self.left.append(how["reason"]))
        self.loop.call_later = self.close_gracefully = None
        self.plugins, self.events, self.left = {}, [], []

    def log_event(self, topic: str, event: dict) -> None:
        self.events.append((topic, event))


@pytest.fixture
def worker(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "tasks_of_a_test", raising=False)
    worker = Worker(tmp_path)
    monkeypatch.setattr(plugin, "get_worker", lambda: worker)
    yield worker
    sys.modules.pop("tasks_of_a_test", None)


@pytest.fixture
def join(worker):
    """A function that has a search join the worker, and returns it."""

    def join(**changes) -> Search:
        code, arguments = {"tasks_of_a_test.py": TASKS}, pickle.dumps({"device": "CPU"})
        search = replace(
            Search("stages-one", versions(), code, "digest", "tasks_of_a_test", arguments), **changes
        )
        worker.plugins[search.name] = search
        asyncio.run(search.setup(worker))
        return search

    return join


def told(**event) -> tuple[str, dict]:
    return "stages-one", {"worker": "tcp://worker", **event}


def test_a_worker_is_made_ready_and_trains(worker, join):
    first, second = join(), join(name="stages-two")
    assert worker.events[0] == told(device="CPU", takes_epochs=False)
    assert first.lock is second.lock
    assert (worker.status, worker.memory_manager.memory_pause_fraction) == (Status.running, False)
    assert call("stages-one", "train", {"key": "a"}, "CPU") == {"device": "CPU", "key": "a"}
    assert worker.left == []


def test_two_codes_on_one_worker_take_turns(worker, join):
    join()
    join(name="stages-two", code={"tasks_of_a_test.py": TASKS.replace(b'job["key"]}', b"2}")}, digest="2")
    for name, result in (("stages-one", "a"), ("stages-two", 2), ("stages-one", "a")):
        assert call(name, "train", {"key": "a"}, "CPU")["key"] == result


def test_a_worker_with_other_versions_is_sent_away(worker, join):
    search = join(expected={**versions(), "keras": "1.0", "numpy": "1.0"})
    said = ", ".join(f"{name} {version(name)} where the client has 1.0" for name in ("keras", "numpy"))
    assert (worker.events, worker.left, search.session) == ([told(left=said)], [said], None)


def test_a_worker_whose_session_cannot_be_made_is_sent_away(worker, join):
    said = "ModuleNotFoundError: No module named 'nothing'"
    join(tasks="nothing")
    assert (worker.events, worker.left) == ([told(left=said)], [said])


def test_a_mistake_in_the_code_is_told_and_the_worker_stays(worker, join):
    """Else it would empty a cluster, whose workers all have the same code."""
    join(code={"tasks_of_a_test.py": b"raise NameError('Denze')"}, digest="3")
    assert (worker.events, worker.left) == (
        [told(mistake="tasks_of_a_test.py, line 1: NameError: Denze")],
        [],
    )


def test_a_worker_whose_gpu_is_full_is_sent_away(worker, join):
    error = b"type('InternalError', (Exception,), {'__module__': 'tensorflow.python.framework.errors_impl'})"
    join(code={"tasks_of_a_test.py": b"raise " + error + b"('out of memory')"}, digest="4")
    said = "InternalError: out of memory"
    assert (worker.events, worker.left) == ([told(left=said)], [said])


def test_a_search_that_ends_while_it_makes_a_worker_ready_sends_nobody_away(worker, join, monkeypatch):
    def end(search: Search) -> None:
        search.teardown(worker)
        raise OSError("no")

    monkeypatch.setattr(Search, "_start", end)
    join()
    assert worker.events == worker.left == []


def test_a_worker_with_another_device_is_sent_away_and_its_task_goes_to_another(worker, join):
    join()
    with pytest.raises(Reschedule):
        call("stages-one", "train", {"key": "a"}, "GPU")
    assert worker.left == ["device CPU where the search has GPU"]
    assert worker.events[1:] == [told(left=worker.left[0])]


def test_what_a_task_raises_is_a_mistake_of_the_user_or_one_line_of_the_worker(worker, join):
    join()
    mistake = call("stages-one", "fail", {"key": "a", "what": "mistake"}, "CPU")["mistake"]
    assert mistake == "too\nwide" + "!" * 400
    with pytest.raises(RuntimeError) as raised:
        call("stages-one", "fail", {"key": "a", "what": "fault"}, "CPU")
    assert str(raised.value) == "worker tcp://worker: " + ("ValueError: too wide" + "!" * 400)[:300]


def test_nothing_is_trained_for_a_search_that_has_ended(worker, join):
    search = join()
    search.teardown(worker)
    assert (search.session, search.arguments) == (None, b"")
    with pytest.raises(Reschedule):
        call("stages-one", "train", {"key": "a"}, "CPU")
    worker.plugins.clear()
    with pytest.raises(RuntimeError, match=r"^the search has ended$"):
        call("stages-one", "train", {"key": "a"}, "CPU")


def test_only_searches_whose_client_is_gone_are_ended():
    ended = []

    async def unregister(_, name: str) -> None:
        ended.append(name)

    scheduler = SimpleNamespace(
        worker_plugins=dict.fromkeys(["stages-Client-a-1", "stages-Client-b-1", "another-Client-b-1"]),
        clients={"Client-a": None},
        unregister_worker_plugin=unregister,
    )
    asyncio.run(end_the_dead(scheduler))
    assert ended == ["stages-Client-b-1"]


@pytest.mark.parametrize(
    ("said", "means"), [("0", "0"), ("False", "0"), ("1", "1"), ("yes", "1"), (None, "1")]
)
def test_the_setting_of_onednn_is_told_by_what_it_means(monkeypatch, said, means):
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    if said is not None:
        monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", said)
    found = versions()
    assert found["TF_ENABLE_ONEDNN_OPTS"] == means
    assert found["Python"] == f"{sys.version_info[0]}.{sys.version_info[1]}"
