"""On a worker: one training, from where the store has it."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from stages.base import splits
from stages.base.console import UserError
from stages.base.splits import Split
from stages.compute.store import Store
from stages.training import trainer
from stages.training.backend import DEVICE, keras, tf
from stages.training.checkpoint import Checkpoint
from stages.training.trainer import Subset, Trainer

REPORT_EVERY = 3  # seconds of a training between two checkpoints
KEPT_BYTES = 2**27  # of networks that stay traced: a trial that is promoted need not be traced again
TRACE_BYTES = 2**22  # what a traced network takes beside its numbers, about
# What no network is to blame for: another worker may do it
INFRASTRUCTURE: tuple = (MemoryError, ImportError, OSError, tf.errors.ResourceExhaustedError)
if DEVICE == "GPU":  # of CUDA's libraries, on a GPU whose memory is full
    INFRASTRUCTURE += (tf.errors.InternalError, tf.errors.UnknownError)
Report = Callable[[int], object]


class Session:
    """What a worker has of one search: the data, the store and the networks that it trained last.

    A job is what the client asks for: {"key", its name in the store; "hyperparameters" and "seed"; "subset",
    the name of the rows; "epochs", to which one; "exact", whether that very epoch is wanted, where a stored
    checkpoint may be further; "keep", up to which epoch checkpoints stay in the store beside later ones}.

    Args:
        data: the parts of the data by name: the folder that each is in, or its arrays.
        digests: of these parts, as the client has read them.
        subsets: (rows to train on, rows to score on after each epoch, which may be none) by name.
        batch_size: as of `Trainer`.
        early_stopping: as of `Trainer`.
        store: where this worker reads and writes checkpoints; None: they come with a job, go with its result.

    Raises:
        UserError: the data is not what the client has read.
    """

    def __init__(
        self,
        data: Mapping[str, str | tuple[np.ndarray, np.ndarray]],
        digests: Mapping[str, str],
        subsets: Mapping[str, tuple[np.ndarray, np.ndarray]],
        batch_size: int,
        early_stopping: Mapping[str, object] | None,
        store: str | None,
    ):
        self.device = DEVICE
        self.data = {
            name: splits.load(Path(part)) if isinstance(part, str) else Split(*part)
            for name, part in data.items()
        }
        for name, part in self.data.items():
            if splits.digest(part) != digests[name]:
                raise UserError(f"{data[name]} has changed since this stage started; run it again")
        self.tensors = {name: Subset.of(part) for name, part in self.data.items()}
        self._subsets, self.batch_size, self._early_stopping = subsets, batch_size, early_stopping
        self.store = Store(store) if store else None
        self._trainers: dict[str, Trainer] = {}
        self._evaluated: Mapping[str, object] | None = None

    def reach(self, job: dict, checkpoint: dict | None, report: Report) -> Checkpoint | str:
        """Return the checkpoint that a training got to, or why it failed, in one line.

        Without a store, `checkpoint` is where to go on from, as a checkpoint's attributes. With one, a thread
        writes a checkpoint every few seconds beside the training, so that no epoch waits for the disk.
        `report` is called with the epoch reached as often.

        Raises:
            UserError: the store cannot be used, or model.py has what this project cannot train.
            Exception: one of `INFRASTRUCTURE`, for which no network is to blame.
        """
        try:
            reached = Checkpoint(**checkpoint) if checkpoint else None
            if self.store:
                reached = self.store.load(job["key"], job["epochs"] if job["exact"] else None)
            with ThreadPoolExecutor(1) as writer:
                writing = None
                while not reached or not reached.done(job["epochs"]):
                    reached = self._trainer(job, new=reached is None).run(
                        job["epochs"], reached, REPORT_EVERY
                    )
                    report(reached.epoch)
                    if self.store and (reached.done(job["epochs"]) or not writing or writing.done()):
                        writing and writing.result()
                        writing = writer.submit(self.store.save, job["key"], reached, keep=job["keep"])
                writing and writing.result()
            return reached
        except (*INFRASTRUCTURE, UserError):
            self._trainers.clear()
            raise
        except Exception as error:
            return " ".join(f"{type(error).__name__}: {error}".split())[:200]

    def _trainer(self, job: dict, *, new: bool) -> Trainer:
        """Return the trainer of `job`, built and traced unless it was used lately and need not be `new`."""
        made = self._trainers.pop(job["key"], None)
        if new or not made:
            rows, scored = (self.tensors["training"].at(rows) for rows in self._subsets[job["subset"]])
            made = Trainer(
                self.build(job["hyperparameters"], job["seed"]),
                rows,
                batch_size=self.batch_size,
                seed=job["seed"],
                validation=scored if len(scored.rows) else None,
                early_stopping=self._early_stopping,
            )
        self._trainers[job["key"]] = made  # the last of the dictionary is the last that was used
        while len(self._trainers) > 1 and sum(map(_size, self._trainers.values())) > KEPT_BYTES:
            del self._trainers[next(iter(self._trainers))]
        return made

    def evaluator(self, hyperparameters: Mapping[str, object]) -> tuple[keras.Model, Callable]:
        """Return a network and its `trainer.evaluator`, one for all trainings with these hyperparameters."""
        if self._evaluated != hyperparameters:
            network = self.build(hyperparameters, 0)
            self._evaluated, self._evaluator = hyperparameters, (network, trainer.evaluator(network))
        return self._evaluator

    def build(self, hyperparameters: Mapping[str, object], seed: int) -> keras.Model:
        """Return the network of model.py for the data."""
        training = self.data["training"]
        return trainer.build(hyperparameters, training.inputs.shape[1:], training.outputs, seed)


def train(session: Session, job: dict, checkpoint: dict | None, report: Report) -> dict:
    """Return where a training got to, as `plain` does, or {"failure": why it failed}; see `Session.reach`."""
    reached = session.reach(job, checkpoint, report)
    return {"failure": reached} if isinstance(reached, str) else plain(session, reached)


def plain(session: Session, reached: Checkpoint) -> dict:
    """Return the attributes of `reached`, without arrays where the store has them."""
    return vars(replace(reached, weights=[], optimizer=[]) if session.store else reached)


def count(session: Session, job: dict, report: Report) -> dict:
    """Return how many `parameters` the network of `job` has, None if it cannot be built."""
    try:
        return {"parameters": session.build(job["hyperparameters"], 0).count_params()}
    except (*INFRASTRUCTURE, UserError):
        raise
    except Exception:
        return {"parameters": None}


def _size(made: Trainer) -> int:
    variables = made.network.variables + made.network.optimizer.variables
    return TRACE_BYTES + sum(v.value.dtype.size * int(np.prod(v.shape)) for v in variables)
