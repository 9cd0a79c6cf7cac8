"""Runs trainings on a Dask cluster: from where the store has them, and back into the store every few seconds.

A worker trains until a training has its epochs or `SAVE_EVERY` seconds are over, returns the checkpoint and goes on; a thread
beside the search writes it. Dask gives a dead worker's trainings to another one. Only the client, which is this process, reads
and writes the store.
"""

import pickle
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import distributed
import numpy as np

from stages.base.console import UserError
from stages.base.files import shared_root
from stages.base.params import EarlyStopping, Params
from stages.base.splits import Split
from stages.compute import remote, store
from stages.compute.cluster import Cluster
from stages.compute.code import training_code, worker_code
from stages.compute.store import Store
from stages.compute.worker import Settings, Training
from stages.training.backend import keras
from stages.training.trainer import Checkpoint

SAVE_EVERY = 3  # seconds of a training between two checkpoints
MOST_UNWRITTEN = 8  # checkpoints that wait for the disk
MOST_LOSSES = 3  # times that all workers may be lost between two results
MOST_BREAKDOWNS = 3  # times that workers may be unable to train one training


class Runner:
    """Runs trainings on `cluster`, each from where the store has it.

    Args:
        subsets: (rows to train on, rows to score on after each epoch, which may be none) by name.
        exact: whether the checkpoint of exactly the epochs asked for is wanted; if not, only its history up to there is, and
            its arrays are left out.
        progress: called with the number of epochs whenever some are done, trained or from the store.

    Attributes:
        epochs: trained of each training so far, in this search or an earlier one.
        epochs_reused: how many of all these came from the store.
        store: where the trainings are kept.
    """

    def __init__(
        self,
        cluster: Cluster,
        settings: Params,
        data: Split,
        subsets: Mapping[str, tuple[np.ndarray, np.ndarray]],
        *,
        early_stopping: EarlyStopping | None = None,
        exact: bool = False,
        progress: Callable[[int], object] = lambda epochs: None,
    ):
        self._cluster, self._exact, self._progress = cluster, exact, progress
        self.store = Store(shared_root() / settings.runtime.store, settings.runtime.store_gigabytes * 1e9)
        self.store.prune()
        self._data = {"inputs": data.inputs, "labels": data.labels, "subsets": dict(subsets)}
        digest = store.data_digest(data)
        self._subsets = {name: store.key(data=digest, rows=[rows.tolist() for rows in both]) for name, both in subsets.items()}
        self._settings = Settings(store.key(subsets=self._subsets), settings.train.batch_size, early_stopping)
        self._environment = cluster.environment
        self._decides = {
            "batch_size": settings.train.batch_size,
            "early_stopping": early_stopping and early_stopping.model_dump(),
            "code": remote.digest(training_code()),
            "environment": self._environment,
            "precision": [keras.config.floatx(), keras.config.dtype_policy().name],
        }
        self._files = worker_code()
        self._code_name = remote.digest(self._files)
        self._client: distributed.Client | None = None
        self.epochs: dict[Training, int] = {}
        self.epochs_reused = 0

    def run(self, asked: Mapping[Training, int]) -> Iterator[tuple[Training, Checkpoint | str]]:
        """Train each training to the epoch asked for; yield each when it is done, with its checkpoint or why it failed.

        Unless `exact`, the checkpoint may be one further on. The longest trainings start first.

        Raises:
            UserError: the cluster was lost for good, its workers cannot train, or the store cannot be written.
        """
        waiting = {}
        for task, epochs in asked.items():
            checkpoint, known = self._load(task, epochs), self.epochs.get(task, 0)
            self._reached(task, min(epochs, checkpoint.epoch) if checkpoint else 0)
            self.epochs_reused += self.epochs[task] - known
            if checkpoint and (checkpoint.epoch >= epochs or checkpoint.stopped):
                yield task, self._wanted(checkpoint)
            else:
                waiting[task] = checkpoint.epoch if checkpoint and self._exact else 0
        if waiting:
            self._connect()
            with ThreadPoolExecutor(1) as writer:  # at its end, all checkpoints are written
                yield from self._train(dict(sorted(waiting.items(), key=lambda item: -asked[item[0]])), asked, writer)

    def _train(
        self, waiting: dict[Training, int], asked: Mapping[Training, int], writer: ThreadPoolExecutor
    ) -> Iterator[tuple[Training, Checkpoint | str]]:
        """Train the trainings in `waiting`, most urgent first; the checkpoints up to its epoch stay in the store."""
        futures = distributed.as_completed(with_results=True, raise_errors=False, loop=self._client.loop)
        running: dict[str, Training] = {}
        priorities = {task: -i for i, task in enumerate(waiting)}
        writing: dict[Training, Future] = {}
        losses, breakdowns = 0, Counter()

        def submit(task: Training, checkpoint: object, avoid: str | None = None) -> None:
            seconds = SAVE_EVERY * (1 + len(writing))  # less often where the disk is behind
            future = self._submit((task, asked[task], seconds), checkpoint, priorities[task], avoid)
            running[future.key] = task
            futures.add(future)

        def go_on_from_store(task: Training, avoid: str | None = None) -> None:
            checkpoint = self._load(task, asked[task])
            submit(task, checkpoint and self._scatter(vars(checkpoint)), avoid)

        def save(task: Training, checkpoint: Checkpoint, done: bool) -> None:
            """Have `checkpoint` written; one that the next will replace only if the last is written."""
            for written in [task for task, future in writing.items() if future.done()]:
                writing.pop(written).result()
            if len(writing) > MOST_UNWRITTEN:
                next(iter(writing.values())).result()
            if done or task not in writing:
                writing[task] = writer.submit(self.store.save, self.key(task), checkpoint, keep=waiting[task])

        for task in waiting:
            go_on_from_store(task)
        for future, result in futures:
            task = running.pop(future.key)
            if future.status != "finished":  # all workers that had the data are gone, or several that had this training
                losses += 1
                try:
                    if future.status == "error" and not isinstance(result[1], distributed.KilledWorker):
                        raise OSError(" ".join(str(result[1]).split()))
                    if losses > MOST_LOSSES * len(waiting):
                        raise OSError("all workers were lost, again and again")
                    if not self._code.status == self._sent.status == "finished":
                        self._send()
                    go_on_from_store(task)
                except OSError as error:  # a TimeoutError is one too
                    raise UserError(f"the cluster is gone ({error}); finished epochs are kept, run again to go on") from None
            elif isinstance(result, str):
                losses = 0
                yield task, result
            elif "broken" in result:
                breakdowns[task] += 1
                if breakdowns[task] >= MOST_BREAKDOWNS:
                    raise UserError(
                        f"worker {result['worker']} cannot train ({result['broken']}), after {MOST_BREAKDOWNS} tries; finished "
                        "epochs are kept, mend or stop the worker and run again to go on"
                    )
                go_on_from_store(task, avoid=result["worker"])
            else:
                losses = 0
                checkpoint = Checkpoint(**result)
                done = checkpoint.epoch >= asked[task] or checkpoint.stopped
                if not done:
                    submit(task, future)
                save(task, checkpoint, done)
                self._reached(task, checkpoint.epoch)
                if done:
                    yield task, self._wanted(checkpoint)
        for future in writing.values():
            future.result()

    def _submit(self, arguments: tuple, checkpoint: object, priority: int, avoid: str | None) -> distributed.Future:
        """Have a worker call `worker.train` with `arguments` and `checkpoint`, if possible another one than `avoid`."""
        workers = self._client.scheduler_info(n_workers=-1)["workers"] if avoid else ()
        others = [worker for worker in workers if worker != avoid]
        return self._client.submit(
            remote.run_anywhere,
            self._code_name,
            self._code,
            self._environment,
            pickle.dumps((self._settings, *arguments)),
            self._sent,
            checkpoint,
            workers=others or None,
            allow_other_workers=bool(others),
            priority=priority,
            pure=False,
        )

    def _reached(self, task: Training, epoch: int) -> None:
        """Note that `task` has been trained to `epoch`, if it was not known to be further."""
        known = self.epochs.get(task, 0)
        self.epochs[task] = max(known, epoch)
        self._progress(self.epochs[task] - known)

    def _wanted(self, checkpoint: Checkpoint) -> Checkpoint:
        return checkpoint if self._exact else replace(checkpoint, weights=[], optimizer=[])

    def _load(self, task: Training, epochs: int) -> Checkpoint | None:
        """The stored checkpoint that `task` can go on from."""
        return self.store.load(self.key(task), epochs if self._exact else None)

    def _connect(self) -> None:
        if not self._client:
            self._client = self._cluster.client
            self._send()

    def _send(self) -> None:
        """Put the data on all workers, and the code where each worker that is given a task fetches it."""
        self._code = self._scatter(self._files, broadcast=True)
        self._sent = self._scatter(self._data, broadcast=True, direct=self._cluster.local)

    def _scatter(self, value: dict, **options) -> distributed.Future:
        """Put `value` on workers; in a list, since Dask takes a dictionary for many values and their keys."""
        return self._client.scatter([value], hash=False, **options)[0]

    def key(self, task: Training) -> str:
        """Return the name of `task` in the store: a hash of all that decides what it comes to."""
        return store.key(
            hyperparameters=dict(task.hyperparameters), seed=task.seed, data=self._subsets[task.subset], **self._decides
        )
