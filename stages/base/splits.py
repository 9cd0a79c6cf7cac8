"""The prepared splits on disk: one folder a split, NumPy files that load without pickle and can be memory-mapped."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stages.base.console import UserError
from stages.base.files import replacing


@dataclass(frozen=True)
class Split:
    """Images (n, height, width) float32 in [0, 1] and their labels (n,) int32 in 0..classes-1."""

    images: np.ndarray
    labels: np.ndarray

    @property
    def classes(self) -> int:
        """The number of classes."""
        return int(self.labels.max()) + 1


def save(folder: Path, split: Split) -> None:
    """Write `folder`/images.npy and `folder`/labels.npy."""
    for name, array in (("images", split.images), ("labels", split.labels)):
        with replacing(folder / f"{name}.npy") as temporary:
            np.save(temporary, array, allow_pickle=False)


def load(folder: Path) -> Split:
    """Return the split in `folder`, memory-mapped; UserError if it is not there."""
    try:
        return Split(*(np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in ("images", "labels")))
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} is missing; `dvc repro prepare` makes it") from None


def join(*splits: Split) -> Split:
    """Return the splits one after the other, in memory."""
    return Split(np.concatenate([split.images for split in splits]), np.concatenate([split.labels for split in splits]))
