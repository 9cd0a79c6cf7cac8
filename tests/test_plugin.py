"""What a worker does with a stage's tasks, in the tests' own process, with a stand-in for Dask's worker."""

import asyncio
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from enum import Enum
from importlib.metadata import version
from types import SimpleNamespace

import pytest
from distributed import Reschedule

from stages.compute import plugin
from stages.compute.plugin import StagePlugin, call, remove_orphans, versions

TASKS = b"""
class UserError(Exception):
    pass

class Session:
    def __init__(self, device):
        self.about = {"device": device, "takes_epochs": False}

def train(session, job):
    return {**session.about, "key": job["key"]}

class InternalError(Exception):
    __module__ = "tensorflow.python.framework.errors_impl"

class ResourceExhaustedError(InternalError):
    pass

def fail(session, job):
    raise eval(job["kind"])("too\\nwide" + "!" * 400)
"""
Status = Enum("Status", ["running", "paused"])


class Worker:
    """The part of Dask's worker that the plugin uses."""

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
    """A function that gives a stage's plugin to the worker, and returns it."""

    def join(**changes) -> StagePlugin:
        code, arguments = {"tasks_of_a_test.py": TASKS}, pickle.dumps({"device": "CPU"})
        stage = replace(
            StagePlugin("stages-one", versions(), code, "digest", "tasks_of_a_test", arguments), **changes
        )
        worker.plugins[stage.name] = stage
        stage.setup(worker)
        return stage

    return join


def test_a_worker_reports_its_device_and_trains(worker, join):
    stage = join()
    assert (worker.status, worker.memory_manager.memory_pause_fraction) == (Status.running, False)
    assert not stage.session
    about = {"device": "CPU", "takes_epochs": False}
    assert call("stages-one", None, "about", {}) == about
    assert call("stages-one", "CPU", "train", {"key": "a"}) == {**about, "key": "a"}
    assert (stage.arguments, worker.left) == (b"", [])


def test_stages_with_different_code_take_turns_on_a_worker(worker, join):
    join()
    join(name="stages-two", code={"tasks_of_a_test.py": TASKS.replace(b'job["key"]}', b"2}")}, digest="2")
    for name, result in (("stages-one", "a"), ("stages-two", 2), ("stages-one", "a")):
        assert call(name, "CPU", "train", {"key": "a"})["key"] == result


def test_a_worker_trains_one_network_at_a_time(worker, join):
    """Even with several threads, and for two stages."""
    join()
    join(name="stages-two")
    call("stages-one", None, "about", {})
    with worker.stages_lock, ThreadPoolExecutor() as pool:
        futures = [pool.submit(call, f"stages-{name}", None, "about", {}) for name in ("one", "two")]
        assert wait(futures, 0.2).done == set()
        worker.stages_lock.release()
        assert wait(futures, 20).not_done == set()
        worker.stages_lock.acquire()


def leaves(worker, reason: str, device: str | None = None) -> None:
    """Assert that the worker runs no task, logs the reason and leaves."""
    with pytest.raises(Reschedule):
        call("stages-one", device, "about", {})
    assert worker.events == [("stages-one", {"worker": "tcp://worker", "reason": reason})]
    assert worker.left == [reason]


def test_the_versions_are_those_of_all_packages_that_compute():
    packages = "tensorflow", "keras", "numpy", "scipy", "scikit-learn"  # as in docs/architecture.md
    found = versions()
    assert found.keys() == {"Python", *packages, "TF_ENABLE_ONEDNN_OPTS"}
    assert {name: found[name] for name in packages} == {name: version(name) for name in packages}


def test_a_worker_with_other_versions_leaves(worker, join):
    stage = join(expected={**versions(), "keras": "1.0", "scikit-learn": "1.0"})
    names = "keras", "scikit-learn"
    leaves(worker, ", ".join(f"{name} {version(name)} where the client has 1.0" for name in names))
    assert not stage.session


def test_a_worker_that_lacks_a_package_leaves(worker, join):
    join(tasks="nothing")
    leaves(worker, "ModuleNotFoundError: No module named 'nothing'")


def test_a_worker_whose_gpu_is_full_leaves(worker, join):
    join(code={"tasks_of_a_test.py": TASKS + b"\nraise InternalError('out of memory')"}, digest="4")
    leaves(worker, "InternalError: out of memory")


def test_a_worker_with_another_device_leaves(worker, join):
    join()
    leaves(worker, "device CPU where the others have GPU", "GPU")


def test_a_mistake_in_the_code_is_reported_and_the_worker_stays(worker, join):
    """Otherwise, all workers would leave, since they have the same code."""
    join(code={"tasks_of_a_test.py": b"raise NameError('Denze')"}, digest="3")
    mistake = "tasks_of_a_test.py, line 1: NameError: Denze"
    assert call("stages-one", None, "about", {}) == {"mistake": mistake}
    assert worker.left == []


@pytest.mark.parametrize(
    ("kind", "raised", "place"),
    [
        ("ValueError", RuntimeError, "worker tcp://worker: "),
        ("InternalError", RuntimeError, "worker tcp://worker: "),
        ("ResourceExhaustedError", MemoryError, ""),
        ("MemoryError", MemoryError, ""),
    ],
)
def test_what_a_task_raises_is_one_line(worker, join, kind, raised, place):
    join()
    with pytest.raises(raised) as error:
        call("stages-one", "CPU", "fail", {"kind": kind})
    assert str(error.value) == place + (f"{kind}: too wide" + "!" * 400)[:300]


def test_a_mistake_of_the_user_is_an_answer(worker, join):
    join()
    mistake = call("stages-one", "CPU", "fail", {"kind": "UserError"})["mistake"]
    assert mistake == "too\nwide" + "!" * 400


def test_nothing_is_trained_for_a_stage_that_has_ended(worker, join):
    stage = join()
    call("stages-one", None, "about", {})
    worker.plugins.clear()
    stage.teardown(worker)
    assert stage.session is None
    with pytest.raises(RuntimeError, match=r"^the stage has ended$"):
        call("stages-one", "CPU", "train", {"key": "a"})


def test_only_plugins_whose_client_is_gone_are_removed():
    ended = []

    async def unregister(_, name: str) -> None:
        ended.append(name)

    scheduler = SimpleNamespace(
        worker_plugins=dict.fromkeys(["stages-Client-a-1", "stages-Client-b-1", "another-Client-b-1"]),
        clients={"Client-a": None},
        unregister_worker_plugin=unregister,
    )
    asyncio.run(remove_orphans(scheduler))
    assert ended == ["stages-Client-b-1"]


@pytest.mark.parametrize(
    ("value", "means"), [("0", "0"), ("False", "0"), ("1", "1"), ("true", "1"), (None, "not set")]
)
def test_equivalent_settings_of_onednn_are_the_same(monkeypatch, value, means):
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    if value is not None:
        monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", value)
    found = versions()
    assert found["TF_ENABLE_ONEDNN_OPTS"] == means
    assert found["Python"] == f"{sys.version_info[0]}.{sys.version_info[1]}"
