"""The class of a data set, and the checks that a network can be trained on it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from stages.base.splits import Split


@dataclass(frozen=True)
class Dataset:
    """The parts of a data set, in the form that the network takes, and their description.

    Attributes:
        digests: the SHA-256 digests of its raw files, by name.
        columns: for tables, a description of each input: `column`, its column; `text`, the value that a 0/1
            input stands for, None for a numeric column; `mean` and `deviation`, used to standardise it.
        class_names: the names of the classes, in the order of their numbers; empty if they have none.
        validation: a fixed validation part, as for a time series, where later examples must not be trained
            on; None: `prepare` draws a share of `train`. Either both or neither of `train` and `validation`
            have `weights`; `groups` that only one of them has are dropped.
    """

    train: Split
    test: Split
    digests: dict[str, str]
    columns: list[dict[str, object]] = field(default_factory=list)
    class_names: list[str] = field(default_factory=list)
    validation: Split | None = None

    def problems(self) -> Iterator[str]:
        """Yield the reasons why a network cannot be trained or tested on this data set.

        Only the first is reliable: each check assumes that the checks before it found nothing.
        """
        optional = {"validation": self.validation} if self.validation else {}
        parts = {"train": self.train, **optional, "test": self.test}
        for part, split in parts.items():
            yield from (f"the {part} part {problem}" for problem in _problems(split))
        for part, split in parts.items():
            if _form(split) != _form(self.train):
                yield f"the train part has {_form(self.train)}, but the {part} part {_form(split)}"
        if self.validation and (self.train.weights is None) != (self.validation.weights is None):
            yield "the train or the validation part has weights, but the other has none"
        groups = {part: split.groups for part, split in parts.items() if split.groups is not None}
        for one, other in combinations(groups, 2):
            if (shared := np.intersect1d(groups[one], groups[other])).size:
                yield f"the {one} part and the {other} part share {shared.size} groups, such as {shared[0]}"
        count, unit = len(self.test.labels), "example"
        if self.test.groups is not None:
            count, unit = len(np.unique(self.test.groups)), "group"
        if count < 2:
            yield f"the test part has one {unit}, but a standard error needs 2"
        labels, classes = self.train.labels, self.train.classes
        if (labels == labels[0]).all():
            yield "all labels of the train part are the same"
        if labels.dtype.kind == "f":
            return
        for part, split in parts.items():
            if split.labels.max() > labels.max():
                last = f"the train part only classes up to {labels.max()}"
                yield f"the {part} part has class {split.labels.max()}, but {last}"
        named, outputs = len(set(self.class_names)), self.train.outputs
        if named and named != outputs and not (self.train.several_labels and named == 2):
            yield f"there are {named} different names for {outputs} classes"
        if not classes:
            return
        counts = np.bincount(labels)
        minimum, needs = (1, "1") if self.validation else (2, "2, one of them for validation")
        if counts.min() < minimum:
            few = f"the train part has {counts.min()} examples of class {counts.argmin()}, but needs {needs}"
            yield f"{few} (classes are numbered from 0; numbers to be predicted have to be floats)"


def _form(split: Split) -> str:
    """Describe what must be the same in all parts: the arrays' names, shapes of an example, and types."""
    arrays = {name: array for name, array in split.arrays.items() if name not in ("weights", "groups")}
    return ", ".join(f"{name} of shape {array.shape[1:]} {array.dtype}" for name, array in arrays.items())


def _problems(split: Split) -> Iterator[str]:
    """Yield the problems of one part; as in `Dataset.problems`, only the first is reliable."""
    labels = split.labels
    for name, array in split.arrays.items():
        if set(name) & {"/", "\0"}:
            yield f"has {name!r}, which no file can be named after"
        if not isinstance(array, np.ndarray):
            yield f"has {name} of type {type(array).__name__}, not a NumPy array (.to_numpy() returns one)"
        if not len(labels) or len(array) != len(labels):
            yield f"has {len(array)} {name}, but {len(labels)} labels"
        usable = array.dtype.kind in ("iu" if name == "groups" else "iuf") and array.dtype.itemsize <= 8
        if not usable or not array.dtype.isnative:
            wanted = "integers or floats of 64 bits at most, in this machine's byte order"
            if name == "groups":
                wanted = "integers; for names, use numpy.unique(..., return_inverse=True) over all parts"
            yield f"has {name} of type {array.dtype}, not {wanted}"
        if name in ("weights", "groups") and array.ndim != 1:
            yield f"has {name} of shape {array.shape}, not a number for each example"
        if name == "labels" and array.shape[1:][-1:] == (1,):
            yield f"has labels of shape {array.shape}; they should be {array.shape[:-1]}"
        if name == "labels" and split.classes is not None and (below := (labels < 0).sum()):
            yield f"has {below} of {len(labels)} labels missing (a class below 0)"
        if array.dtype.kind == "f" and (bad := (~np.isfinite(array)).reshape(len(array), -1).any(1).sum()):
            yield f"has {name} that are NaN or infinite in {bad} of {len(labels)} examples"
    if split.weights is not None and (split.weights.min() < 0 or not split.weights.any()):
        yield "has weights below 0, or all of them 0"
