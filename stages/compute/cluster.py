"""On the client: Dask workers on this machine, or on the cluster that `DASK_SCHEDULER_ADDRESS` names."""

import asyncio
import logging
import resource
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from multiprocessing import forkserver, resource_tracker

import dask
from dask.system import CPU_COUNT
from distributed import Client, LocalCluster, Security, comm
from distributed.utils import get_mp_context

from stages.base.console import UserError
from stages.base.files import shared_root

CONNECT_TIMEOUT = 10  # seconds to reach a scheduler
SOCKET_PATH = 75  # bytes; in a longer temporary folder, `multiprocessing` cannot name a Unix socket
_METHOD = "forkserver" if sys.platform == "linux" else "spawn"
_LOCAL_CONFIG = {
    # By default, Dask drops copies of data that all workers need, and its profiler interrupts trainings
    "distributed.scheduler.active-memory-manager.start": False,
    "distributed.worker.profile.enabled": False,
    "distributed.worker.multiprocessing-method": _METHOD,
    "distributed.worker.preload": ["stages.compute.cluster"],
    "distributed.comm.timeouts.connect": "10s",
}


@contextmanager
def connect(workers: int | None) -> Iterator[Client]:
    """Yield a Dask client of new workers on this machine or of the cluster at `DASK_SCHEDULER_ADDRESS`.

    Workers of this machine start in the background and end with the block.

    Args:
        workers: how many processes to start, of one thread each; None: one per core.

    Raises:
        UserError: no worker can be started here, or the scheduler cannot be reached.
    """
    for handler in logging.getLogger("distributed").handlers:
        handler.setLevel(logging.CRITICAL)  # Dask's threads may log even after the end
    address = dask.config.get("scheduler-address", None)
    cluster = _remote(address) if address else _local(workers or CPU_COUNT)
    large = {"distributed.admin.large-graph-warning-threshold": "1TB"}  # a task holds a checkpoint
    with dask.config.set(large), cluster as client:
        if find_spec("bokeh") and client.dashboard_link:
            print(f"dashboard: {client.dashboard_link}", flush=True)
        yield client


def failure(client: Client) -> str | None:
    """Return why a worker of this machine could not start; None if none has failed."""
    for nanny in getattr(client.cluster, "workers", {}).values():
        if nanny.status.name == "failed":
            try:
                client.sync(nanny.start)  # raises the same error again
            except Exception as error:
                reason = _reason(error)
                if "Error" not in reason:  # the process died without raising an error
                    reason = "they ended at once, perhaps out of memory"
                return f"their processes do not start: {reason}"
    return None


def dask_setup(_worker) -> None:
    """On a worker of this machine: ignore Ctrl-C, which the stage's own process handles."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def _local(workers: int) -> Iterator[Client]:
    """Yield a client of a new cluster on this machine, which is closed at the end."""
    if len(tempfile.gettempdir().encode()) > SOCKET_PATH:
        tempfile.tempdir = "/tmp"  # noqa: S108 - for this process only, which creates files with unique names
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = max(soft, 64 + 16 * workers)  # twice the number measured
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    except (ValueError, OSError):
        line = f"this machine cannot start workers ({soft} open files at most); `ulimit -n {files}`"
        raise UserError(line) from None
    workspace = shared_root() / "data" / "dask"
    with dask.config.set(_LOCAL_CONFIG):
        try:
            workspace.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=workspace).close()  # Dask would retry silently if it is read-only
            if _METHOD == "forkserver":
                get_mp_context().set_forkserver_preload(["stages.training.preload", "distributed"])
                resource_tracker.ensure_running()  # first, since starting it unblocks SIGINT
                # The server and its forks inherit the blocked SIGINT: only this process handles Ctrl-C
                signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
                try:
                    forkserver.ensure_running()
                finally:
                    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            local = LocalCluster(
                n_workers=0,
                threads_per_worker=1,
                memory_limit=None,  # at a limit, Dask could only kill the worker, not spill its memory
                dashboard_address="127.0.0.1:0",
                local_directory=str(workspace),
                security=Security.temporary(),  # a temporary key, since all users can reach the ports
                silence_logs=logging.CRITICAL,
            )
        except Exception as error:
            clock = "; is its clock right?" if "certificate" in str(error) else ""
            raise UserError(f"this machine cannot start workers ({_reason(error)}){clock}") from None
        client = Client(local, set_as_default=False)
        local.scale(workers)
        try:
            yield client
        finally:
            for each in (client, local):
                with suppress(Exception):  # raised if a worker is just being restarted
                    each.close()


@contextmanager
def _remote(address: str) -> Iterator[Client]:
    """Yield a client of the cluster whose scheduler is at `address`."""
    try:
        asyncio.run(_check_scheduler(address))
        client = Client(address, timeout=CONNECT_TIMEOUT, set_as_default=False)
    except (OSError, ValueError, TypeError, RuntimeError) as error:  # the last two without certificates
        raise UserError(
            f"DASK_SCHEDULER_ADDRESS is {address}, but no scheduler answers there within {CONNECT_TIMEOUT} s "
            f"({_reason(error)}); start one, see docs/cluster.md, or unset the variable to use this machine"
        ) from None
    with client:
        yield client


async def _check_scheduler(address: str) -> None:
    """Raise an error if no scheduler answers at `address`: a `Client` would wait for it for ever."""
    arguments = Security().get_connection_args("client")
    opened = comm.connect(address, timeout=CONNECT_TIMEOUT, **arguments)
    await (await asyncio.wait_for(opened, CONNECT_TIMEOUT)).close()


def _reason(error: Exception) -> str:
    """Return the message of `error` in one line, without the Dask objects that it begins with."""
    return " ".join(str(error).split()).rpartition(">: ")[2][:300] or type(error).__name__
