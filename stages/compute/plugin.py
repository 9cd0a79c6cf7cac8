"""On a worker: what Dask runs when one joins a search. It checks the worker, gives it code and data, trains.

It travels by value, since before it a worker has no code of this repository. So it imports nothing of that.
"""

import asyncio
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

PREFIX = "stages-"  # of the names of searches
PACKAGES = ("tensorflow", "keras", "numpy")  # whose versions decide what a training comes to


def versions() -> dict[str, str]:
    """Return what must be the same on all machines of a search."""
    environment = {"Python": "{}.{}".format(*sys.version_info), **dict.fromkeys(PACKAGES, "not installed")}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            environment[name] = version(name)
    off = os.environ.get("TF_ENABLE_ONEDNN_OPTS", "1").lower() in ("0", "false")
    return {**environment, "TF_ENABLE_ONEDNN_OPTS": "0" if off else "1"}


@dataclass
class Search(WorkerPlugin):
    """One search on each of its workers. As events of its name's topic, they tell the client what they do."""

    name: str  # of this search alone
    expected: dict[str, str]  # `versions` of the client
    code: dict[str, bytes]  # files by path
    digest: str  # of `code`
    tasks: str  # the module in `code` whose functions are called
    arguments: bytes  # of its `Session`, pickled: a worker that is sent away may lack what they are made of
    session: Any = None  # on a worker that is ready; its class is in the code that was sent

    async def setup(self, worker) -> None:
        """Make the worker ready, and tell its device; or send it away, and tell why."""
        self.worker, self.ended = worker, False
        self._folder = Path(worker.local_directory).absolute() / self.digest
        # The worker trains one network at a time
        self.lock = vars(worker).setdefault("stages_lock", threading.Lock())
        # A worker that Dask pauses, as its memory nears a limit, would never go on: TensorFlow fills it
        worker.memory_manager.memory_pause_fraction = False
        if worker.status.name == "paused":
            worker.status = type(worker.status).running
        here = versions()
        if differing := [name for name in here if here[name] != self.expected[name]]:
            texts = (f"{name} {here[name]} where the client has {self.expected[name]}" for name in differing)
            self.send_away(", ".join(texts))
            return
        try:
            await asyncio.to_thread(self._start)
            self.tell(device=self.session.device, takes_epochs=self.session.takes_epochs)
        except Exception as error:
            if self.ended:
                return
            # Of this worker; TensorFlow's own errors are of a GPU without memory, or the like
            if (
                isinstance(error, (ImportError, OSError, MemoryError))
                or "tensorflow" in type(error).__module__
            ):
                self.send_away(_one_line(error))
            else:  # other workers would say the same
                self.tell(mistake=self._place(error) + _one_line(error))

    def teardown(self, worker) -> None:
        """Free the memory, once the training that runs is done."""
        self.ended, self.session = True, None

    def _start(self) -> None:
        """Import the code in place of another search's, which keeps the modules that it has, and use it."""
        with self.lock:
            for path, content in self.code.items():
                (self._folder / path).parent.mkdir(parents=True, exist_ok=True)
                (self._folder / path).write_bytes(content)
            names = {path.partition("/")[0].removesuffix(".py") for path in self.code}
            for module in [module for module in sys.modules if module.partition(".")[0] in names]:
                del sys.modules[module]
            sys.path[:] = [str(self._folder), *(path for path in sys.path if path != str(self._folder))]
            importlib.invalidate_caches()
            self.module = importlib.import_module(self.tasks)
            self.session = self.module.Session(**pickle.loads(self.arguments))  # noqa: S301 - its client's
            self.arguments = b""

    def _place(self, error: Exception) -> str:
        """The last line of the code that was sent which led to `error`; none if it says itself what to do."""
        if type(error).__name__ == "UserError":
            return ""
        frames = [(Path(frame.filename), frame.lineno) for frame in extract_tb(error.__traceback__)]
        own = [(path, line) for path, line in frames if path.is_relative_to(self._folder)]
        return "".join(f"{path.relative_to(self._folder)}, line {line}: " for path, line in own[-1:])

    def tell(self, **event: object) -> None:
        """Tell the client; `event` is what MessagePack can hold."""
        self.worker.log_event(self.name, {"worker": self.worker.address, **event})

    def send_away(self, reason: str) -> None:
        """Have this worker leave the cluster, after what called this has had its answer."""
        self.tell(left=reason)
        loop = self.worker.loop
        loop.add_callback(loop.call_later, 0.2, self.worker.close_gracefully, reason=reason)


def call(name: str, task: str, job: dict, device: str) -> dict:
    """Return what the function `task` of a search makes of `job`, or {"mistake"}: what the user has to mend.

    Raises:
        Reschedule: this worker is leaving, or has another device and is sent away.
        RuntimeError: the search has ended, or this worker cannot do it; one line with its address.
    """
    search: Any = get_worker().plugins.get(name)
    if not search:
        raise RuntimeError("the search has ended")
    if not search.session:
        raise Reschedule
    with search.lock:
        if device != search.session.device:
            search.send_away(f"device {search.session.device} where the search has {device}")
            raise Reschedule
        try:
            return getattr(search.module, task)(search.session, job)
        except Exception as error:
            if type(error).__name__ == "UserError":
                return {"mistake": str(error)}
            raise RuntimeError(f"worker {search.worker.address}: {_one_line(error)}") from None


async def end_the_dead(dask_scheduler) -> None:
    """On the scheduler: end the searches whose client is gone without having ended them."""
    for name in list(dask_scheduler.worker_plugins):
        client = name.removeprefix(PREFIX).rpartition("-")[0]
        if name.startswith(PREFIX) and client not in dask_scheduler.clients:
            await dask_scheduler.unregister_worker_plugin(None, name)


def _one_line(error: Exception) -> str:
    name = "" if type(error).__name__ == "UserError" else f"{type(error).__name__}: "
    return " ".join(f"{name}{error}".split())[:300]
