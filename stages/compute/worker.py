"""On a worker: one training, from where the store has it."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from stages.base import splits
from stages.base.console import UserError, one_line
from stages.base.splits import Split
from stages.compute.store import Store
from stages.training import network
from stages.training.backend import DEVICE, keras, tf
from stages.training.checkpoint import Checkpoint
from stages.training.network import Subset
from stages.training.trainer import Trainer

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
    checkpoint may be further; "keep", up to which epoch checkpoints stay in the store beside later ones;
    "all_epochs", how many the training has if nothing stops it}.

    Args:
        data: the parts of the data by name: the folder that each is in, or its arrays by name.
        digests: of these parts, as the client has read them.
        subsets: (rows to train on, rows to score on after each epoch, which may be none) by name.
        early_stopping: as of `Trainer`.
        store: where this worker reads and writes checkpoints; None: they come with a job, go with its result.

    Raises:
        UserError: the data is not what the client has read.
    """

    def __init__(
        self,
        data: Mapping[str, str | dict[str, np.ndarray]],
        digests: Mapping[str, str],
        subsets: Mapping[str, tuple[np.ndarray, np.ndarray]],
        early_stopping: Mapping[str, object] | None,
        store: str | None,
    ):
        self.device, self.takes_epochs = DEVICE, network.takes_epochs()
        self.data = {
            name: splits.load(Path(part)) if isinstance(part, str) else Split.of(part)
            for name, part in data.items()
        }
        for name, part in self.data.items():
            if splits.digest(part) != digests[name]:
                raise UserError(f"{data[name]} has changed since this stage started; run it again")
        self.tensors = {name: Subset.of(part) for name, part in self.data.items()}
        self._subsets, self._early_stopping = subsets, early_stopping
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
            return one_line(error)

    def _trainer(self, job: dict, *, new: bool) -> Trainer:
        """Return the trainer of `job`, built and traced unless it was used lately and need not be `new`."""
        made = self._trainers.pop(job["key"], None)
        if new or not made:
            rows, scored = (self.tensors["training"].at(rows) for rows in self._subsets[job["subset"]])
            built = self.build(job["hyperparameters"], job["seed"], len(rows.rows), job["all_epochs"])
            network.check(built, rows)
            made = Trainer(
                built,
                rows,
                batch_size=job["hyperparameters"]["batch_size"],
                seed=job["seed"],
                validation=scored if len(scored.rows) else None,
                early_stopping=self._early_stopping,
            )
        self._trainers[job["key"]] = made  # the last of the dictionary is the last that was used
        while len(self._trainers) > 1 and sum(map(_size, self._trainers.values())) > KEPT_BYTES:
            del self._trainers[next(iter(self._trainers))]
        return made

    def evaluator(self, job: dict) -> tuple[keras.Model, Callable]:
        """Return a network and its `network.evaluator`, one for all trainings that differ in their seed."""
        name = {"hyperparameters": job["hyperparameters"], "epochs": job["all_epochs"]}
        if self._evaluated != name:
            built = self.build(**name, seed=0, examples=len(self._subsets[job["subset"]][0]))
            self._evaluated, self._evaluator = name, (built, network.evaluator(built))
        return self._evaluator

    def build(self, hyperparameters: Mapping[str, Any], seed: int, examples: int, epochs: int) -> keras.Model:
        """Return the network of model.py for the data, to be trained on so many examples for `epochs`."""
        training = self.data["training"]
        steps = -(-examples // hyperparameters["batch_size"])
        optional = {"steps_per_epoch": steps, "epochs": epochs}
        return network.build(hyperparameters, training.shapes, training.outputs, seed, **optional)


def train(session: Session, job: dict, checkpoint: dict | None, report: Report) -> dict:
    """Return where a training got to, as `plain` does, or {"failure": why it failed}; see `Session.reach`."""
    reached = session.reach(job, checkpoint, report)
    return {"failure": reached} if isinstance(reached, str) else plain(session, reached)


def plain(session: Session, reached: Checkpoint) -> dict:
    """Return the attributes of `reached`, without arrays where the store has them."""
    return vars(replace(reached, weights=[], optimizer=[]) if session.store else reached)


def _size(made: Trainer) -> int:
    variables = made.network.variables + made.network.optimizer.variables
    return TRACE_BYTES + sum(v.value.dtype.size * int(np.prod(v.shape)) for v in variables)
