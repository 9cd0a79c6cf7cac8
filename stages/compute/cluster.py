"""Dask's workers: processes on this machine, or the cluster that `DASK_SCHEDULER_ADDRESS` names.

Workers of this machine are forked (on Linux; elsewhere they import TensorFlow themselves) once this process has imported
TensorFlow and before it starts it: whoever uses a `Cluster` imports stages/training/backend.py inside its block.
"""

import asyncio
import importlib
import logging
import multiprocessing.util
import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import cast
from unittest.mock import patch

import dask
import distributed
from dask.system import CPU_COUNT
from distributed import Client, LocalCluster, Security
from distributed.utils import get_mp_context, silence_logging_cmgr

from stages.base.console import UserError
from stages.base.files import shared_root
from stages.compute import remote
from stages.training.quiet import quiet

CONNECT_TIMEOUT = 10  # seconds to reach a scheduler
WORKERS_TIMEOUT = 60  # seconds for a first worker to come up, at the start and when all were lost
# By default Dask drops copies of the data that all workers need, and its profiler interrupts the trainings 100 times a second
_FULL_SPEED = {
    "distributed.scheduler.active-memory-manager.start": False,
    "distributed.worker.profile.enabled": False,
    "distributed.worker.multiprocessing-method": "forkserver" if sys.platform == "linux" else "spawn",
    "distributed.worker.preload": ["stages.compute.worker"],
}


class Cluster:
    """Workers that come up in the background; a context manager that ends them.

    Args:
        workers: processes of a local cluster, one thread each; None for one a core.

    Attributes:
        local: whether its workers are processes of this machine, started here.
    """

    def __init__(self, workers: int | None):
        self._workers = workers or CPU_COUNT
        self._address = dask.config.get("scheduler-address", None) or None
        self._connections, self._leaving = ExitStack(), threading.Event()
        self.local = self._address is None

    def __enter__(self) -> "Cluster":
        if self.local:
            _start_forkserver()
        thread = self._connections.enter_context(ThreadPoolExecutor(1))
        connection = _connect(self._address, self._leaving) if self._address else _start(self._workers)
        self._connected = thread.submit(self._connections.enter_context, connection)
        return self

    def __exit__(self, *exception) -> None:
        self._leaving.set()
        self._connected.exception()  # waits
        self._connections.__exit__(*exception)

    @property
    def environment(self) -> dict[str, str]:
        """What all workers have in common; see `remote.environment`. UserError as for `client`, or if one differs."""
        if self.local:
            return remote.environment()
        python = {"Python": "{}.{}".format(*sys.version_info)}  # which is asked first: no other runs code that is sent to it
        for address, about in cast(dict, self.client.get_versions())["workers"].items():
            _same(address, python, {"Python": ".".join(about["host"]["python"].split(".")[:2])})
        here, workers = remote.environment(), self.client.run(remote.prepare_anywhere)
        here["device"] = next(iter(workers.values()))["device"]
        for address, there in workers.items():
            _same(address, here, there)
        return here

    @property
    def client(self) -> Client:
        """The client, once there is one.

        Raises:
            UserError: the scheduler cannot be reached, or has no workers.
        """
        return self._connected.result()


def _same(address: str, here: dict[str, str], there: dict[str, str]) -> None:
    if differs := remote.difference(here, there):
        raise UserError(f"worker {address} has {differs}; workers need these versions, on one device")


def _start_forkserver() -> None:
    """Start the process that workers are forked from, as a fork of this one: Python's own would lack TensorFlow."""
    if "stages.training.backend" in sys.modules:
        return  # the threads of a TensorFlow that was started are not there in a fork
    with dask.config.set(_FULL_SPEED):
        if get_mp_context().get_start_method() != "forkserver":
            importlib.import_module("stages.training.backend")  # before there are workers, whose errors it would hold back
            return

    def fork(_path: bytes, arguments: list[str], keep: list[int]) -> int:
        if pid := os.fork():
            return pid
        try:
            # Ctrl-C is for the process that the user started; when that ends, its end of a pipe is closed, and this one ends
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            for file in files() - before - set(keep):
                os.closerange(file, file + 1)
            exec(arguments[-1], {})  # noqa: S102 - the standard library's
        finally:
            os._exit(0)

    def files() -> set[int]:
        return {int(path.name) for path in Path("/proc/self/fd").iterdir()}

    with quiet():
        importlib.import_module("tensorflow")
    # Without the tracker's pipe: at its end Python waits for the tracker, which waits until all others have closed the pipe
    before = files() - {resource_tracker.getfd()}
    with patch.object(multiprocessing.util, "spawnv_passfds", fork):
        forkserver.ensure_running()


@contextmanager
def _start(workers: int) -> Iterator[Client]:
    """Yield a client of a local cluster."""
    with (
        dask.config.set(_FULL_SPEED),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            memory_limit=None,  # a worker at a limit is paused, and would wait for ever: what fills it cannot be spilled
            dashboard_address="127.0.0.1:0",
            local_directory=str(shared_root() / "data" / "dask"),
            security=Security.temporary(),  # a key of this process alone: other users of this machine can reach its ports
            silence_logs=logging.CRITICAL,
        ) as local,
        Client(local, set_as_default=False) as client,
    ):
        _show_dashboard(client)
        yield client


@contextmanager
def _connect(address: str, leaving: threading.Event) -> Iterator[Client]:
    """Yield a client of the scheduler at `address`; give up waiting for its workers when `leaving` is set."""
    try:
        distributed.comm.get_address_host_port(address, strict=True)
        asyncio.run(_greet(address))
        client = Client(address, timeout=CONNECT_TIMEOUT, set_as_default=False)
    except (OSError, ValueError, TypeError, RuntimeError) as error:  # the last two are Dask's where certificates are missing
        reason = str(error).rpartition(">: ")[2] or type(error).__name__  # after which of Dask's objects says so
        raise UserError(
            f"DASK_SCHEDULER_ADDRESS is {address}, but no scheduler answers there within {CONNECT_TIMEOUT} s ({reason}); "
            f"start one with `dask scheduler`{_certificates(address)}, or unset the variable to use this machine"
        ) from None
    with silence_logging_cmgr(logging.CRITICAL), client:
        for waited in range(1, WORKERS_TIMEOUT + 1):
            try:
                client.wait_for_workers(1, timeout=1)
                break
            except TimeoutError:
                if leaving.is_set() or waited == WORKERS_TIMEOUT:
                    mend = f"start one with `dask worker {address}`"
                    raise UserError(f"the scheduler at {address} has no workers; {mend}") from None
        client.amm.stop()  # Dask's memory manager drops copies of the data that all workers need, while they are being made
        _show_dashboard(client)
        yield client


async def _greet(address: str) -> None:
    """Connect to a scheduler and end the connection: a client would wait for ever for one that is silent."""
    arguments = Security().get_connection_args("client")
    comm = await asyncio.wait_for(distributed.comm.connect(address, timeout=CONNECT_TIMEOUT, **arguments), CONNECT_TIMEOUT)
    await comm.close()


def _certificates(address: str) -> str:
    """Which certificates a scheduler at `address` has to accept; of one that is text, not a file, only its first line."""
    files = {key: str(dask.config.get(f"distributed.comm.tls.{key}")) for key in ("ca-file", "client.cert", "client.key")}
    named = ", ".join(f"{key} {file.partition(chr(10))[0]}" for key, file in files.items())
    return f" that accepts these of distributed.comm.tls: {named}" if address.startswith("tls:") else ""


def _show_dashboard(client: Client) -> None:
    if find_spec("bokeh") and client.dashboard_link:
        print(f"dashboard: {client.dashboard_link}", flush=True)
