"""On a worker: the plugin with a stage's code and data, and the function that Dask calls for each task.

This module is pickled by value, since a worker has no code of this repository before the plugin arrives. So
it must not import anything of the repository.
"""

import importlib
import os
import pickle
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from traceback import extract_tb
from typing import Any

from distributed import Reschedule, WorkerPlugin, get_worker

PREFIX = "stages-"  # of the names of plugins
# Packages whose versions can change the result of a training or of a score
PACKAGES = ("tensorflow", "keras", "numpy", "scipy", "scikit-learn")


def versions() -> dict[str, str]:
    """Return the versions and settings that must be the same on the client and on all workers."""
    environment = {"Python": "{}.{}".format(*sys.version_info), **dict.fromkeys(PACKAGES, "not installed")}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            environment[name] = version(name)
    states = {"0": "0", "false": "0", "1": "1", "true": "1"}  # if it is not set, it depends on the CPU
    one_dnn = states.get(os.environ.get("TF_ENABLE_ONEDNN_OPTS", "").lower(), "not set")
    return {**environment, "TF_ENABLE_ONEDNN_OPTS": one_dnn}


@dataclass
class StagePlugin(WorkerPlugin):
    """The code and data of one run of a stage, on each worker; the first task there creates a session."""

    name: str  # unique to this run
    expected: dict[str, str]  # `versions` of the client
    code: dict[str, bytes]  # files by path
    digest: str  # of `code`
    tasks: str  # the module in `code` that has the tasks' functions and `Session`
    arguments: bytes  # of `Session`, pickled
    same_packages: bool = False  # whether all workers are on the client's machine, with its packages
    session: Any = None  # None before the first task

    def setup(self, worker) -> None:
        """Stop Dask from pausing the worker near its memory limit: TensorFlow's memory cannot be freed."""
        worker.memory_manager.memory_pause_fraction = False
        if worker.status.name == "paused":
            worker.status = type(worker.status).running

    def teardown(self, worker) -> None:
        """Drop the data; its memory is freed when the running task ends."""
        self.session, self.arguments = None, b""

    def prepare(self, folder: Path, device: str | None) -> str:
        """Create the session if there is none; return why this worker cannot be used, or "" if it can.

        Raises:
            Exception: a mistake in the code or the data, which would fail on every worker.
        """
        if not self.session:
            here = versions()
            if differing := [name for name in here if here[name] != self.expected[name]]:
                texts = (
                    f"{name} {here[name]} where the client has {self.expected[name]}" for name in differing
                )
                return ", ".join(texts)
            try:
                self._start(folder)
            except Exception as error:
                if isinstance(error, ModuleNotFoundError) and self.same_packages:
                    raise
                # TensorFlow's own errors are about the device, such as a GPU whose memory is full
                of_worker = isinstance(error, (ImportError, OSError, MemoryError))
                if of_worker or "tensorflow" in type(error).__module__:
                    return _one_line(error)
                raise
        here = self.session.about["device"]
        return f"device {here} where the others have {device}" if device not in (None, here) else ""

    def _start(self, folder: Path) -> None:
        """Import the code and create the session; the session of another stage keeps its own modules."""
        for path, content in self.code.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        names = {path.partition("/")[0].removesuffix(".py") for path in self.code}
        for module in [module for module in sys.modules if module.partition(".")[0] in names]:
            del sys.modules[module]
        sys.path[:] = [str(folder), *(path for path in sys.path if path != str(folder))]
        importlib.invalidate_caches()
        self.module = importlib.import_module(self.tasks)
        self.session = self.module.Session(**pickle.loads(self.arguments))  # noqa: S301 - from the client
        self.arguments = b""


def call(name: str, device: str | None, task: str, job: dict) -> dict:
    """Run a task on this worker and return its result.

    Args:
        name: of the plugin.
        device: "CPU" or "GPU", which all workers must have; None if it is not known yet.
        task: the name of a function in the plugin's module `tasks`, or "about".
        job: its argument.

    Returns:
        What the function returns; for "about", the session's attribute `about`. For a mistake of the user,
        {"mistake": one line that says what to fix}.

    Raises:
        Reschedule: this worker cannot be used; it logs the reason to the topic `name` and leaves the cluster.
        MemoryError: there was not enough memory; the message is one line.
        RuntimeError: the stage has ended, or the task failed; the message is one line with the worker's
            address.
    """
    worker: Any = get_worker()
    stage = worker.plugins.get(name)
    if not stage:
        raise RuntimeError("the stage has ended")
    folder = Path(worker.local_directory).absolute() / stage.digest
    with vars(worker).setdefault("stages_lock", threading.Lock()):  # one task at a time
        try:
            if reason := stage.prepare(folder, device):
                worker.log_event(name, {"worker": worker.address, "reason": reason})
                loop = worker.loop  # leave later, so that the event is sent first
                loop.add_callback(loop.call_later, 0.2, worker.close_gracefully, reason=reason)
                raise Reschedule
            if task == "about":
                return stage.session.about
            return getattr(stage.module, task)(stage.session, job)
        except Reschedule:
            raise
        except Exception as error:
            if type(error).__name__ == "UserError":
                return {"mistake": str(error)}
            if not stage.session:
                advice = "; install it, or fix the file" if isinstance(error, ModuleNotFoundError) else ""
                return {"mistake": f"{_location(error, folder)}{_one_line(error)}{advice}"}
            if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
                raise MemoryError(_one_line(error)) from None
            raise RuntimeError(f"worker {worker.address}: {_one_line(error)}") from None


async def remove_orphans(dask_scheduler) -> None:
    """On the scheduler: remove the plugins of clients that have gone without removing them."""
    for name in list(dask_scheduler.worker_plugins):
        client = name.removeprefix(PREFIX).rpartition("-")[0]
        if name.startswith(PREFIX) and client not in dask_scheduler.clients:
            await dask_scheduler.unregister_worker_plugin(None, name)


def _location(error: Exception, folder: Path) -> str:
    """Return the file in `folder` and the line where `error` was raised, as a prefix; "" if there is none."""
    frames = [(Path(frame.filename), frame.lineno) for frame in extract_tb(error.__traceback__)]
    own = [(path, line) for path, line in frames if path.is_relative_to(folder)]
    return "".join(f"{path.relative_to(folder)}, line {line}: " for path, line in own[-1:])


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
