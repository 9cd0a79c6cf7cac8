"""Download the data set, verify and normalise it, split off validation examples.

Reads `seed` and `prepare`; writes data/prepared/{train,validation,test} and metrics/prepare.json.
"""

import os
from pathlib import Path

import numpy as np
from sklearn.model_selection import train_test_split

from stages.base import console, packages, params, splits
from stages.base.files import shared_root, write_json
from stages.base.splits import Split
from stages.datasets import catalog


def split(data: Split, share: float, seed: int) -> tuple[Split, Split]:
    """Return the train and the validation split: `share` of the examples (of each class), drawn by `seed`, is validation.

    Raises:
        UserError: `share` leaves a split with fewer examples than classes.
    """
    try:
        rows, classes = np.arange(len(data.labels)), data.labels if data.classes else None
        train, validation = train_test_split(rows, test_size=share, stratify=classes, random_state=seed)
        for part in (train, validation) if data.classes else ():
            counts = np.bincount(data.labels[part], minlength=data.classes or 0)
            if not counts.all():
                raise ValueError(f"one part has no example of class {counts.argmin()}")
    except ValueError as error:
        raise console.UserError(f"params.yaml: prepare.validation_split is {share}, too near 0 or 1: {error}") from None
    return Split(data.inputs[train], data.labels[train]), Split(data.inputs[validation], data.labels[validation])


def main() -> None:
    settings = params.load()
    packages.check("numerics")
    name = settings.prepare.dataset
    data = catalog.load(name, Path(os.path.relpath(shared_root() / "data/raw" / name)))
    train, validation = split(data.train, settings.prepare.validation_split, settings.seed)
    prepared = {"train": train, "validation": validation, "test": data.test}
    for part, examples in prepared.items():
        splits.save(splits.PREPARED / part, examples)
    write_json(
        "metrics/prepare.json",
        {
            "dataset": name,
            **({"classes": train.classes} if train.classes else {}),
            **{f"{part}_examples": len(examples.labels) for part, examples in prepared.items()},
            "input_mean": float(train.inputs.mean(dtype=np.float64)),
            "input_std": float(train.inputs.std(dtype=np.float64)),
            # lists, which DVC leaves out of its tables: they are there for whoever reads the file
            "examples_per_class": {
                part: np.bincount(examples.labels).tolist() for part, examples in prepared.items() if train.classes
            },
            **({"class_names": data.class_names} if data.class_names else {}),
            **({"columns": data.columns} if data.columns else {}),
            "sha256": [{"file": file, "digest": digest} for file, digest in data.digests.items()],
        },
    )
    sizes = ", ".join(f"{len(examples.labels):,} {part}" for part, examples in prepared.items())
    shape, kind = " x ".join(map(str, train.inputs.shape[1:])), f"{train.classes} classes" if train.classes else "numbers"
    print(f"prepare: {name}, {sizes} examples of {shape} inputs; labels are {kind}")


if __name__ == "__main__":
    console.run(main)
