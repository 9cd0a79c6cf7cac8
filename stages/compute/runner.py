"""Runs trainings on a Dask cluster: from where the store has them, and back into the store every few seconds.

Workers that can reach the store, which are those of this machine, or all if it is at a URL, read and write it themselves and
train to the end; this process learns what epoch they are in and, at the end, the history. For other workers it reads and
writes the store: a checkpoint comes back every few seconds, a thread writes it, and the training goes on from it. Dask gives a
dead worker's trainings to another one.
"""

import operator
import pickle
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import distributed
import numpy as np

from stages.base import splits
from stages.base.console import UserError
from stages.base.files import shared_root
from stages.base.params import EarlyStopping, Params
from stages.compute import remote, store
from stages.compute.cluster import WORKERS_TIMEOUT, Cluster
from stages.compute.code import imported, training_code
from stages.compute.store import Store
from stages.compute.worker import Job, Settings, Training
from stages.training.backend import keras
from stages.training.trainer import Checkpoint

MOST_LOSSES = 3  # times that all workers may be lost between two results
MOST_BREAKDOWNS = 3  # times that workers may be unable to train one training


class Runner:
    """Runs trainings on the prepared training and validation examples, in this order, on `cluster`.

    Args:
        subsets: (rows to train on, rows to score on after each epoch, which may be none) by name.
        exact: whether the checkpoint of exactly the epochs asked for is wanted; if not, only its history up to there is, and
            its arrays are left out.
        progress: called with the number of epochs whenever some are done, trained or from the store.

    Attributes:
        epochs: trained of each training so far, in this search or an earlier one.
        epochs_reused: how many of all these came from the store.
        stored: the keys of the trainings that were in the store before.

    Raises:
        UserError: the data is missing, or the store cannot be read.
    """

    def __init__(
        self,
        cluster: Cluster,
        settings: Params,
        subsets: Mapping[str, tuple[np.ndarray, np.ndarray]],
        *,
        early_stopping: EarlyStopping | None = None,
        exact: bool = False,
        progress: Callable[[int], object] = lambda epochs: None,
    ):
        url = settings.runtime.store
        self._cluster, self._exact, self._progress = cluster, exact, progress
        self._store = Store(url if "://" in url else str(shared_root() / url))
        self._shared = cluster.local or "://" in url
        try:
            self._store.prune(settings.runtime.store_gigabytes * 1e9)
            self.stored = self._store.keys()
        except OSError as error:
            raise UserError(f"params.yaml: {error}") from None
        data = splits.join(*map(splits.load, splits.TRAINED_ON))
        digest = store.data_digest(data)
        self._data: dict[str, object] = {"inputs": data.inputs, "labels": data.labels}
        if cluster.local:  # whose workers read the files themselves
            self._data = {"folders": [str(folder.absolute()) for folder in splits.TRAINED_ON]}
        self._data["subsets"] = dict(subsets)
        self._subsets = {name: store.key(data=digest, rows=[rows.tolist() for rows in both]) for name, both in subsets.items()}
        reachable = self._store.url if self._shared else None
        self._settings = Settings(store.key(subsets=self._subsets), settings.train.batch_size, early_stopping, reachable)
        self._environment = cluster.environment
        code = training_code()
        self._decides = {
            "batch_size": settings.train.batch_size,
            "early_stopping": early_stopping and early_stopping.model_dump(),
            "code": remote.digest(code),
            "environment": self._environment,
            "precision": [keras.config.floatx(), keras.config.dtype_policy().name],
        }
        files = code | imported("stages.compute.worker")
        self._code = partial(remote.run_anywhere, remote.digest(files), files, self._environment)
        self._topic, self._lock = f"epochs-{uuid.uuid4().hex}", threading.Lock()
        self.epochs: dict[Training, int] = {}
        self.epochs_reused = 0

    def run(self, asked: Mapping[Training, int]) -> Iterator[tuple[Training, Checkpoint | str]]:
        """Train each training to the epoch asked for; yield each when it is done, with its checkpoint or why it failed.

        Unless `exact`, the checkpoint may be one further on. The longest trainings start first.

        Raises:
            UserError: the cluster was lost for good, its workers cannot train, or the store cannot be read or written.
        """
        waiting = []
        for training, epochs in asked.items():
            job = Job(training, self.key(training), epochs, self._exact)
            checkpoint, known = None, self.epochs.get(training, 0)
            if known or job.key in self.stored:
                try:
                    checkpoint = self._store.load(job.key, epochs if self._exact else None, arrays=self._exact)
                except OSError as error:
                    raise UserError(f"params.yaml: {error}") from None
            self._note(job, checkpoint.epoch if checkpoint else 0)
            self.epochs_reused += self.epochs[training] - known
            if checkpoint and checkpoint.done(epochs):
                yield training, checkpoint
            else:
                waiting.append(replace(job, keep=checkpoint.epoch if checkpoint and self._exact else 0))
        if waiting:
            self._connect()
            with ThreadPoolExecutor(1) as writer:
                yield from self._train(sorted(waiting, key=lambda job: -job.epochs), writer)

    def _train(self, jobs: list[Job], writer: ThreadPoolExecutor) -> Iterator[tuple[Training, Checkpoint | str]]:
        """Train `jobs`, most urgent first."""
        futures = distributed.as_completed(with_results=True, raise_errors=False, loop=self._client.loop)
        by_key, running = {job.key: job for job in jobs}, {}
        priorities = {job.key: -i for i, job in enumerate(jobs)}
        writing: dict[str, Future] = {}
        breakdowns: Counter[str] = Counter()
        losses = 0

        def submit(job: Job, checkpoint: object = None, avoid: str | None = None) -> None:
            """Have a worker train a job, if possible another one than `avoid`."""
            if checkpoint is None and not self._shared:
                stored = self._store.load(job.key, job.epochs if self._exact else None)
                checkpoint = stored and self._scatter(vars(stored))
            workers = self._client.scheduler_info(n_workers=-1)["workers"] if avoid else ()
            others = [worker for worker in workers if worker != avoid]
            arguments = pickle.dumps((self._settings, job)), self._sent_data, checkpoint, (self._topic, job.key)
            placement = {"workers": others or None, "allow_other_workers": bool(others), "priority": priorities[job.key]}
            future = self._client.submit(operator.call, self._sent_code, *arguments, **placement, pure=False)
            running[future.key] = job
            futures.add(future)

        def save(job: Job, checkpoint: Checkpoint, done: bool) -> None:
            """Have `checkpoint` written, unless another will follow it and the one before it is still being written."""
            if job.key in writing and (done or writing[job.key].done()):
                writing.pop(job.key).result()
            if job.key not in writing:
                writing[job.key] = writer.submit(self._store.save, job.key, checkpoint, keep=job.keep)
            if done:
                writing.pop(job.key).result()

        self._client.subscribe_topic(self._topic, lambda event: self._note(by_key[event[1][0]], event[1][1]))
        for job in jobs:
            submit(job)
        for future, result in futures:
            job = running.pop(future.key)
            if future.status != "finished":  # all workers that had the data are gone, or several that had this training
                losses += 1
                try:
                    if future.status == "error" and not isinstance(result[1], distributed.KilledWorker):
                        raise OSError(" ".join(str(result[1]).split()))
                    if losses > MOST_LOSSES * len(jobs):
                        raise OSError("all workers were lost, again and again")
                    if not self._sent_code.status == self._sent_data.status == "finished":
                        self._send()
                    submit(job)
                except OSError as error:  # a TimeoutError is one too
                    raise UserError(f"the cluster is gone ({error}); finished epochs are kept, run again to go on") from None
                continue
            if isinstance(result, str):
                yield job.training, result
            elif "mistake" in result:
                raise UserError(result["mistake"])
            elif "broken" in result:
                breakdowns[job.key] += 1
                if breakdowns[job.key] >= MOST_BREAKDOWNS:
                    raise UserError(
                        f"worker {result['worker']} cannot train ({result['broken']}), after {MOST_BREAKDOWNS} tries; finished "
                        "epochs are kept, mend or stop the worker and run again to go on"
                    )
                submit(job, avoid=result["worker"])
                continue
            else:
                checkpoint = Checkpoint(**result)
                done = checkpoint.done(job.epochs)
                if not self._shared:
                    save(job, checkpoint, done)
                if not done:
                    try:  # as new data, where it is: were it a task's result, Dask would compute it again from the first epoch
                        submit(job, self._scatter(result, workers=self._client.who_has([future])[future.key]))
                    except (KeyError, OSError):  # that worker has died
                        submit(job)
                self._note(job, checkpoint.epoch)
                if done:
                    yield job.training, checkpoint if self._exact else replace(checkpoint, weights=[], optimizer=[])
            losses = 0

    def _note(self, job: Job, epoch: int) -> None:
        """Note that a training is at `epoch`, or at the one asked for, if it was not known to be further."""
        with self._lock:  # progress comes in a thread of its own
            known = self.epochs.get(job.training, 0)
            self.epochs[job.training] = max(known, min(epoch, job.epochs))
            self._progress(self.epochs[job.training] - known)

    def _connect(self) -> None:
        """Get the client and send to its workers what they need, the first time."""
        if not hasattr(self, "_client"):
            self._client = self._cluster.client
            self._send()

    def _send(self) -> None:
        """Put the code and the data on all workers; one that comes late fetches them from another when it is given a task.

        Raises:
            TimeoutError: there are no workers.
        """
        self._client.wait_for_workers(1, timeout=WORKERS_TIMEOUT)
        self._sent_code = self._scatter(self._code, broadcast=True)
        self._sent_data = self._scatter(self._data, broadcast=True, direct=self._cluster.local)

    def _scatter(self, value: object, **options) -> distributed.Future:
        """Put `value` on workers; in a list, since Dask takes a dictionary for many values and their keys."""
        return self._client.scatter([value], hash=False, **options)[0]

    def key(self, training: Training) -> str:
        """Return the name of `training` in the store: a hash of all that decides what it comes to."""
        return store.key(
            hyperparameters=dict(training.hyperparameters),
            seed=training.seed,
            data=self._subsets[training.subset],
            **self._decides,
        )
