"""What runs on a Dask worker: one training, from where the store has it."""

import signal
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from stages.base import splits
from stages.base.console import UserError
from stages.base.params import EarlyStopping
from stages.base.splits import Split
from stages.compute.store import Store
from stages.training.backend import tf
from stages.training.trainer import Checkpoint, Subset, Trainer, build

SAVE_EVERY = 3  # seconds of a training between two checkpoints
KEPT = 16  # networks that stay traced: a trial that is promoted, or takes turns with others, need not start over
# What no network is to blame for: another worker may do it
INFRASTRUCTURE = (MemoryError, ImportError, OSError, tf.errors.ResourceExhaustedError)


@dataclass(frozen=True)
class Training:
    """One training.

    Attributes:
        hyperparameters: by name, the fields of `Hyperparameters`.
        seed: of its initial weights, shuffling and dropout.
        subset: a name for the rows it trains on and those it is scored on.
    """

    hyperparameters: Mapping[str, object]
    seed: int
    subset: str

    def __hash__(self) -> int:
        return hash((tuple(sorted(self.hyperparameters.items())), self.seed, self.subset))


@dataclass(frozen=True)
class Settings:
    """What all trainings of a search have in common.

    Attributes:
        data: a digest of the data.
        batch_size: as of `Trainer`.
        early_stopping: as of `Trainer`.
        store: where the worker reads and writes checkpoints; None if it cannot: then they come and go with each call.
    """

    data: str
    batch_size: int
    early_stopping: EarlyStopping | None
    store: str | None


@dataclass(frozen=True)
class Job:
    """A training to be trained.

    Attributes:
        training: which one.
        key: its name in the store.
        epochs: to which epoch.
        exact: whether that very epoch is wanted; if not, a stored checkpoint may be further.
        keep: up to which epoch checkpoints stay in the store beside later ones.
    """

    training: Training
    key: str
    epochs: int
    exact: bool
    keep: int = 0


def dask_setup(_worker) -> None:
    """Leave Ctrl-C to the process that the user started."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def train(settings: Settings, job: Job, data: dict, checkpoint: dict | None, progress: Callable[[int], object]) -> dict | str:
    """Return where the training got to, or why the network failed, in one line.

    With a store that is the end, and what is returned has arrays only if `job.exact`. A thread writes a checkpoint every few
    seconds beside the training, so that no epoch waits for the disk. Without a store it is the checkpoint after `SAVE_EVERY`
    seconds.

    Args:
        data: `subsets`, (rows to train on, rows to score on) by name; and `inputs` and `labels`, or `folders` that have them.
        checkpoint: a `Checkpoint`'s attributes, as is what is returned: plain, so that no worker needs its class to pass it on.
        progress: called with the epoch reached, every few seconds.

    Raises:
        UserError: the store cannot be written.
        Exception: one of `INFRASTRUCTURE`, for which no network is to blame.
    """
    kept = _kept(settings)
    try:
        trainer = kept.trainer(settings, job.training, data)
        if not settings.store:
            return vars(trainer.run(job.epochs, Checkpoint(**checkpoint) if checkpoint else None, SAVE_EVERY))
        store = Store(settings.store)
        reached = store.load(job.key, job.epochs if job.exact else None)
        with ThreadPoolExecutor(1) as writer:
            writing = None
            while not reached or not reached.done(job.epochs):
                reached = trainer.run(job.epochs, reached, SAVE_EVERY)
                progress(reached.epoch)
                if reached.done(job.epochs) or not writing or writing.done():
                    writing and writing.result()
                    writing = writer.submit(store.save, job.key, reached, keep=job.keep)
            writing and writing.result()
        return vars(reached if job.exact else replace(reached, weights=[], optimizer=[]))
    except (*INFRASTRUCTURE, UserError):
        kept.trainers.clear()
        raise
    except Exception as error:
        return " ".join(f"{type(error).__name__}: {error}".split())[:200]


@dataclass
class _Kept:
    """What stays in memory between the trainings of one search."""

    trainers: dict[Training, Trainer] = field(default_factory=dict)
    tensors: Subset | None = None
    outputs: int = 0

    def trainer(self, settings: Settings, training: Training, data: dict) -> Trainer:
        """Return the trainer of `training`, built and traced unless it was used lately."""
        if training in self.trainers:
            self.trainers[training] = self.trainers.pop(training)  # the last of the dictionary is the last that was used
            return self.trainers[training]
        while len(self.trainers) >= KEPT:
            del self.trainers[next(iter(self.trainers))]
        if not self.tensors:
            self.tensors, self.outputs = self._load(data)
        subset, scored = (self.tensors._replace(rows=np.asarray(r, np.int32)) for r in data["subsets"][training.subset])
        self.trainers[training] = Trainer(
            build(training.hyperparameters, subset.inputs.shape[1:], self.outputs, training.seed),
            subset,
            batch_size=settings.batch_size,
            seed=training.seed,
            validation=scored if len(scored.rows) else None,
            early_stopping=settings.early_stopping,
        )
        return self.trainers[training]

    @staticmethod
    def _load(data: dict) -> tuple[Subset, int]:
        """All rows of `data`, which are in memory once, and how many numbers the network returns for each."""
        if "folders" in data:
            split = splits.join(*(splits.load(Path(folder)) for folder in data["folders"]))
            return Subset.of(split), split.outputs
        split = Split(data["inputs"], data["labels"])
        tensors = Subset.of(split)
        data["inputs"], data["labels"] = tensors.inputs.numpy(), tensors.labels.numpy()  # views of the tensors
        return tensors, split.outputs


@lru_cache(2)
def _kept(_settings: Settings) -> _Kept:
    """What is kept for a search; two that take turns each keep theirs, and a third one's takes the place of the older."""
    return _Kept()
