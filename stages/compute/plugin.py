"""On a worker: what a stage gives to each (code and data), and the function that Dask calls for each task.

It travels by value, since before it a worker has no code of this repository. So it imports nothing of that.
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
# Whose versions decide what a training comes to, and a score that uses them
PACKAGES = ("tensorflow", "keras", "numpy", "scipy", "scikit-learn")


def versions() -> dict[str, str]:
    """Return what must be the same on the client and all workers."""
    environment = {"Python": "{}.{}".format(*sys.version_info), **dict.fromkeys(PACKAGES, "not installed")}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            environment[name] = version(name)
    states = {"0": "0", "false": "0", "1": "1", "true": "1"}  # without it, the processor decides
    one_dnn = states.get(os.environ.get("TF_ENABLE_ONEDNN_OPTS", "").lower(), "not set")
    return {**environment, "TF_ENABLE_ONEDNN_OPTS": one_dnn}


@dataclass
class StagePlugin(WorkerPlugin):
    """The code and the data of one run of a stage, on each worker. The first task there makes a session."""

    name: str  # of this run alone
    expected: dict[str, str]  # `versions` of the client
    code: dict[str, bytes]  # files by path
    digest: str  # of `code`
    tasks: str  # the module in `code` whose functions are called
    arguments: bytes  # of its `Session`, pickled
    alike: bool = False  # whether all workers are of the client's machine, with the packages that it has
    session: Any = None  # once a task has come

    def setup(self, worker) -> None:
        """Keep Dask from pausing the worker as its memory nears a limit: TensorFlow's cannot be freed."""
        worker.memory_manager.memory_pause_fraction = False
        if worker.status.name == "paused":
            worker.status = type(worker.status).running

    def teardown(self, worker) -> None:
        """Free the memory, once the training that runs is done."""
        self.session, self.arguments = None, b""

    def unfit(self, folder: Path, device: str | None) -> str:
        """Make the session if there is none; return why this worker cannot be used, or nothing.

        Raises:
            Exception: the code or the data is wrong, which all workers would say.
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
            # TensorFlow's own errors are of a GPU without memory, or the like
            except Exception as error:
                lacks = isinstance(error, (ImportError, OSError, MemoryError))
                if isinstance(error, ModuleNotFoundError) and self.alike:
                    raise
                if lacks or "tensorflow" in type(error).__module__:
                    return _one_line(error)
                raise
        here = self.session.about["device"]
        return f"device {here} where the others have {device}" if device not in (None, here) else ""

    def _start(self, folder: Path) -> None:
        """Import the code in place of another stage's, which keeps the modules that it has, and use it."""
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
    """Return what the function `task` makes of `job`, or, if it is "about", what the session says of itself.

    Or {"mistake"}: what the user has to mend.

    Args:
        name: of the plugin.
        device: the one that all must have; None if that is not known yet.

    Raises:
        Reschedule: this worker cannot be used. It says why, as an event of the topic `name`, and leaves.
        MemoryError: there was not enough memory; one line.
        RuntimeError: the stage has ended, or this worker cannot do it; one line with its address.
    """
    worker: Any = get_worker()
    stage = worker.plugins.get(name)
    if not stage:
        raise RuntimeError("the stage has ended")
    folder = Path(worker.local_directory).absolute() / stage.digest
    with vars(worker).setdefault("stages_lock", threading.Lock()):  # it trains one network at a time
        try:
            if reason := stage.unfit(folder, device):
                worker.log_event(name, {"worker": worker.address, "reason": reason})
                loop = worker.loop  # the event has to go first
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


async def end_the_dead(dask_scheduler) -> None:
    """On the scheduler: remove the plugins whose client is gone without having done it."""
    for name in list(dask_scheduler.worker_plugins):
        client = name.removeprefix(PREFIX).rpartition("-")[0]
        if name.startswith(PREFIX) and client not in dask_scheduler.clients:
            await dask_scheduler.unregister_worker_plugin(None, name)


def _place(error: Exception, folder: Path) -> str:
    """The last line of the code in `folder` which led to `error`, if there is one."""
    frames = [(Path(frame.filename), frame.lineno) for frame in extract_tb(error.__traceback__)]
    own = [(path, line) for path, line in frames if path.is_relative_to(folder)]
    return "".join(f"{path.relative_to(folder)}, line {line}: " for path, line in own[-1:])


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
