"""The prepared splits on disk: one folder a split, NumPy files that load without pickle and can be memory-mapped."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stages.base.console import UserError
from stages.base.files import replacing

PREPARED = Path("data/prepared")  # what `prepare` writes: the splits train, validation and test
TRAINED_ON = (PREPARED / "train", PREPARED / "validation")  # in this order wherever rows are numbered


@dataclass(frozen=True)
class Split:
    """Examples: inputs (n, ...) float32, and labels (n,), which are classes (int32, from 0) or numbers (float32)."""

    inputs: np.ndarray
    labels: np.ndarray

    @property
    def classes(self) -> int | None:
        """The number of classes; None where the labels are numbers."""
        return int(self.labels.max()) + 1 if self.labels.dtype.kind == "i" else None

    @property
    def outputs(self) -> int:
        """How many numbers the network returns for an example: one for each class, or one."""
        return self.classes or 1


def save(folder: Path, split: Split) -> None:
    """Write `folder`/inputs.npy and `folder`/labels.npy."""
    for name, array in (("inputs", split.inputs), ("labels", split.labels)):
        with replacing(folder / f"{name}.npy") as temporary:
            np.save(temporary, array, allow_pickle=False)


def load(folder: Path) -> Split:
    """Return the split in `folder`, memory-mapped; UserError if it is not there or damaged."""
    try:
        return Split(*(np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in ("inputs", "labels")))
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} is missing; `dvc repro prepare` makes it") from None
    except (ValueError, EOFError) as error:
        raise UserError(f"{folder} is damaged ({error}); `dvc repro prepare` makes it again") from None


def join(*splits: Split) -> Split:
    """Return the splits one after the other, in memory."""
    return Split(np.concatenate([split.inputs for split in splits]), np.concatenate([split.labels for split in splits]))
