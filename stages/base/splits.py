"""The prepared data on disk: a folder for each part, with NumPy files that are memory-mapped, without pickle.

`prepare` writes two parts: data/prepared/training, with the train examples followed by the validation
examples, and data/prepared/test. The final trainings use both train and validation examples; since these are
in the same arrays, no process has to copy them.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from stages.base.console import UserError
from stages.base.files import read_json, replacing, write_json

PREPARED = Path("data/prepared")
TRAINING, TEST = PREPARED / "training", PREPARED / "test"
_ABOUT = "about.json"  # in TRAINING: see `about`
_CHUNK = 2**24  # bytes to copy at a time
Shapes = tuple[int, ...] | dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Split:
    """Examples.

    Attributes:
        inputs: (n, ...), or several such arrays by the names of the network's inputs; any numeric types.
        labels: (n,) or (n, ...), integers or floats; integers (n,) are classes, numbered from 0.
        weights: (n,), the weight of each example in the training loss; None: all weights are equal.
        groups: (n,) integers. Examples of the same group may resemble each other, so every split keeps a
            group together, and standard errors and intervals treat groups as the independent samples. No
            group is in two parts.
    """

    inputs: np.ndarray | dict[str, np.ndarray]
    labels: np.ndarray
    weights: np.ndarray | None = None
    groups: np.ndarray | None = None

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray]) -> "Split":
        """Return the split that has these `arrays`."""
        several = {name.partition(".")[2]: arrays[name] for name in arrays if name.startswith("inputs.")}
        others = {name: arrays.get(name) for name in ("weights", "groups")}
        return cls(several or arrays["inputs"], arrays["labels"], **others)

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """Its arrays by name; with several inputs, the array of the input `image` is `inputs.image`."""
        if isinstance(self.inputs, dict):
            arrays = {f"inputs.{name}": array for name, array in self.inputs.items()}
        else:
            arrays = {"inputs": self.inputs}
        others = {"labels": self.labels, "weights": self.weights, "groups": self.groups}
        return arrays | {name: array for name, array in others.items() if array is not None}

    @property
    def shapes(self) -> Shapes:
        """The shape of one example's input; with several inputs, their shapes by name."""
        if isinstance(self.inputs, dict):
            return {name: array.shape[1:] for name, array in self.inputs.items()}
        return self.inputs.shape[1:]

    @property
    def classes(self) -> int | None:
        """The number of classes; None if the labels are not one class per example."""
        if self.labels.ndim > 1 or self.labels.dtype.kind == "f":
            return None
        return int(self.labels.max()) + 1

    @cached_property
    def outputs(self) -> int:
        """The number of classes or, for float or multi-label data, the length of a label's last axis.

        Other integer labels are classes too if an example has several, such as one for each pixel or word.
        """
        if self.several_labels or self.labels.dtype.kind == "f":
            return self.labels.shape[-1] if self.labels.ndim > 1 else 1
        return int(self.labels.max()) + 1

    @property
    def several_labels(self) -> bool:
        """Whether this is multi-label data: an example has a row of 0 and 1, one for each possible label."""
        return self.labels.ndim == 2 and self.labels.dtype.kind != "f" and int(self.labels.max()) <= 1


def save(folder: Path, *parts: tuple[Split, np.ndarray]) -> None:
    """Write a NumPy file for each array into `folder`: the given rows of the splits, one after the other."""
    for name, array in parts[0][0].arrays.items():
        arrays = [(split.arrays[name], rows) for split, rows in parts]
        # The dtypes of weights and groups may differ between parts
        dtype = np.result_type(*(part.dtype for part, _ in arrays))
        step = max(1, _CHUNK // max(1, array[:1].nbytes))
        header = np.lib.format.header_data_from_array_1_0(array[:0].astype(dtype))
        shape = sum(len(rows) for _, rows in arrays), *array.shape[1:]
        with replacing(folder / f"{name}.npy") as temporary, temporary.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, {**header, "shape": shape})
            for part, rows in arrays:
                for start in range(0, len(rows), step):  # copying all at once would double the memory
                    file.write(part[rows[start : start + step]].astype(dtype, copy=False).tobytes())
    for path in folder.glob("*.npy"):  # left from another data set
        if path.stem not in parts[0][0].arrays:
            path.unlink()


def load(folder: Path) -> Split:
    """Return the part in `folder`, memory-mapped copy-on-write: changes to its arrays stay in this process.

    Raises:
        UserError: a file is missing or damaged.
    """
    try:
        paths = sorted(folder.glob("*.npy"))
        return Split.of({path.stem: np.load(path, mmap_mode="c", allow_pickle=False) for path in paths})
    except KeyError as error:
        raise UserError(f"{folder}/{error.args[0]}.npy is missing; `dvc repro prepare` makes it") from None
    except (ValueError, EOFError) as error:
        raise UserError(f"{folder} is damaged ({error}); `dvc repro prepare` makes it again") from None


def write_about(train: int, validation: int, own_validation: bool, class_names: list[str]) -> None:
    """Write what `about` returns."""
    parts = {"train": train, "validation": validation, "own_validation": own_validation}
    write_json(TRAINING / _ABOUT, {**parts, "class_names": class_names})


def about() -> dict:
    """Return the description of `TRAINING`.

    `train` and `validation` are its numbers of examples, in this order; `own_validation` is whether the data
    set comes with a validation part; `class_names` has the names of its classes, or is empty.
    """
    return read_json(TRAINING / _ABOUT)


def digest(split: Split) -> str:
    """Return a SHA-256 hash of the names, shapes, types and contents of the arrays of `split`."""
    content = hashlib.sha256()
    for name, array in split.arrays.items():
        content.update(json.dumps([name, array.shape, str(array.dtype)]).encode())
        content.update(np.ascontiguousarray(array).data)
    return content.hexdigest()
