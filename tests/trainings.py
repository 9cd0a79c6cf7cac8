"""Helpers for tests of trainings: small real data, and a function that runs a whole training."""

from collections.abc import Mapping

import numpy as np
from sklearn.datasets import load_digits

from stages.base.splits import Split
from stages.training import network
from stages.training.checkpoint import Checkpoint
from stages.training.model import build  # noqa: F401 - from tests/project
from stages.training.network import Subset
from stages.training.trainer import Trainer

HYPERPARAMETERS = {"units": 32, "dropout": 0.2, "learning_rate": 0.001, "batch_size": 32}
BARE = {"batch_size": 32}  # for networks that read no other hyperparameters


def digits() -> tuple[Split, Split]:
    """Real handwritten digits: (train, test)."""
    data = load_digits()
    images, labels = data.images.astype(np.float32) / 16, data.target.astype(np.int32)
    return Split(images[:-360], labels[:-360]), Split(images[-360:], labels[-360:])


def train(
    hyperparameters: Mapping[str, object],
    data: Split,
    *,
    epochs: int,
    seed: int,
    validation: Split | None = None,
    early_stopping: Mapping[str, object] | None = None,
    checkpoint: Checkpoint | None = None,
) -> Checkpoint:
    """Train a new network on `data` to epoch `epochs`, from `checkpoint` or from the start."""
    made = network.build(hyperparameters, data, seed)
    return Trainer(
        made,
        Subset.of(data),
        batch_size=hyperparameters["batch_size"],
        validation=Subset.of(validation) if validation else None,
        early_stopping=early_stopping,
    ).run(checkpoint or network.checkpoint(made), epochs, seed)
