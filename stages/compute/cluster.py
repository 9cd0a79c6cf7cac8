"""On the client: a Dask client for local worker processes, or for the cluster at `DASK_SCHEDULER_ADDRESS`."""

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
SOCKET_PATH = 75  # bytes: the longest temporary folder in which `multiprocessing` can create its sockets
_METHOD = "forkserver" if sys.platform == "linux" else "spawn"
_LOCAL = {
    # Off: the memory manager drops copies of data that all workers need, the profiler interrupts trainings
    "distributed.scheduler.active-memory-manager.start": False,
    "distributed.worker.profile.enabled": False,
    "distributed.worker.multiprocessing-method": _METHOD,
    "distributed.worker.preload": ["stages.compute.cluster"],
    "distributed.comm.timeouts.connect": "10s",
}


@contextmanager
def connect(workers: int | None) -> Iterator[Client]:
    """Yield a Dask client. Local workers start in the background and stop at the end of the block.

    Args:
        workers: how many local processes, of one thread each; None: one for each core.

    Raises:
        UserError: local workers cannot be started, or the scheduler cannot be reached.
    """
    for handler in logging.getLogger("distributed").handlers:
        handler.setLevel(logging.CRITICAL)  # Dask's threads may still log after the block has ended
    address = dask.config.get("scheduler-address", None)
    start = _reach(address) if address else _start(workers or CPU_COUNT)
    large = {"distributed.admin.large-graph-warning-threshold": "1TB"}  # tasks contain checkpoints
    with dask.config.set(large), start as client:
        if find_spec("bokeh") and client.dashboard_link:
            print(f"dashboard: {client.dashboard_link}", flush=True)
        yield client


def failure(client: Client) -> str | None:
    """Return why a local worker could not start; None if none failed."""
    for nanny in getattr(client.cluster, "workers", {}).values():
        if nanny.status.name == "failed":
            try:
                client.sync(nanny.start)  # raises the error again
            except Exception as error:
                reason = _reason(error)
                if "Error" not in reason:  # the process died without raising anything
                    reason = "they ended at once, perhaps for want of memory"
                return f"their processes do not start: {reason}"
    return None


def dask_setup(_worker) -> None:
    """On a local worker: ignore Ctrl-C, which the client handles."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def _start(workers: int) -> Iterator[Client]:
    if len(tempfile.gettempdir().encode()) > SOCKET_PATH:
        tempfile.tempdir = "/tmp"  # noqa: S108 - in this process only; `tempfile` makes unique names in it
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = max(soft, 64 + 16 * workers)  # twice what was counted
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    except (ValueError, OSError):
        line = f"this machine cannot start workers ({soft} open files at most); `ulimit -n {files}`"
        raise UserError(line) from None
    workspace = shared_root() / "data" / "dask"
    with dask.config.set(_LOCAL):
        try:
            workspace.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=workspace).close()  # else Dask would retry for ever, without a message
            if _METHOD == "forkserver":
                get_mp_context().set_forkserver_preload(["stages.training.preload", "distributed"])
                resource_tracker.ensure_running()  # first, since it unblocks SIGINT when it returns
                # Ctrl-C is for this process: the fork server and the workers inherit the blocked signal
                signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
                try:
                    forkserver.ensure_running()
                finally:
                    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            local = LocalCluster(
                n_workers=0,
                threads_per_worker=1,
                memory_limit=None,  # TensorFlow's memory cannot be spilled: a limit would only kill workers
                dashboard_address="127.0.0.1:0",
                local_directory=str(workspace),
                security=Security.temporary(),  # a key for this process: other users can reach its ports
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
                with suppress(Exception):  # such as from a worker that is just being restarted
                    each.close()


@contextmanager
def _reach(address: str) -> Iterator[Client]:
    try:
        asyncio.run(_greet(address))
        client = Client(address, timeout=CONNECT_TIMEOUT, set_as_default=False)
    except (OSError, ValueError, TypeError, RuntimeError) as error:  # the last two: missing certificates
        raise UserError(
            f"DASK_SCHEDULER_ADDRESS is {address}, but no scheduler answers there within {CONNECT_TIMEOUT} s "
            f"({_reason(error)}); start one, see docs/cluster.md, or unset the variable to use this machine"
        ) from None
    with client:
        yield client


async def _greet(address: str) -> None:
    """Connect to the scheduler once, with a timeout: `Client` would wait for ever for a silent one."""
    arguments = Security().get_connection_args("client")
    opened = comm.connect(address, timeout=CONNECT_TIMEOUT, **arguments)
    await (await asyncio.wait_for(opened, CONNECT_TIMEOUT)).close()


def _reason(error: Exception) -> str:
    """The error's message in one line, without the Dask objects that it begins with."""
    return " ".join(str(error).split()).rpartition(">: ")[2][:300] or type(error).__name__
