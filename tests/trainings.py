"""What several tests of trainings share: small real data, and a training from beginning to end."""

from collections.abc import Mapping
from pathlib import Path

from stages.base.params import load
from stages.base.splits import Split
from stages.datasets import catalog
from stages.training import trainer
from stages.training.checkpoint import Checkpoint
from stages.training.trainer import Subset, Trainer

HYPERPARAMETERS = load(
    Path(__file__).parent.parent / "params.yaml"
).baseline.model_dump()  # of whatever the network is


def digits() -> tuple[Split, Split]:
    """Real handwritten digits: (train, test)."""
    data = catalog.load("digits", None)
    return data.train, data.test


def train(
    hyperparameters: Mapping[str, object],
    data: Split,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    validation: Split | None = None,
    early_stopping: Mapping[str, object] | None = None,
    checkpoint: Checkpoint | None = None,
) -> Checkpoint:
    """Train a new network on `data` to epoch `epochs`, from `checkpoint` or from the start."""
    return Trainer(
        trainer.build(hyperparameters, data.inputs.shape[1:], data.outputs, seed),
        Subset.of(data),
        batch_size=batch_size,
        seed=seed,
        validation=Subset.of(validation) if validation else None,
        early_stopping=early_stopping,
    ).run(epochs, checkpoint)
