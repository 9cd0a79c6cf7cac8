"""What runs on a Dask worker: one training, from a state to a later one."""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from stages.search.evaluation import Training
from stages.splits import Split
from stages.training import EarlyStopping, Part, State, Trainer, tf

# Networks that stay built and traced: a worker that takes turns at a few trainings need not start over at each turn
KEPT = 16


class Data:
    """All rows of all trainings, and (rows to train on, rows to score on) by the name of the part."""

    def __init__(self, split: Split, parts: dict[str, tuple[np.ndarray, np.ndarray]]):
        self.split, self.parts = split, parts

    @cached_property
    def tensors(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Images and labels as tensors; `split` becomes a view of them, so that the images are in memory once."""
        tensors = tf.constant(self.split.images), tf.constant(self.split.labels)
        self.split = Split(*(tensor.numpy() for tensor in tensors))
        return tensors

    def __reduce__(self):
        return Data, (self.split, self.parts)


@dataclass(frozen=True)
class Settings:
    """What all trainings of a search have in common; `data` is a digest of the data."""

    data: str
    batch_size: int
    early_stopping: EarlyStopping | None


def dask_setup(_worker) -> None:
    """Train something tiny: much takes long the first time only, and could be done while the data is on its way."""
    nothing = Part.of(Split(np.zeros((2, 28, 28), np.float32), np.arange(2, dtype=np.int32)))
    hyperparameters = {"units": 1, "dropout": 0.5, "learning_rate": 0.1}
    Trainer(hyperparameters, nothing, batch_size=1, seed=0, validation=nothing).run(1)


def train(data: Data, settings: Settings, training: Training, epoch: int, state: State | None) -> State:
    """Return the state of `training` at `epoch`, going on from `state`."""
    kept = _kept(settings)
    if training not in kept:
        while len(kept) >= KEPT:
            del kept[next(iter(kept))]
        kept[training] = _trainer(data, settings, training)
    kept[training] = kept.pop(training)  # the last of the dictionary is the last that was used
    return kept[training].run(epoch, state)


@lru_cache(1)
def _kept(settings: Settings) -> dict[Training, Trainer]:
    """The trainers of one search; another search's are forgotten."""
    return {}


def _trainer(data: Data, settings: Settings, training: Training) -> Trainer:
    train, score = (Part(*data.tensors, np.asarray(rows, np.int32)) for rows in data.parts[training.part])
    return Trainer(
        training.hyperparameters,
        train,
        batch_size=settings.batch_size,
        seed=training.seed,
        validation=score if len(score.rows) else None,
        early_stopping=settings.early_stopping,
    )
