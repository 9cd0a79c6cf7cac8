"""On a worker: run a training for some seconds, from the checkpoint that comes with the task."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stages.base import splits
from stages.base.console import UserError, one_line
from stages.base.splits import Split
from stages.training import network
from stages.training.backend import DEVICE, keras, tf
from stages.training.checkpoint import Checkpoint
from stages.training.network import Subset
from stages.training.trainer import Trainer

KEPT_BYTES = 2**27  # of traced networks to keep, so that a promoted trial is not traced again
TRACE_BYTES = 2**22  # that a traced network takes besides its variables, roughly
_CHANGED = "{} has changed since this stage started; run it again"
# Errors that are not the network's fault: another worker may succeed
INFRASTRUCTURE: tuple = (MemoryError, ImportError, OSError, tf.errors.ResourceExhaustedError)
if DEVICE == "GPU":  # CUDA's libraries raise these if the GPU's memory is full
    INFRASTRUCTURE += (tf.errors.InternalError, tf.errors.UnknownError)


class Session:
    """A worker's state in one run of a stage: the data, and the networks that were trained last.

    A job is a dictionary of the client's:

    - "key": the training's key in the store.
    - "hyperparameters", "seed".
    - "subset": the name of the rows to train on and to score on.
    - "epochs": the epoch to train to.
    - "all_epochs": the epochs of the whole training if nothing stops it.
    - "checkpoint": the attributes of the checkpoint to continue from, None at the start.
    - "seconds": after this time, the task ends with the current epoch.
    - "model": whether to return a model file at the end of the training.

    Args:
        data: the parts of the data by name, each as its folder or as its arrays by name.
        digests: `splits.digest` of each part, as the client has read it.
        subsets: (rows to train on, rows to score on after each epoch) by name; the latter may be empty.
        early_stopping: as for `Trainer`.

    Attributes:
        about: `device`, "CPU" or "GPU", and `network.takes_epochs()`, for the client.

    Raises:
        UserError: the data is not what the client has read.
    """

    def __init__(
        self,
        data: Mapping[str, str | dict[str, np.ndarray]],
        digests: Mapping[str, str],
        subsets: Mapping[str, tuple[np.ndarray, np.ndarray]],
        early_stopping: Mapping[str, object] | None,
    ):
        self.about = {"device": DEVICE, "takes_epochs": network.takes_epochs()}
        self.data = {
            name: splits.load(Path(part)) if isinstance(part, str) else Split.of(part)
            for name, part in data.items()
        }
        self._folders = [Path(part) for part in data.values() if isinstance(part, str)]
        self._modified = self._modification_times()
        for name, part in self.data.items():
            if splits.digest(part) != digests[name]:
                raise UserError(_CHANGED.format(data[name]))
        self.tensors = {name: Subset.of(part) for name, part in self.data.items()}
        self._subsets, self._early_stopping = subsets, early_stopping
        self.trainers: dict[str, Trainer] = {}
        self._built = False

    def reach(self, job: dict) -> Checkpoint:
        """Train for the seconds that `job` has, and return the checkpoint that the training has reached."""
        start = Checkpoint(**job["checkpoint"]) if job["checkpoint"] else None
        if start and start.done(job["epochs"]):
            return start
        trainer, start = self.trainer(job, start)
        reached = trainer.run(start, job["epochs"], job["seed"], job["seconds"])
        if self._modification_times() != self._modified:  # training reads the mapped files
            raise UserError(_CHANGED.format(self._folders[0].parent))
        return reached

    def _modification_times(self) -> list[int]:
        """Return the modification times of the data's files, in nanoseconds."""
        return [path.stat().st_mtime_ns for folder in self._folders for path in sorted(folder.glob("*.npy"))]

    def trainer(self, job: dict, start: Checkpoint | None) -> tuple[Trainer, Checkpoint]:
        """Return a trainer for `job` and the checkpoint to start from: `start` or, if None, the initial one.

        Tracing a network takes long, so recent trainers are kept. Trainings that differ only in the seed
        share a trainer, unless their networks differ in more than variables, such as in random constants.
        """
        name = json.dumps([job["hyperparameters"], job["subset"], job["all_epochs"]])
        trainer = self.trainers.pop(name, None)
        if not (trainer and start and job["seed"] in trainer.seeds):
            rows, scored = (self.tensors["training"].at(rows) for rows in self._subsets[job["subset"]])
            arguments = job["hyperparameters"], job["seed"], len(rows.rows), job["all_epochs"]
            built = self.build(*arguments)
            if not self._built:
                network.check_repeatable(built, self.build(*arguments), rows)
            self._built, first = True, network.checkpoint(built)
            start = start or first
            if trainer:
                network.restore(trainer.network, first)
            if not trainer or not network.same_outputs(trainer.network, built, rows):
                network.check(built, rows)
                trainer = Trainer(
                    built,
                    rows,
                    batch_size=job["hyperparameters"]["batch_size"],
                    validation=scored if len(scored.rows) else None,
                    early_stopping=self._early_stopping,
                )
        trainer.seeds.add(job["seed"])
        self.trainers[name] = trainer  # the dictionary's last is the most recently used
        while len(self.trainers) > 1 and sum(map(_size, self.trainers.values())) > KEPT_BYTES:
            del self.trainers[next(iter(self.trainers))]
        return trainer, start

    def build(self, hyperparameters: Mapping[str, Any], seed: int, examples: int, epochs: int) -> keras.Model:
        """Return the network of model.py, to be trained on this number of examples for `epochs` epochs."""
        training = self.data["training"]
        steps = -(-examples // hyperparameters["batch_size"])
        optional = {"steps_per_epoch": steps, "epochs": epochs}
        return network.build(hyperparameters, training, seed, **optional)


def train(session: Session, job: dict) -> dict:
    """Return the attributes of the checkpoint that a training reaches, or {"failure": reason in one line}.

    Raises:
        UserError: model.py has something that this project cannot train.
        Exception: one of `INFRASTRUCTURE`, which is not the network's fault.
    """
    return attempt(session, lambda: vars(session.reach(job)))


def attempt(session: Session, task: Callable[[], dict]) -> dict:
    """Return the result of `task`; {"failure"} and errors are as for `train`."""
    try:
        return task()
    except (*INFRASTRUCTURE, UserError):
        session.trainers.clear()
        raise
    except Exception as error:
        return {"failure": one_line(error)}


def _size(trainer: Trainer) -> int:
    """Return about how many bytes `trainer` keeps."""
    variables = trainer.network.variables + trainer.network.optimizer.variables
    return TRACE_BYTES + sum(v.value.dtype.size * int(np.prod(v.shape)) for v in variables)
