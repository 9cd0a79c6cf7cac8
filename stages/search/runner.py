"""Runs the trainings of a search: from where the store has them, on a Dask cluster, and back into the store after each epoch.

Dask gives a dead worker's trainings to another one. Only the client, which is this process, reads and writes the store.
"""

import pickle
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import distributed
import numpy as np

import stages
from stages import model
from stages.console import UserError
from stages.search import shipment, trials, worker
from stages.search.cluster import Cluster
from stages.search.evaluation import Training
from stages.search.trials import Store
from stages.splits import Split
from stages.training import EarlyStopping, State

MOST_LOSSES = 3  # times that all workers may be lost between two results


class Runner:
    """Runs trainings on `cluster`, each from where `store` has it; waits for the cluster when there is something to run.

    Args:
        parts: (rows to train on, rows to score on after each epoch, which may be none) by name.
        exact: whether the state after exactly the epochs asked for is wanted, not only the history up to there.

    Attributes:
        epochs: trained of each training so far, in this search or an earlier one.
        epochs_reused: how many of all these came from the store.
    """

    def __init__(
        self,
        cluster: Cluster,
        store: Store,
        data: Split,
        parts: Mapping[str, tuple[np.ndarray, np.ndarray]],
        *,
        batch_size: int,
        early_stopping: EarlyStopping | None = None,
        exact: bool = False,
    ):
        self._cluster, self._store, self._exact = cluster, store, exact
        self._data = worker.Data(data, parts)
        digest = trials.data_digest(data)
        self._part_digests = {
            name: trials.key(data=digest, rows=[rows.tolist() for rows in both]) for name, both in parts.items()
        }
        self._settings = worker.Settings(trials.key(parts=self._part_digests), batch_size, early_stopping)
        self._code_digest = trials.code_digest()
        self._client: distributed.Client | None = None
        self._sizes: dict[Training, int] = {}
        self.epochs: dict[Training, int] = {}
        self.epochs_reused = 0

    def run(self, asked: Mapping[Training, int]) -> Iterator[tuple[Training, State | str]]:
        """Train each training to the epoch asked for; yield each when it is done, with its state or why it failed.

        Unless `exact`, the state may be one further on. The longest trainings start first.

        Raises:
            UserError: the cluster was lost for good.
        """
        stored = {task: self._load(task, epochs) for task, epochs in asked.items()}
        waiting = []
        for task, epochs in asked.items():
            state, known = stored[task], self.epochs.get(task, 0)
            self.epochs[task] = max(known, min(epochs, state.epoch) if state else 0)
            self.epochs_reused += self.epochs[task] - known
            if state and (state.epoch >= epochs or state.stopped):
                yield task, state
            else:
                waiting.append(task)
        if not waiting:
            return
        with ThreadPoolExecutor(1) as other:
            connecting = other.submit(self._connect)
            waiting.sort(key=lambda task: asked[task] * self._parameters(task))
            connecting.result()
        futures = distributed.as_completed(with_results=True, raise_errors=False, loop=self._client.loop)
        running: dict[str, Training] = {}
        priorities = {task: priority for priority, task in enumerate(waiting)}

        def submit(task: Training, epoch: int, state: object) -> None:
            arguments = pickle.dumps((self._settings, task, epoch))
            future = self._client.submit(shipment.train, arguments, self._sent, state, priority=priorities[task], pure=False)
            running[future.key] = task
            futures.add(future)

        def go_on_from_store(task: Training) -> None:
            state = self._load(task, asked[task])
            submit(task, state.epoch + 1 if state else 1, state and self._client.scatter(state, hash=False))

        for task in reversed(waiting):
            go_on_from_store(task)
        losses = 0
        for future, result in futures:
            task = running.pop(future.key)
            if future.status == "finished":
                losses = 0
                self._store.save(self._key(task), result)
                self.epochs[task] = result.epoch
                if result.epoch >= asked[task] or result.stopped:
                    yield task, result
                else:
                    submit(task, result.epoch + 1, future)
            elif future.status == "error" and not isinstance(result[1], distributed.KilledWorker):
                yield task, _reason(result[1])
            else:  # all workers that had the data are gone, or several that had this training
                losses += 1
                try:
                    if losses > MOST_LOSSES * len(waiting):
                        raise OSError("all workers were lost, again and again")
                    if self._sent.status != "finished":
                        self._send_data()
                    go_on_from_store(task)
                except OSError as error:  # a TimeoutError is one too
                    raise UserError(f"the cluster is gone ({error}); finished epochs are kept, run again to go on") from None

    def _load(self, task: Training, epochs: int) -> State | None:
        """The stored state that `task` can go on from."""
        state = self._store.load(self._key(task))
        return None if state and self._exact and state.epoch > epochs else state

    def _connect(self) -> None:
        if self._client:
            return
        self._client = self._cluster.client
        folder = Path(stages.__path__[0])
        files = {str(path.relative_to(folder.parent)): path.read_bytes() for path in sorted(folder.rglob("*.py"))}
        code = shipment.Shipment(trials.key(files={name: file.hex() for name, file in files.items()}), files)
        self._client.register_plugin(code, name=code.name)
        self._send_data()

    def _send_data(self) -> None:
        self._sent = self._client.scatter(self._data, broadcast=True, direct=self._cluster.local, hash=False)

    def _key(self, task: Training) -> str:
        early_stopping = self._settings.early_stopping
        return trials.key(
            hyperparameters=dict(task.hyperparameters),
            seed=task.seed,
            data=self._part_digests[task.part],
            batch_size=self._settings.batch_size,
            early_stopping=early_stopping and vars(early_stopping),
            code=self._code_digest,
        )

    def _parameters(self, task: Training) -> int:
        """How many numbers the network has, for a guess at how long the training takes; 0 if it cannot be built."""
        if task not in self._sizes:
            data = self._data.split
            try:
                network = model.build(data.images.shape[1:], data.classes, **task.hyperparameters)
                self._sizes[task] = network.count_params()
            except Exception:  # the worker will raise it again, which is recorded
                self._sizes[task] = 0
        return self._sizes[task]


def _reason(error: BaseException) -> str:
    """Why a training failed, in one line of at most 200 characters."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
