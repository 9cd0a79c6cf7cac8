"""What runs on a Dask worker: one training, from a checkpoint to a later one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from stages.base.params import EarlyStopping
from stages.base.splits import Split
from stages.training.backend import keras, tf
from stages.training.trainer import Checkpoint, Subset, Trainer, build

# Networks that stay traced: a worker that takes turns at a few trainings need not start over at each turn
KEPT = 16
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
    """What all trainings of a search have in common; `data` is a digest of the data."""

    data: str
    batch_size: int
    early_stopping: EarlyStopping | None


def dask_setup(_worker) -> None:
    """Train something tiny: much takes long the first time only, and could be done while the data is on its way."""
    nothing = Subset.of(Split(np.zeros((2, 28, 28), np.float32), np.arange(2, dtype=np.int32)))
    layers = keras.layers
    network = keras.Sequential([layers.Flatten(), layers.Dense(1, "relu"), layers.Dropout(0.5), layers.Dense(2, "softmax")])
    network.compile("adam", "sparse_categorical_crossentropy")
    network.build((None, 28, 28))
    network.optimizer.build(network.trainable_variables)
    Trainer(network, nothing, batch_size=1, seed=0, validation=nothing).run(1)


def train(
    settings: Settings, training: Training, epochs: int, seconds_at_most: float, data: dict, checkpoint: dict | None
) -> dict | str:
    """Return what `Trainer.run` returns, going on from `checkpoint`, or why the network failed, in one line.

    Args:
        data: `inputs`, `labels` and `subsets`, all rows of all trainings and (rows to train on, rows to score on) by name.
        checkpoint: a `Checkpoint`'s attributes, as is what is returned: plain, so that no worker needs its class to pass it on.

    Raises:
        Exception: one of `INFRASTRUCTURE`, for which no network is to blame.
    """
    kept = _kept(settings)
    try:
        if training not in kept.trainers:
            while len(kept.trainers) >= KEPT:
                del kept.trainers[next(iter(kept.trainers))]
            subset, scored = (kept.subset(data, rows) for rows in data["subsets"][training.subset])
            outputs = Split(data["inputs"], data["labels"]).outputs
            kept.trainers[training] = Trainer(
                build(training.hyperparameters, subset.inputs.shape[1:], outputs, training.seed),
                subset,
                batch_size=settings.batch_size,
                seed=training.seed,
                validation=scored if len(scored.rows) else None,
                early_stopping=settings.early_stopping,
            )
        kept.trainers[training] = kept.trainers.pop(training)  # the last of the dictionary is the last that was used
        return vars(kept.trainers[training].run(epochs, checkpoint and Checkpoint(**checkpoint), seconds_at_most))
    except INFRASTRUCTURE:
        kept.trainers.clear()
        raise
    except Exception as error:
        return " ".join(f"{type(error).__name__}: {error}".split())[:200]


@dataclass
class _Kept:
    """What stays in memory between the trainings of one search."""

    trainers: dict[Training, Trainer] = field(default_factory=dict)
    tensors: Subset | None = None

    def subset(self, data: dict, rows: np.ndarray) -> Subset:
        """These rows of `data`, whose arrays become views of the tensors, so that they are in memory once."""
        if not self.tensors:
            self.tensors = Subset.of(Split(data["inputs"], data["labels"]))
            data["inputs"], data["labels"] = self.tensors.inputs.numpy(), self.tensors.labels.numpy()
        return self.tensors._replace(rows=np.asarray(rows, np.int32))


@lru_cache(1)
def _kept(_settings: Settings) -> _Kept:
    """What is kept for one search; another search's is forgotten."""
    return _Kept()
