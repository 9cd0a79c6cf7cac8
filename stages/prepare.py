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


def split(data: Split, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of train and of validation: `share` of the examples (of each class), drawn by `seed`.

    With groups it is `share` of these, whatever the classes.

    Raises:
        UserError: `share` leaves a part with fewer examples than classes.
    """
    rows, labels = np.arange(len(data.labels)), data.labels if data.classes else None
    try:
        if data.groups is not None:
            shuffled = GroupShuffleSplit(1, test_size=share, random_state=seed)
            parts = next(shuffled.split(rows, groups=data.groups))
        else:
            parts = train_test_split(rows, test_size=share, stratify=labels, random_state=seed)
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
    parts = {"test": (data.test, np.arange(len(data.test.labels)))}
    if data.validation:
        both = {"train": data.train, "validation": data.validation}
        parts |= {
            part: (replace(of_part, groups=None), np.arange(len(of_part.labels)))
            for part, of_part in both.items()
        }
    else:
        rows = split(data.train, settings.prepare.validation_split, settings.seed)
        parts |= {"train": (data.train, rows[0]), "validation": (data.train, rows[1])}
    splits.save(splits.TEST, parts["test"])
    splits.save(splits.TRAINING, parts["train"], parts["validation"])
    sizes = {part: len(parts[part][1]) for part in ("train", "validation", "test")}
    splits.write_about(sizes["train"], sizes["validation"], bool(data.validation), data.class_names)
    write_json("metrics/prepare.json", metrics(name, data, parts, sizes))
    counts = ", ".join(f"{size:,} {part}" for part, size in sizes.items())
    console.result(f"prepare: {name}, {counts} examples of {described(data.train)}")


def metrics(
    name: str, data: catalog.Dataset, parts: dict[str, tuple[Split, np.ndarray]], sizes: dict[str, int]
) -> dict:
    """Return what is in metrics/prepare.json."""
    classes, inputs = data.train.classes, splits.load(splits.TRAINING).arrays
    means = {
        array.replace("inputs", "input_mean"): float(inputs[array][: sizes["train"]].mean(dtype=np.float64))
        for array in inputs
        if array.startswith("inputs")
    }
    return {
        "dataset": name,
        **({"classes": classes} if classes else {}),
        **{f"{part}_examples": size for part, size in sizes.items()},
        **means,
        # lists, which DVC leaves out of its tables: they are there for whoever reads the file
        "examples_per_class": {
            part: np.bincount(parts[part][0].labels[parts[part][1]]).tolist() for part in sizes if classes
        },
        **({"class_names": data.class_names} if data.class_names else {}),
        **({"columns": data.columns} if data.columns else {}),
        "sha256": [{"file": file, "digest": digest} for file, digest in data.digests.items()],
    }


def described(data: Split) -> str:
    """Return in words what an example of `data` is."""
    shapes = data.shapes if isinstance(data.shapes, dict) else {"": data.shapes}
    inputs = [
        f"{' x '.join(map(str, shape)) or 'one number'} {name}".strip() for name, shape in shapes.items()
    ]
    numbers = f"{' x '.join(map(str, data.labels.shape[1:]))} numbers".strip()
    labels = f"{data.classes} classes" if data.classes else numbers
    return f"{' and '.join(inputs)} inputs; labels are {labels}"


if __name__ == "__main__":
    console.run(main)
