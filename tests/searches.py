"""For tests of clusters and interruptions: a search as a process, what it started, a cluster by hand."""

import signal
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
from conftest import ENVIRONMENT


def start(project, *command: str, **environment) -> subprocess.Popen:
    """Start the search, or another command, in a process group of its own."""
    return subprocess.Popen(
        command or ["python", "-m", "stages.tune"],
        cwd=project.folder,
        env={**ENVIRONMENT, **environment},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        ),  # a shell's background jobs ignore it
    )


def processes_of(search: subprocess.Popen) -> list[psutil.Process]:
    return psutil.Process(search.pid).children(recursive=True)


def busiest(processes: list[psutil.Process]) -> psutil.Process:
    """The worker that has computed most: of the processes that have no children."""
    return max((p for p in processes if not p.children()), key=lambda process: sum(process.cpu_times()[:2]))


def wait_until_gone(processes: list[psutil.Process], timeout=20) -> None:
    _, alive = psutil.wait_procs(processes, timeout)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


def wait_for_store(project, entries: int, search: subprocess.Popen) -> None:
    """Wait until the search has stored that many trainings."""
    while len(list((project.folder / "data/trials").glob("*.npz"))) < entries and search.poll() is None:
        time.sleep(0.02)
    assert search.poll() is None, search.stdout.read()


@contextmanager
def cluster_by_hand(
    folder: Path, scheme="tcp", host="127.0.0.1", before: tuple[str, ...] = (), **environment
):
    """A scheduler in `folder`, without this repository: its address, it, and a function that starts a worker.

    Args:
        before: what to put before the command.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address, started = f"{scheme}://{host}:{port}", []

    def dask(*arguments: str, before: tuple[str, ...] = (), **more) -> subprocess.Popen:
        place = folder / str(len(started))
        place.mkdir()
        with (place / "log").open("w") as log:
            command, environ = [*before, "dask", *arguments], {**ENVIRONMENT, **environment, **more}
            started.append(
                subprocess.Popen(command, cwd=place, env=environ, stdout=log, stderr=subprocess.STDOUT)
            )
        return started[-1]

    def worker(*options: str, **more) -> subprocess.Popen:
        return dask("worker", address, "--nthreads", "1", "--no-nanny", *options, **more)

    scheduler = dask(
        "scheduler", "--host", host, "--port", str(port), "--dashboard-address", "127.0.0.1:0", before=before
    )
    try:
        yield address, scheduler, worker
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait(30)
