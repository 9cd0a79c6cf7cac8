"""Download the data set, verify and normalise it, split off validation examples.

Reads `seed` and `prepare`; writes data/prepared/{training,test} and metrics/prepare.json.
"""

import os
from pathlib import Path

import numpy as np
from sklearn.model_selection import train_test_split

from stages.base import console, packages, params, splits
from stages.base.files import shared_root, write_json
from stages.base.splits import Split
from stages.datasets import catalog


def split(data: Split, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of train and of validation: `share` of the examples (of each class), drawn by `seed`.

    Raises:
        UserError: `share` leaves a part with fewer examples than classes.
    """
    try:
        rows, labels = np.arange(len(data.labels)), data.labels if data.classes else None
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
    labels, classes = data.train.labels, data.train.classes
    train, validation = split(data.train, settings.prepare.validation_split, settings.seed)
    splits.save(splits.TRAINING, data.train, train, validation)
    splits.save(splits.TEST, data.test)
    parts = {"train": labels[train], "validation": labels[validation], "test": data.test.labels}
    inputs = splits.load(splits.TRAINING).inputs[: len(train)]
    write_json(
        "metrics/prepare.json",
        {
            "dataset": name,
            **({"classes": classes} if classes else {}),
            **{f"{part}_examples": len(examples) for part, examples in parts.items()},
            "input_mean": float(inputs.mean(dtype=np.float64)),
            # lists, which DVC leaves out of its tables: they are there for whoever reads the file
            "examples_per_class": {
                part: np.bincount(examples).tolist() for part, examples in parts.items() if classes
            },
            **({"class_names": data.class_names} if data.class_names else {}),
            **({"columns": data.columns} if data.columns else {}),
            "sha256": [{"file": file, "digest": digest} for file, digest in data.digests.items()],
        },
    )
    sizes = ", ".join(f"{len(examples):,} {part}" for part, examples in parts.items())
    shape, kind = " x ".join(map(str, inputs.shape[1:])), f"{classes} classes" if classes else "numbers"
    print(f"prepare: {name}, {sizes} examples of {shape} inputs; labels are {kind}")


if __name__ == "__main__":
    console.run(main)
