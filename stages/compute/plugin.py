"""On a worker: the plugin with a stage's code and data, and the function that Dask calls for each task.

Both are pickled by value, since a worker has none of this repository's code before they arrive. So this
module imports nothing from the repository.
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

PREFIX = "stages-"  # of plugin names
# Their versions may change the result of a training, or of a score that uses them
PACKAGES = ("tensorflow", "keras", "numpy", "scipy", "scikit-learn")


def versions() -> dict[str, str]:
    """Return what must be the same on the client and all workers."""
    environment = {"Python": "{}.{}".format(*sys.version_info), **dict.fromkeys(PACKAGES, "not installed")}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            environment[name] = version(name)
    states = {"0": "0", "false": "0", "1": "1", "true": "1"}  # if not set, it depends on the processor
    one_dnn = states.get(os.environ.get("TF_ENABLE_ONEDNN_OPTS", "").lower(), "not set")
    return {**environment, "TF_ENABLE_ONEDNN_OPTS": one_dnn}


@dataclass
class StagePlugin(WorkerPlugin):
    """The code and the data of one run of a stage. On each worker, the first task creates the session."""

    name: str  # unique to this run
    expected: dict[str, str]  # `versions` on the client
    code: dict[str, bytes]  # content of files by path
    digest: str  # of `code`
    tasks: str  # the module in `code` with `Session` and the tasks
    arguments: bytes  # of `Session`, pickled
    local: bool = False  # whether all workers are on the client's machine and use its packages
    session: Any = None  # None before the first task

    def setup(self, worker) -> None:
        """Keep Dask from pausing the worker near a memory limit: it cannot free TensorFlow's memory."""
        worker.memory_manager.memory_pause_fraction = False
        if worker.status.name == "paused":
            worker.status = type(worker.status).running

    def teardown(self, worker) -> None:
        """Free the memory, once the running training has ended."""
        self.session, self.arguments = None, b""

    def why_unusable(self, folder: Path, device: str | None) -> str:
        """Create the session if there is none; return why this worker cannot be used, or "".

        Raises:
            Exception: the code or the data is wrong, as it would be on any worker.
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
            # TensorFlow raises its own errors for a full GPU and the like
            except Exception as error:
                lacks = isinstance(error, (ImportError, OSError, MemoryError))
                if isinstance(error, ModuleNotFoundError) and self.local:
                    raise
                if lacks or "tensorflow" in type(error).__module__:
                    return _one_line(error)
                raise
        here = self.session.about["device"]
        return f"device {here} where the others have {device}" if device not in (None, here) else ""

    def _start(self, folder: Path) -> None:
        """Import the code and create the session; another stage's session keeps its own modules."""
        for path, content in self.code.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        names = {path.partition("/")[0].removesuffix(".py") for path in self.code}
        for module in [module for module in sys.modules if module.partition(".")[0] in names]:
            del sys.modules[module]
        sys.path[:] = [str(folder), *(path for path in sys.path if path != str(folder))]
        importlib.invalidate_caches()
        self.module = importlib.import_module(self.tasks)
        self.session = self.module.Session(**pickle.loads(self.arguments))  # noqa: S301 - its client's
        self.arguments = b""


def call(name: str, device: str | None, task: str, job: dict) -> dict:
    """Run the function `task` on `job` and return its result; for the task "about", return `Session.about`.

    A mistake that the user has to mend is returned as {"mistake": message}.

    Args:
        name: of the plugin.
        device: the one that all workers must have; None if it is not known yet.

    Raises:
        Reschedule: this worker cannot be used. It logs the reason as an event of the topic `name` and leaves.
        MemoryError: there was not enough memory; one line.
        RuntimeError: the stage has ended, or the task failed on this worker; one line with its address.
    """
    worker: Any = get_worker()
    stage = worker.plugins.get(name)
    if not stage:
        raise RuntimeError("the stage has ended")
    folder = Path(worker.local_directory).absolute() / stage.digest
    with vars(worker).setdefault("stages_lock", threading.Lock()):  # one task at a time, of any stage
        try:
            if reason := stage.why_unusable(folder, device):
                worker.log_event(name, {"worker": worker.address, "reason": reason})
                loop = worker.loop  # the delay lets the event be sent first
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
                mend = "; install it, or mend the file" if isinstance(error, ModuleNotFoundError) else ""
                return {"mistake": f"{_place(error, folder)}{_one_line(error)}{mend}"}
            if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
                raise MemoryError(_one_line(error)) from None
            raise RuntimeError(f"worker {worker.address}: {_one_line(error)}") from None


async def unregister_abandoned(dask_scheduler) -> None:
    """On the scheduler: remove plugins that a client left behind when it was killed."""
    for name in list(dask_scheduler.worker_plugins):
        client = name.removeprefix(PREFIX).rpartition("-")[0]
        if name.startswith(PREFIX) and client not in dask_scheduler.clients:
            await dask_scheduler.unregister_worker_plugin(None, name)


def _place(error: Exception, folder: Path) -> str:
    """The innermost line of the code in `folder` in the traceback of `error`; "" if there is none."""
    frames = [(Path(frame.filename), frame.lineno) for frame in extract_tb(error.__traceback__)]
    own = [(path, line) for path, line in frames if path.is_relative_to(folder)]
    return "".join(f"{path.relative_to(folder)}, line {line}: " for path, line in own[-1:])


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
