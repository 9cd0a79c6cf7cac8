"""On the client: run trainings on Dask's workers, each from its latest stored checkpoint, and count epochs.

A task is some seconds of one training. It brings a worker the checkpoint to continue from and returns the
next one, which the client stores and sends with the next task. So a worker needs neither the store nor a
shared disk. If it dies, only these seconds are lost, and Dask runs the task again on another worker.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from distributed import Client

from stages.base import splits
from stages.base.console import UserError
from stages.base.files import shared_root
from stages.base.params import Params
from stages.compute import code, store
from stages.compute.store import Store
from stages.compute.workers import KEPT, Workers
from stages.training.checkpoint import Checkpoint

SECONDS = 10  # of training between two checkpoints, or longer if they are large
BYTES_PER_SECOND = 2**21  # at most, of checkpoints that are sent, each way


@dataclass(frozen=True)
class Training:
    """A training to run.

    Attributes:
        hyperparameters: the active hyperparameters, by name.
        seed: of the initial weights, shuffling and dropout.
        subset: the name of its rows, to train on and to score on; see `Runner`.
    """

    hyperparameters: Mapping[str, object]
    seed: int
    subset: str

    def __hash__(self) -> int:
        return hash((tuple(sorted(self.hyperparameters.items())), self.seed, self.subset))


class Runner:
    """Runs trainings on the prepared data, on `client`'s workers; a context manager, which frees the workers.

    Args:
        subsets: (rows to train on, rows to score on) of the training part, by name; there may be no rows to
            score on.
        early_stopping: `monitor` and `patience`.
        max_epochs: the epochs of a training that nothing stops; None: the epochs passed to `run`.
        tests: a module with a function `test`, which is called at the end of each training. With it, a
            training ends at exactly the epoch passed to `run`, even if the store has a later one.

    Attributes:
        progress: a function that is called with the number of newly finished epochs, trained or stored.
        epochs: the number of epochs that each training has reached, including stored ones.
        epochs_reused: how many of all these epochs were stored before.
        stored: the keys of the trainings that were stored before.

    Raises:
        UserError: the data is missing, the store cannot be read, or there are no workers.
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
        self._max_epochs, self._tests, self._early_stopping = max_epochs, tests, early_stopping
        self.progress: Callable[[int], object] = lambda epochs: None
        self._store = Store(shared_root() / Path(settings.runtime.store).expanduser())
        self._store.prune(settings.runtime.store_gigabytes * 1e9)
        self.stored = self._store.keys()
        self.epochs: dict[Training, int] = {}
        self.epochs_reused = 0
        folders = {"training": splits.TRAINING} | ({"test": splits.TEST} if tests else {})
        parts = {name: splits.load(folder) for name, folder in folders.items()}
        digests = {name: splits.digest(part) for name, part in parts.items()}
        self._subsets = {
            name: store.key(data=digests["training"], rows=[each.tolist() for each in rows])
            for name, rows in subsets.items()
        }
        data: dict = {name: str(folder.absolute()) for name, folder in folders.items()}
        if not client.cluster:  # its workers may share no disk with this machine
            for name, part in parts.items():
                data[name] = {key: np.asarray(array) for key, array in part.arrays.items()}
        session = {
            "data": data,
            "digests": digests,
            "subsets": dict(subsets),
            "early_stopping": early_stopping,
        }
        tasks = tests or code.WORKER
        self._code = code.training_code()
        self._workers = Workers(client, self._code | code.imported(tasks), tasks, session)
        self._workers.waiting = lambda: self.progress(0)

    def __enter__(self) -> "Runner":
        self._workers.__enter__()
        return self

    def __exit__(self, *error) -> None:
        self._workers.__exit__(*error)

    @cached_property
    def _decides(self) -> dict[str, object]:
        """The part of a key that all trainings have in common; waits for the workers."""
        about = self._workers.about
        self._takes_epochs = about["takes_epochs"]
        environment = {**self._workers.versions, "device": about["device"]}
        how = {"early_stopping": self._early_stopping}
        return {"code": code.digest(self._code), "environment": environment, **how}

    def key(self, training: Training, epochs: int) -> str:
        """Return the key of `training` in the store: a hash of everything that determines its result."""
        decides = self._decides
        return store.key(
            hyperparameters=dict(training.hyperparameters),
            seed=training.seed,
            data=self._subsets[training.subset],
            epochs=(self._max_epochs or epochs) if self._takes_epochs else None,
            **decides,
        )

    def ask(self, task: str, **job: object) -> dict:
        """Run `task` once, on any worker, and return its result; UserError as for `run`."""
        [(_, result)] = self._workers.results(task, deque([job]))
        if "failure" in result:
            raise UserError(f"{task}: {result['failure']}; {KEPT}")
        return result

    def run(self, epochs_of: Mapping[Training, int]) -> Iterator[tuple[Training, Checkpoint | str, dict]]:
        """Run each training to its epoch in `epochs_of`, the longest first; yield each when it is done.

        Yields:
            The training; its checkpoint, without arrays and possibly of a later epoch, or one line that says
            why it failed; and the result of `tests.test`, {} without `tests`.

        Raises:
            UserError: all workers are lost or cannot train, or the store cannot be read or written.
        """
        trainings: dict[str, Training] = {}
        jobs: deque[dict] = deque()
        for training, epochs in sorted(epochs_of.items(), key=lambda item: -item[1]):
            key = self.key(training, epochs)
            self.epochs.setdefault(training, 0)
            stored = self._load(key, epochs, arrays=False)
            if stored:
                self.epochs_reused += self._count(training, min(stored.epoch, epochs))
                if stored.done(epochs) and not self._tests:
                    yield training, stored, {}
                    continue
            trainings[key] = training
            lengths = {"epochs": epochs, "all_epochs": self._max_epochs or epochs}
            start = stored.epoch if stored else 0
            jobs.append({**vars(training), **lengths, "key": key, "start": start, "model": not jobs})
        for job, result in self._workers.results(
            "test" if self._tests else "train", jobs, self._with_checkpoint
        ):
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

    def _with_checkpoint(self, job: dict) -> dict:
        """Return `job` with the checkpoint to continue from, and for how many seconds."""
        checkpoint = self._load(job["key"], job["epochs"])
        job["start"] = min(job["start"], checkpoint.epoch if checkpoint else 0)  # it may be gone or damaged
        size = sum(array.nbytes for array in checkpoint.weights + checkpoint.optimizer) if checkpoint else 0
        seconds = max(SECONDS, size / BYTES_PER_SECOND)
        return {**job, "checkpoint": checkpoint and vars(checkpoint), "seconds": seconds}

    def _count(self, training: Training, epoch: int) -> int:
        """Record that a training has reached `epoch`; return how many epochs are new."""
        new = max(0, epoch - self.epochs[training])
        self.epochs[training] += new
        self.progress(new)
        return new

    def _load(self, key: str, epochs: int, *, arrays: bool = True) -> Checkpoint | None:
        """Return the latest checkpoint of `key`; with `tests`, the latest of at most `epochs` epochs."""
        return self._store.load(key, epochs if self._tests else None, arrays=arrays)
