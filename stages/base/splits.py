"""The prepared data on disk: one folder a part, NumPy files that load without pickle and are memory-mapped.

`prepare` writes two parts: data/prepared/training, where train examples come first and validation examples
last, and data/prepared/test. So what trains on both has them in one array, which no process copies.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stages.base.console import UserError
from stages.base.files import read_json, replacing, write_json

PREPARED = Path("data/prepared")
TRAINING, TEST = PREPARED / "training", PREPARED / "test"
_PARTS = "parts.json"  # in TRAINING: how many examples are for training, and for validation
_CHUNK = 2**24  # bytes that are copied at once


@dataclass(frozen=True)
class Split:
    """Examples: inputs (n, ...) float32, and labels (n,): classes (int32, from 0) or numbers (float32)."""

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


def save(folder: Path, split: Split, *parts: np.ndarray) -> None:
    """Write `folder`/inputs.npy and `folder`/labels.npy: the rows of `parts`, in that order, or all rows."""
    rows = np.concatenate(parts) if parts else np.arange(len(split.labels))
    for name, array in (("inputs", split.inputs), ("labels", split.labels)):
        step = max(1, _CHUNK // max(1, array[:1].nbytes))
        header = np.lib.format.header_data_from_array_1_0(array[:0])
        with replacing(folder / f"{name}.npy") as temporary, temporary.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, {**header, "shape": (len(rows), *array.shape[1:])})
            for start in range(0, len(rows), step):  # a copy of all would take as much memory again
                file.write(array[rows[start : start + step]].tobytes())
    if parts:
        write_json(folder / _PARTS, dict(zip(("train", "validation"), map(len, parts), strict=True)))


def load(folder: Path) -> Split:
    """Return the part in `folder`, memory-mapped: what is written to its arrays stays in this process.

    Raises:
        UserError: it is not there or damaged.
    """
    try:
        arrays = (
            np.load(folder / f"{name}.npy", mmap_mode="c", allow_pickle=False)
            for name in ("inputs", "labels")
        )
        return Split(*arrays)
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} is missing; `dvc repro prepare` makes it") from None
    except (ValueError, EOFError) as error:
        raise UserError(f"{folder} is damaged ({error}); `dvc repro prepare` makes it again") from None


def train_size() -> int:
    """Return how many examples of `TRAINING` are for training, the first ones; the others for validation."""
    return read_json(TRAINING / _PARTS)["train"]


def digest(split: Split) -> str:
    """Return a hash of the inputs and labels of `split`."""
    content = hashlib.sha256()
    for array in (split.inputs, split.labels):
        content.update(json.dumps([array.shape, str(array.dtype)]).encode())
        content.update(np.ascontiguousarray(array).data)
    return content.hexdigest()
