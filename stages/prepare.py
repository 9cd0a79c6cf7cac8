"""Download the data set, verify and normalise it, split off validation examples.

Reads `seed` and `prepare`; writes data/prepared/{training,test} and metrics/prepare.json.
"""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
from sklearn.model_selection import GroupShuffleSplit, train_test_split

from stages.base import console, packages, params, splits
from stages.base.files import shared_root, write_json
from stages.base.splits import Split
from stages.datasets import catalog

FEW_GROUPS = 20  # with fewer groups of different sizes, the interval is too narrow


def split(data: Split, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of train and of validation, which is `share` of the examples, stratified by class.

    With groups, validation is `share` of the groups, whatever their classes.

    Raises:
        UserError: a part would have no example of a class.
    """
    rows = np.arange(len(data.labels))
    try:
        if data.groups is not None:
            shuffled = GroupShuffleSplit(1, test_size=share, random_state=seed)
            parts = next(shuffled.split(rows, groups=data.groups))
        else:
            classes = data.labels if data.classes else None
            parts = train_test_split(rows, test_size=share, stratify=classes, random_state=seed)
        for part in parts if data.classes else ():
            counts = np.bincount(data.labels[part], minlength=data.classes or 0)
            if not counts.all():
                raise ValueError(f"one part has no example of class {counts.argmin()}")
    except ValueError as error:
        reason = f"{share}, too near 0 or 1: {error}"
        raise console.UserError(f"params.yaml: prepare.validation_split is {reason}") from None
    return tuple(parts)


def main() -> None:
    settings = params.load()
    packages.check("numerics")
    name = settings.prepare.dataset
    data = catalog.load(name, Path(os.path.relpath(shared_root() / "data/raw" / name)))
    if data.validation:
        train, validation = data.train, data.validation
        if train.groups is None or validation.groups is None:
            train, validation = replace(train, groups=None), replace(validation, groups=None)
        train_rows, validation_rows = (np.arange(len(part.labels)) for part in (train, validation))
    else:
        train = validation = data.train
        train_rows, validation_rows = split(train, settings.prepare.validation_split, settings.seed)
    parts = {"train": (train, train_rows), "validation": (validation, validation_rows)}
    parts["test"] = data.test, np.arange(len(data.test.labels))
    splits.save(splits.TEST, parts["test"])
    splits.save(splits.TRAINING, parts["train"], parts["validation"])
    splits.write_about(len(train_rows), len(validation_rows), bool(data.validation), data.class_names)
    content = metrics(name, data, len(train_rows))
    write_json("metrics/prepare.json", content)
    labels = train.labels[:1000]
    if labels.ndim == 2 and np.isin(labels, (0, 1)).all() and (labels.sum(-1) == 1).all():
        console.say("note: labels look one-hot; with labels.argmax(-1), the split is stratified by class")
    counts = ", ".join(f"{content[f'{part}_examples']:,} {part}" for part in ("train", "validation", "test"))
    weighted = "" if train.weights is None else ", weighted"
    console.result(f"prepare: {name}, {counts} examples of {described(data.train)}{weighted}{grouped(parts)}")


def grouped(parts: dict[str, tuple[Split, np.ndarray]]) -> str:
    """Return in words how many groups the rows of each part have; print a note if they are few."""
    counts = {p: len(np.unique(s.groups[rows])) for p, (s, rows) in parts.items() if s.groups is not None}
    if not counts:
        return ""
    for part in ("validation", "test"):
        if counts.get(part, 1) == 1:
            few = "one group" if part in counts else "no groups"
            console.say(f"note: the {part} part has {few}; its standard errors assume independent examples")
        elif counts[part] < FEW_GROUPS:
            few = f"{counts[part]} groups; with fewer than {FEW_GROUPS}, its standard errors are rough"
            console.say(f"note: the {part} part has {few}")
    return f", in {', '.join(f'{count:,} {part}' for part, count in counts.items())} groups"


def metrics(name: str, data: catalog.Dataset, n: int) -> dict:
    """Return the content of metrics/prepare.json; the first `n` examples of `splits.TRAINING` are train's."""
    training, classes = splits.load(splits.TRAINING), data.train.classes
    labels = {"train": training.labels[:n], "validation": training.labels[n:], "test": data.test.labels}
    inputs = {key: array[:n] for key, array in training.arrays.items() if key.startswith("inputs")}
    means = {key: float(array.mean(dtype=np.float64)) for key, array in inputs.items()}
    content = {
        "dataset": name,
        "classes": classes,
        **{f"{part}_examples": len(labels[part]) for part in labels},
        **{key.replace("inputs", "input_mean"): mean for key, mean in means.items()},
        # These are lists, which DVC leaves out of its tables
        "examples_per_class": {part: np.bincount(labels[part]).tolist() for part in labels if classes},
        "class_names": data.class_names or None,
        "columns": data.columns or None,
        "sha256": [{"file": file, "digest": digest} for file, digest in data.digests.items()],
    }
    return {key: value for key, value in content.items() if value is not None}


def described(data: Split) -> str:
    """Return in words the shape of an example's inputs and what its labels are."""
    shapes = data.shapes if isinstance(data.shapes, dict) else {"": data.shapes}
    sizes = {name: " x ".join(map(str, shape)) or "one number" for name, shape in shapes.items()}
    inputs = " and ".join(f"{size} {name}".strip() for name, size in sizes.items())
    size = " x ".join(map(str, data.labels.shape[1:]))
    numbers = data.several_labels or data.labels.dtype.kind == "f"
    labels = "numbers" if numbers else f"{'of ' if size else ''}{data.outputs} classes"
    return f"{inputs} inputs; labels are {size} {labels}".replace("  ", " ")


if __name__ == "__main__":
    console.run(main)
