"""On the client: runs trainings on Dask's workers, from where the store has them, and counts their epochs.

A task is some seconds of one training. The checkpoint to go on from goes to a worker with it; the one that
comes back is stored, and goes out with the next task. So a worker needs neither the store nor a disk that
others share, and one that dies costs seconds, which Dask has another worker do again.
"""

import pickle
import queue
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import cloudpickle
import distributed
import numpy as np
from distributed import Client, Future
from distributed.client import ClosedClientError

from stages.base import console, splits
from stages.base.console import UserError
from stages.base.files import shared_root
from stages.base.params import Params
from stages.compute import cluster, code, plugin, store
from stages.compute.store import Store
from stages.training.checkpoint import Checkpoint

WORKERS_TIMEOUT = 60  # seconds to wait for a worker, at the start and when all were lost
SECONDS = 10  # of a training between two checkpoints, or more for large ones:
BYTES_PER_SECOND = 2**21  # of checkpoints that travel, one way
POLL = 0.2  # seconds between two looks for a worker that has nothing to do
RETRIES = 2  # after a worker could not do a task, for a lack of memory, a broken package or the like
MOST_SENT = 4.2  # gigabytes of data: what one message of Dask can hold is 2**32 bytes
_GONE = "finished epochs are kept, run again to go on"

cloudpickle.register_pickle_by_value(plugin)
# A copy that pickle does not find by name: Dask's scheduler, without this repository's code, reads it too
_call = cloudpickle.loads(cloudpickle.dumps(plugin.call))


@dataclass(frozen=True)
class Training:
    """One training.

    Attributes:
        hyperparameters: by name, those that the network has.
        seed: of its initial weights, shuffling and dropout.
        subset: a name for the rows it trains on and those it is scored on.
    """

    hyperparameters: Mapping[str, object]
    seed: int
    subset: str

    def __hash__(self) -> int:
        return hash((tuple(sorted(self.hyperparameters.items())), self.seed, self.subset))


class Runner:
    """Runs trainings on the prepared data, on `client`'s workers. A context manager that ends what it began.

    Args:
        subsets: (rows to train on, rows to score on) of the training part by name; the latter may be none.
        early_stopping: `monitor` and `patience`.
        max_epochs: how many epochs a training has if nothing stops it; None: those that `run` asks for.
        tests: a module with a function `test`: trainings end exactly at the epoch asked for, then in that.

    Attributes:
        progress: called with the number of epochs whenever some are done, trained or from the store.
        epochs: trained of each training so far, in this search or an earlier one.
        epochs_reused: how many of all these came from the store.
        stored: the keys of the trainings that were in the store before.

    Raises:
        UserError: the data is missing, the store cannot be read, or no worker comes.
    """

    def __init__(
        self,
        client: Client,
        settings: Params,
        subsets: Mapping[str, tuple[np.ndarray, np.ndarray]],
        *,
        early_stopping: Mapping[str, object] | None = None,
        max_epochs: int | None = None,
        tests: str | None = None,
    ):
        self._client, self._max_epochs, self._tests = client, max_epochs, tests
        self.progress: Callable[[int], object] = lambda epochs: None
        self._store = Store(shared_root() / Path(settings.runtime.store).expanduser())
        self._store.prune(settings.runtime.store_gigabytes * 1e9)
        self.stored = self._store.keys()
        self.epochs: dict[Training, int] = {}
        self.epochs_reused = 0
        self._reasons: dict[str, str] = {}  # why workers were sent away
        self._mistake = ""  # of the user, as a worker found it
        self._devices: set[str] = set()  # of workers that are ready
        self._takes_epochs = False  # whether the network depends on how many epochs its training has
        self._ready = threading.Event()
        self._last_seen = 0.0  # when a worker last told anything, by the clock `time.monotonic`
        self._name = f"{plugin.PREFIX}{client.id}-{uuid.uuid4().hex[:8]}"
        self._how = {"early_stopping": early_stopping}
        self._search = self._prepare(subsets)

    def __enter__(self) -> "Runner":
        """Have all workers, and those that come later, made ready."""
        self._last_seen = time.monotonic() + WORKERS_TIMEOUT  # a worker that is ready; the first has longer
        self._client.subscribe_topic(self._name, lambda event: self._heed(**event[1]))
        try:
            self._send_other_pythons_away()
            self._client.run_on_scheduler(plugin.end_the_dead)
            with suppress(OSError):  # of a worker that dies at it; the others, and those that come, have it
                self._client.register_plugin(self._search)
        except BaseException as error:
            self.__exit__()
            if isinstance(error, OSError):
                raise UserError(f"the cluster is gone ({error}); run again") from None
            raise
        return self

    def __exit__(self, *_) -> None:
        if self._client.status == "running":
            with suppress(Exception):  # what has failed before is what counts
                self._client.unregister_worker_plugin(self._name)

    def _prepare(self, subsets: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> plugin.Search:
        """Return what makes workers ready."""
        folders = {"training": splits.TRAINING} | ({"test": splits.TEST} if self._tests else {})
        parts = {name: splits.load(folder) for name, folder in folders.items()}
        digests = {name: splits.digest(part) for name, part in parts.items()}
        self._subsets = {
            name: store.key(data=digests["training"], rows=[each.tolist() for each in rows])
            for name, rows in subsets.items()
        }
        data: dict = {name: str(folder.absolute()) for name, folder in folders.items()}
        if not self._client.cluster:  # its workers may have no disk in common with this machine
            data = {
                name: {key: np.asarray(array) for key, array in part.arrays.items()}
                for name, part in parts.items()
            }
            size = sum(array.nbytes for arrays in data.values() for array in arrays.values()) / 1e9
            if size > MOST_SENT:
                raise UserError(
                    f"data/prepared has {size:.1f} GB, but {MOST_SENT} at most can be sent to the workers of "
                    "DASK_SCHEDULER_ADDRESS; unset it to train on this machine"
                )
        session = {"data": data, "digests": digests, "subsets": dict(subsets), **self._how}
        tasks = self._tests or "stages.compute.worker"
        self._trains = code.training_code()
        works = self._trains | code.imported(tasks)
        versions, sent = plugin.versions(), pickle.dumps(session)
        return plugin.Search(self._name, versions, works, code.digest(works), tasks, sent)

    def _send_other_pythons_away(self) -> None:
        """Have workers leave that could not even read what is sent to check them; a later one cannot join.

        UserError if the scheduler could not.
        """
        versions: Any = self._client.get_versions()
        ours = self._search.expected["Python"]
        for worker, about in {"scheduler": versions["scheduler"], **versions["workers"]}.items():
            theirs = ".".join(about["host"]["python"].split(".")[:2])
            if theirs != ours and worker == "scheduler":
                raise UserError(
                    f"the scheduler has Python {theirs} where the client has {ours}; start it anew"
                )
            if theirs != ours:
                self._heed(worker, left=f"Python {theirs} where the client has {ours}")
                self._client.retire_workers([worker], close_workers=True)

    @cached_property
    def _device(self) -> str:
        """What the workers compute on, as soon as one is ready: a GPU, if one has it."""
        try:
            while not self._ready.wait(1):
                self._check_workers()
        except OSError as error:
            raise UserError(f"the cluster is gone ({error}); run again") from None
        return max(self._devices)

    @cached_property
    def _decides(self) -> dict[str, object]:
        """What all trainings have in common that decides what they come to."""
        environment = {**self._search.expected, "device": self._device}
        return {"code": code.digest(self._trains), "environment": environment, **self._how}

    def key(self, training: Training, epochs: int) -> str:
        """Return the name in the store of `training`: a hash of all that decides what it comes to."""
        decides = self._decides  # waits for the first worker
        return store.key(
            hyperparameters=dict(training.hyperparameters),
            seed=training.seed,
            data=self._subsets[training.subset],
            epochs=(self._max_epochs or epochs) if self._takes_epochs else None,
            **decides,
        )

    def ask(self, task: str, **job: object) -> dict:
        """Return what a worker's `Session` answers to `task`; UserError as for `run`."""
        [(_, result)] = self._results(task, deque([job]))
        if "failure" in result:
            raise UserError(f"{task}: {result['failure']}; {_GONE}")
        return result

    def run(self, asked: Mapping[Training, int]) -> Iterator[tuple[Training, Checkpoint | str, dict]]:
        """Train each training to the epoch asked for; yield each when it is done.

        Yields:
            The training; its checkpoint, without arrays and perhaps further on, or why it failed in one line;
            and, with `tests`, what its function `test` says of it. The longest trainings start first.

        Raises:
            UserError: the workers are lost for good or cannot train, or the store cannot be read or written.
        """
        trainings: dict[str, Training] = {}
        jobs: deque[dict[str, Any]] = deque()
        for training, epochs in sorted(asked.items(), key=lambda item: -item[1]):
            key, known = self.key(training, epochs), self.epochs.setdefault(training, 0)
            stored = self._load(key, epochs, arrays=False) if known or key in self.stored else None
            if stored:
                self.epochs_reused += self._count(training, min(stored.epoch, epochs))
                if stored.done(epochs) and not self._tests:
                    yield training, stored, {}
                    continue
            trainings[key] = training
            lengths = {"epochs": epochs, "all_epochs": self._max_epochs or epochs}
            start = stored.epoch if stored else 0
            jobs.append({**vars(training), **lengths, "key": key, "start": start, "model": not jobs})
        for job, result in self._results("test" if self._tests else "train", jobs):
            training, tested = trainings[job["key"]], result.pop("test", {})
            if "failure" in result:
                yield training, result["failure"], {}
                continue
            checkpoint = Checkpoint(**result)
            if checkpoint.epoch > job["start"]:
                self._store.save(job["key"], checkpoint, keep=job["start"])
            self._count(training, min(checkpoint.epoch, job["epochs"]))
            if checkpoint.done(job["epochs"]):
                yield training, replace(checkpoint, weights=[], optimizer=[]), tested
            else:
                jobs.appendleft(job)

    def _results(self, task: str, jobs: deque[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], dict]]:
        """Have each worker do one `task` at a time, in the order of `jobs`; yield each job with its result.

        Those that the caller adds before it asks for the next result are done too. None waits on a worker,
        where Dask would take it for the cause of the worker's death.
        """
        running: dict[Future, dict] = {}
        done: queue.SimpleQueue[Future] = queue.SimpleQueue()
        self._last_seen = time.monotonic()
        try:
            while jobs or running:
                while jobs and len(running) < max(1, len(self._client.nthreads())):
                    job = jobs.popleft()
                    arguments = self._name, task, self._with_checkpoint(job), self._device
                    future = self._client.submit(_call, *arguments, retries=RETRIES, pure=False)
                    running[future] = job
                    future.add_done_callback(done.put)
                try:
                    future = done.get(timeout=POLL if jobs else 1)
                except queue.Empty:
                    self.progress(0)
                    self._check_workers()
                    continue
                self._last_seen = time.monotonic()
                yield running.pop(future), self._result(future)
        except (OSError, CancelledError, ClosedClientError) as error:
            running.clear()
            raise UserError(f"the cluster is gone ({' '.join(str(error).split())}); {_GONE}") from None
        finally:
            if running:
                self._client.cancel(list(running))

    def _with_checkpoint(self, job: dict) -> dict:
        """Return `job` with where to go on from, if it is a training, and for how long."""
        if "epochs" not in job:
            return job
        checkpoint = self._load(job["key"], job["epochs"])
        job["start"] = min(job["start"], checkpoint.epoch if checkpoint else 0)  # it may be gone, or damaged
        size = sum(array.nbytes for array in checkpoint.weights + checkpoint.optimizer) if checkpoint else 0
        seconds = max(SECONDS, size / BYTES_PER_SECOND)
        return {**job, "checkpoint": checkpoint and vars(checkpoint), "seconds": seconds}

    def _result(self, future: Future) -> dict:
        """Return what came of a task."""
        try:
            result = future.result()
        except distributed.KilledWorker as error:
            died = f"the worker died {error.allowed_failures + 1} times while training it"
            return {"failure": f"{died}, as for want of memory"}
        except RuntimeError as error:
            raise UserError(f"{error}, after {RETRIES + 1} tries; mend or stop the worker; {_GONE}") from None
        if "mistake" in result:
            raise UserError(result["mistake"])
        return result

    def _check_workers(self) -> None:
        """Raise UserError if there are no workers and none can be expected, OSError if no scheduler."""
        if self._mistake:
            raise UserError(self._mistake)
        if self._client.status == "closed":
            raise OSError("the connection is closed")
        threads = self._client.nthreads()
        if threads and self._ready.is_set():
            self._last_seen = time.monotonic()
            return
        reason = next(filter(None, [cluster.failure(self._client), *self._reasons.values()]), None)
        hopeless = reason and not threads and not self._ready.is_set()
        if hopeless or time.monotonic() - self._last_seen > WORKERS_TIMEOUT:
            address = "" if self._client.cluster else self._client.scheduler.address
            mend = f"start one with `dask worker {address}`" if address else "run again to go on"
            raise UserError(f"there are no workers{f' ({reason})' if reason else ''}; {mend}")

    def _heed(
        self, worker: str, device: str = "", takes_epochs: bool = False, left: str = "", mistake: str = ""
    ) -> None:
        """Take in that a worker is ready, or why it was sent away or cannot be; in a thread of Dask's."""
        if mistake:
            self._mistake = mistake
        elif device:
            self._last_seen = max(self._last_seen, time.monotonic())
            self._takes_epochs = takes_epochs
            self._devices.add(device)
            self._ready.set()
        elif left not in self._reasons:  # such workers may be started again and again
            console.say(f"worker {worker} was sent away: {left}")
            self._reasons[left] = f"{worker}: {left}"

    def _count(self, training: Training, epoch: int) -> int:
        """Count the epochs of a training that is at `epoch`; return how many were not counted before."""
        new = max(0, epoch - self.epochs[training])
        self.epochs[training] += new
        self.progress(new)
        return new

    def _load(self, key: str, epochs: int, *, arrays: bool = True) -> Checkpoint | None:
        """Return what is stored of a training: with tests the epoch asked for or less, else the longest."""
        return self._store.load(key, epochs if self._tests else None, arrays=arrays)
