"""Runs trainings: from where the store has them, on a Dask cluster, and back into the store after each epoch.

Dask gives a dead worker's trainings to another one. Only the client, which is this process, reads and writes the store.
"""

import pickle
from collections import Counter
from collections.abc import Iterator, Mapping

import distributed
import numpy as np

from stages.base.console import UserError
from stages.base.files import shared_root
from stages.base.params import Params
from stages.base.splits import Split
from stages.compute import remote, store
from stages.compute.cluster import Cluster
from stages.compute.code import training_code, worker_code
from stages.compute.store import Store
from stages.compute.worker import Settings, Training
from stages.training.backend import keras
from stages.training.trainer import Checkpoint, EarlyStopping

MOST_LOSSES = 3  # times that all workers may be lost between two results
MOST_BREAKDOWNS = 3  # times that workers may be unable to train one training


class Runner:
    """Runs trainings on `cluster`, each from where the store has it; waits for the cluster when there is something to run.

    Args:
        subsets: (rows to train on, rows to score on after each epoch, which may be none) by name.
        exact: whether the checkpoint of exactly the epochs asked for is wanted, not only the history up to there.

    Attributes:
        epochs: trained of each training so far, in this search or an earlier one.
        epochs_reused: how many of all these came from the store.
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
    ):
        self._cluster, self._exact = cluster, exact
        self._store = Store(shared_root() / settings.runtime.store, settings.runtime.store_gigabytes * 1e9)
        self._store.prune()
        self._data = {"images": data.images, "labels": data.labels, "subsets": dict(subsets)}
        digest = store.data_digest(data)
        self._subsets = {name: store.key(data=digest, rows=[rows.tolist() for rows in both]) for name, both in subsets.items()}
        self._settings = Settings(store.key(subsets=self._subsets), settings.train.batch_size, early_stopping)
        self._environment = cluster.environment
        self._decides = {
            "batch_size": settings.train.batch_size,
            "early_stopping": early_stopping and vars(early_stopping),
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
            UserError: the cluster was lost for good, or its workers cannot train.
        """
        stored = {task: self._load(task, epochs) for task, epochs in asked.items()}
        waiting = []
        for task, epochs in asked.items():
            checkpoint, known = stored[task], self.epochs.get(task, 0)
            self.epochs[task] = max(known, min(epochs, checkpoint.epoch) if checkpoint else 0)
            self.epochs_reused += self.epochs[task] - known
            if checkpoint and (checkpoint.epoch >= epochs or checkpoint.stopped):
                yield task, checkpoint
            else:
                waiting.append(task)
        if not waiting:
            return
        self._connect()
        waiting.sort(key=lambda task: -asked[task])
        futures = distributed.as_completed(with_results=True, raise_errors=False, loop=self._client.loop)
        running: dict[str, Training] = {}

        def submit(task: Training, epoch: int, checkpoint: object, avoid: str | None = None) -> None:
            others = (
                [worker for worker in self._client.scheduler_info(n_workers=-1)["workers"] if worker != avoid]
                if avoid
                else None
            )
            arguments = pickle.dumps((self._settings, task, epoch))
            future = self._client.submit(
                remote.run_anywhere,
                self._code_name,
                self._code,
                self._environment,
                arguments,
                self._sent,
                checkpoint,
                workers=others or None,
                allow_other_workers=bool(others),
                priority=-waiting.index(task),
                pure=False,
            )
            running[future.key] = task
            futures.add(future)

        def go_on_from_store(task: Training, avoid: str | None = None) -> None:
            checkpoint = self._load(task, asked[task])
            sent = checkpoint and self._scatter(vars(checkpoint))
            submit(task, checkpoint.epoch + 1 if checkpoint else 1, sent, avoid)

        for task in waiting:
            go_on_from_store(task)
        losses, breakdowns = 0, Counter()
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
                start = stored[task].epoch if self._exact and stored[task] else 0
                self._store.save(self._key(task), checkpoint, keep=start)
                self.epochs[task] = checkpoint.epoch
                if checkpoint.epoch >= asked[task] or checkpoint.stopped:
                    yield task, checkpoint
                else:
                    submit(task, checkpoint.epoch + 1, future)

    def _load(self, task: Training, epochs: int) -> Checkpoint | None:
        """The stored checkpoint that `task` can go on from."""
        return self._store.load(self._key(task), epochs if self._exact else None)

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

    def _key(self, task: Training) -> str:
        return store.key(
            hyperparameters=dict(task.hyperparameters), seed=task.seed, data=self._subsets[task.subset], **self._decides
        )
