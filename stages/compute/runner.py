"""On the client: runs trainings on Dask's workers, from where the store has them, and counts their epochs.

A task is a training's name and what it is made of; its result is its history. Workers that reach the store,
which are those of this machine or all if it is at a URL, read and write it themselves. For others the
checkpoint goes in with the task and comes out at its end. Dask gives a dead worker's trainings to another.
"""

import pickle
import queue
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
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
MOST_DEATHS = 3  # of workers that train one network, which is then taken for the cause
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
        place = settings.runtime.store
        self._store = Store(place if "://" in place else str(shared_root() / place))
        self._store.prune(settings.runtime.store_gigabytes * 1e9)
        self.stored = self._store.keys()
        self.epochs: dict[Training, int] = {}
        self.epochs_reused = 0
        self._asked: dict[str, tuple[Training, int]] = {}  # trainings and their epochs, by key
        self._begun: Counter[str] = Counter()  # how often a worker began a job since its last known epoch
        self._reasons: dict[str, str] = {}  # why workers were sent away
        self._devices: set[str] = set()  # of workers that are ready
        self._takes_epochs = False  # whether the network depends on how many epochs its training has
        self._ready, self._lock = threading.Event(), threading.Lock()
        self._last_seen = 0.0  # when a worker last told anything, by the clock `time.monotonic`
        self._name = f"{plugin.PREFIX}{client.id}-{uuid.uuid4().hex[:8]}"
        self._how = {"early_stopping": early_stopping}
        self._search = self._prepare(subsets)

    def __enter__(self) -> "Runner":
        """Have all workers, and those that come later, made ready."""
        self._last_seen = time.monotonic() + WORKERS_TIMEOUT  # a worker that is ready; the first has longer
        self._client.subscribe_topic(self._name, lambda event: self._heed(**event[1]))
        try:
            self._client.run_on_scheduler(plugin.end_the_dead)
            self._send_other_pythons_away()
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
        local = self._client.cluster is not None
        self._shared = local or "://" in self._store.place
        if local:
            data: dict = {name: str(folder.absolute()) for name, folder in folders.items()}
        else:
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
        place = self._store.place if self._shared else None
        session = {"data": data, "digests": digests, "subsets": dict(subsets), "store": place, **self._how}
        tasks = self._tests or "stages.compute.worker"
        self._trains = code.training_code()
        works = self._trains | code.imported(tasks)
        versions, sent = plugin.versions(), pickle.dumps(session)
        return plugin.Search(self._name, versions, works, code.digest(works), tasks, sent)

    def _send_other_pythons_away(self) -> None:
        """Have workers leave that could not even read what is sent to check them; a later one cannot join."""
        versions: Any = self._client.get_versions()
        for worker, about in versions["workers"].items():
            theirs, ours = ".".join(about["host"]["python"].split(".")[:2]), self._search.expected["Python"]
            if theirs != ours:
                self._heed(worker, left=f"Python {theirs} where the client has {ours}")
                self._client.retire_workers([worker], close_workers=True)

    @cached_property
    def _device(self) -> str:
        """What the workers compute on, as soon as one is ready: a GPU, if one has it."""
        while not self._ready.wait(1):
            self._check_workers()
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
        [(_, result)] = self._results(task, {task: {"key": task, **job}})
        if "failure" in result:
            raise UserError(f"{task}: {result['failure']}; {_GONE}")
        return result

    def run(self, asked: Mapping[Training, int]) -> Iterator[tuple[Training, Checkpoint | str, dict]]:
        """Train each training to the epoch asked for; yield each when it is done.

        Yields:
            The training; its checkpoint, without arrays and perhaps further on, or why it failed in one line;
            and, with `test`, what `Session.test` says of it. The longest trainings start first.

        Raises:
            UserError: the workers are lost for good or cannot train, or the store cannot be read or written.
        """
        jobs: dict[str, dict] = {}
        for training, epochs in sorted(asked.items(), key=lambda item: -item[1]):
            key, known = self.key(training, epochs), self.epochs.get(training, 0)
            self._asked[key] = training, epochs
            stored = self._load(key, epochs, arrays=False) if known or key in self.stored else None
            self._note(key, stored.epoch if stored else 0)
            self.epochs_reused += self.epochs[training] - known
            if stored and stored.done(epochs) and not self._tests:
                yield training, stored, {}
                continue
            jobs[key] = {
                **vars(training),
                "key": key,
                "epochs": epochs,
                "all_epochs": self._max_epochs or epochs,
                "exact": bool(self._tests),
                "keep": stored.epoch if stored and self._tests else 0,
                "model": not jobs,
            }
        for key, result in self._results("test" if self._tests else "train", jobs):
            training, tested = self._asked[key][0], result.pop("test", {})
            if "failure" in result:
                yield training, result["failure"], {}
                continue
            checkpoint = Checkpoint(**result)
            if not self._shared:
                self._store.save(key, checkpoint, keep=jobs[key]["keep"])
            self._note(key, checkpoint.epoch)
            yield training, replace(checkpoint, weights=[], optimizer=[]), tested

    def _results(self, task: str, jobs: Mapping[str, dict]) -> Iterator[tuple[str, dict]]:
        """Have workers do `task` of all `jobs`, the first most urgently; yield the key and result of each."""
        running: dict[str, Future] = {}
        done: queue.SimpleQueue[str] = queue.SimpleQueue()

        def submit(key: str) -> None:
            arguments = self._name, task, jobs[key], self._device, *self._sent(jobs[key])
            urgency = {"retries": RETRIES, "priority": -list(jobs).index(key)}
            running[key] = self._client.submit(_call, *arguments, **urgency, pure=False)
            running[key].add_done_callback(lambda _: done.put(key))

        try:
            for key in jobs:
                submit(key)
            self._last_seen = time.monotonic()
            while running:
                try:
                    key = done.get(timeout=1)
                except queue.Empty:
                    self.progress(0)
                    self._check_workers()
                    continue
                self._last_seen = time.monotonic()
                if result := self._result(key, running.pop(key)):
                    yield key, result
                else:
                    submit(key)
        except (OSError, CancelledError, ClosedClientError) as error:
            running.clear()
            raise UserError(f"the cluster is gone ({' '.join(str(error).split())}); {_GONE}") from None
        finally:
            if running:
                self._client.cancel(list(running.values()))

    def _sent(self, job: dict) -> list[dict | None]:
        """Return what goes with a training: a checkpoint to go on from, unless the worker reads it itself."""
        if "epochs" not in job:
            return []
        checkpoint = None if self._shared else self._load(job["key"], job["epochs"])
        return [vars(checkpoint) if checkpoint else None]

    def _result(self, key: str, future: Future) -> dict | None:
        """Return what came of a task; None if it is to be done again."""
        try:
            result = future.result()
        except distributed.KilledWorker:  # also of tasks that only waited on workers that died
            deaths = self._begun[key]
            died = f"the worker died {deaths} times while training it, as for want of memory"
            return {"failure": died} if deaths > MOST_DEATHS else None
        except RuntimeError as error:
            raise UserError(f"{error}, after {RETRIES + 1} tries; mend or stop the worker; {_GONE}") from None
        if "mistake" in result:
            raise UserError(result["mistake"])
        return result

    def _check_workers(self) -> None:
        """Raise UserError if there are no workers and none can be expected, OSError if no scheduler."""
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
        self,
        worker: str,
        device: str = "",
        takes_epochs: bool = False,
        left: str = "",
        key: str = "",
        epoch: int = 0,
    ) -> None:
        """Take in what a worker tells; in a thread of Dask's."""
        if not left:
            self._last_seen = max(self._last_seen, time.monotonic())
        if device:
            self._takes_epochs = takes_epochs
            self._devices.add(device)
            self._ready.set()
        elif left:
            if left not in self._reasons:  # such workers may be started again and again
                console.say(f"worker {worker} was sent away: {left}")
            self._reasons[left] = f"{worker}: {left}"
        elif epoch:
            self._note(key, epoch)
        else:
            self._begun[key] += 1

    def _note(self, key: str, epoch: int) -> None:
        """Note that a training is at `epoch`, or at the one asked for, if it was not known to be further."""
        with self._lock:
            training, epochs = self._asked[key]
            known, epoch = self.epochs.setdefault(training, 0), min(epoch, epochs)
            if epoch > known:
                self.epochs[training] = epoch
                self._begun[key] = 0
                self.progress(epoch - known)

    def _load(self, key: str, epochs: int, *, arrays: bool = True) -> Checkpoint | None:
        """Return what is stored of a training: with tests the epoch asked for or less, else the longest."""
        return self._store.load(key, epochs if self._tests else None, arrays=arrays)
