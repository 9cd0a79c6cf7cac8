"""How well the runner keeps many workers busy: real Dask workers, a real store, trainings that only sleep.

Run as `python -m benchmarks.scale` after `dvc repro prepare`; `--slots 64 --megabytes 5` measures one case. An epoch sleeps a
second and leaves a checkpoint of so many megabytes, so 100 % is what as many workers without any overhead would do. All is on
this machine: its cores do the work of the workers, the scheduler and the client, where a real cluster has more of them.
"""

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import pickle
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import dask
import distributed
import numpy as np
from tornado.iostream import IOStream

from stages.base import params
from stages.compute import remote, worker
from stages.compute.cluster import Cluster
from stages.compute.runner import Runner
from stages.compute.worker import Training
from stages.training.trainer import Checkpoint

CASES = [(slots, megabytes) for megabytes in (0.5, 5, 50) for slots in (1, 4, 16, 64, 256) if slots * megabytes <= 800]
EPOCHS, EPOCH = 10, 1.0  # of a training, and seconds of an epoch
ROUNDS = 2  # trainings for each slot, one after the other
PROCESSES = 4  # that share the slots
os.environ["DASK_LOGGING__DISTRIBUTED"] = "error"
os.environ["DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED"] = "False"  # as on this project's own clusters


class Sleeper:
    """In place of a `Trainer`: an epoch is a second's sleep."""

    def __init__(self, megabytes: float):
        self.array = np.zeros(int(megabytes * 250_000), np.float32)

    def run(self, epochs: int, checkpoint: Checkpoint | None, seconds_at_most: float) -> Checkpoint:
        start, epoch = time.monotonic(), checkpoint.epoch if checkpoint else 0
        while epoch < epochs and time.monotonic() - start < seconds_at_most:
            time.sleep(EPOCH)
            epoch += 1
        history = {name: [0.5] * epoch for name in ("accuracy", "loss", "val_accuracy", "val_loss")}
        return Checkpoint(epoch, [self.array + epoch], [], history, [EPOCH] * epoch, self.array.size)


def sleep(_name, _code, _environment, arguments, data, checkpoint, topic):
    """What a task runs in place of `remote.run`: the real `train`, without unpacking code, with a `Sleeper`."""
    at = distributed.get_worker()
    worker._Kept.trainer = lambda _kept, _settings, training, _data: Sleeper(training.hyperparameters["megabytes"])
    settings, job = pickle.loads(arguments)  # noqa: S301 - of this benchmark
    return worker.train(settings, job, data, checkpoint, lambda epoch: at.log_event(topic[0], (topic[1], epoch)))


def schedule(address: multiprocessing.SimpleQueue) -> None:
    """Run a Dask scheduler in this process, until it is ended, and put its address into the queue."""

    async def run() -> None:
        async with distributed.Scheduler(host="127.0.0.1", port=0, dashboard=False) as scheduler:
            address.put(scheduler.address)
            await asyncio.Event().wait()

    asyncio.run(run())


def work(address: str, count: int, folder: str) -> None:
    """Run `count` Dask workers of one thread each in this process, until it is ended."""

    async def run() -> None:
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(count):
                await stack.enter_async_context(distributed.Worker(address, nthreads=1, local_directory=folder))
            await asyncio.Event().wait()

    asyncio.run(run())


@contextlib.contextmanager
def cluster(slots: int, folder: str) -> Iterator[Cluster]:
    """A scheduler in a process of its own and as many workers, in at most `PROCESSES` others."""
    context = multiprocessing.get_context("spawn")
    address, started = context.SimpleQueue(), []

    def start(function, *arguments) -> None:
        started.append(context.Process(target=function, args=arguments, daemon=True))
        started[-1].start()

    try:
        start(schedule, address)
        scheduler = address.get()
        for i in range(min(slots, PROCESSES)):
            start(work, scheduler, len(range(i, slots, PROCESSES)), folder)
        with distributed.Client(scheduler) as client:
            client.wait_for_workers(slots, timeout=300)
        with dask.config.set({"scheduler-address": scheduler}), Cluster(None) as there:
            yield there
    finally:
        for process in started:
            process.terminate()


def measure(slots: int, megabytes: float, *, through_client: bool) -> dict[str, float]:
    """Return the efficiency of a search with so many slots, and what an epoch costs the client."""
    received = 0

    def counted(read):
        def reading(self, size, *arguments, **options):
            nonlocal received
            received += size if isinstance(size, int) else memoryview(size).nbytes
            return read(self, size, *arguments, **options)

        return reading

    reads = {name: getattr(IOStream, name) for name in ("read_bytes", "read_into")}
    for name, read in reads.items():
        setattr(IOStream, name, counted(read))
    with tempfile.TemporaryDirectory(dir="data") as folder, cluster(slots, folder) as there:
        settings = params.load()
        store = f"{folder}/store" if through_client else f"file://{Path(folder).absolute()}/store"
        settings = settings.model_copy(update={"runtime": settings.runtime.model_copy(update={"store": store})})
        runner = Runner(there, settings, {"all": (np.arange(10), np.arange(10))})
        runner._data = {}  # which would otherwise be in the memory of this machine once for each slot
        asked = {Training({"number": n, "megabytes": megabytes}, 0, "all"): EPOCHS for n in range(ROUNDS * slots)}
        runner._connect()
        received, cpu, start = 0, time.process_time(), time.perf_counter()
        done = sum(isinstance(checkpoint, Checkpoint) for _, checkpoint in runner.run(asked))
        seconds = time.perf_counter() - start
        assert done == len(asked)
        epochs = EPOCHS * len(asked)
        figures = {
            "efficiency": EPOCH * epochs / slots / seconds,
            "client's ms an epoch": 1000 * (time.process_time() - cpu) / epochs,
            "client's kB an epoch": received / epochs / 1000,
            "client's memory, MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000,
        }
    for name, read in reads.items():
        setattr(IOStream, name, read)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--slots", type=int)
    parser.add_argument("--megabytes", type=float)
    parser.add_argument("--through-client", action="store_true", help="as where workers do not reach the store")
    arguments = parser.parse_args()
    remote.run_anywhere = sleep
    cases = [(arguments.slots, arguments.megabytes or 5)] if arguments.slots else CASES
    for slots, megabytes in cases:
        figures = measure(slots, megabytes, through_client=arguments.through_client)
        if (slots, megabytes) == cases[0]:
            print(f"| slots | MB | {' | '.join(figures)} |\n|{' --- |' * (2 + len(figures))}")
        print(f"| {slots} | {megabytes:g} | {figures.pop('efficiency'):.0%} | ", end="")
        print(" | ".join(f"{figure:.1f}" for figure in figures.values()), "|", flush=True)


if __name__ == "__main__":
    main()
