"""Download the data set, verify and normalise it, split off validation images.

Reads `seed` and `prepare`; writes data/prepared/{train,validation,test} and metrics/prepare.json.
"""

from pathlib import Path

import numpy as np
from sklearn.model_selection import train_test_split

from stages.base import console, packages, params, splits
from stages.base.files import write_json
from stages.base.splits import Split
from stages.datasets import catalog


def stratified_split(images: np.ndarray, labels: np.ndarray, share: float, seed: int) -> tuple[Split, Split]:
    """Return the train and the validation split: `share` of each class, drawn by `seed`, is validation.

    Raises:
        UserError: `share` leaves a split with fewer images than classes.
    """
    try:
        train, validation = train_test_split(np.arange(len(labels)), test_size=share, stratify=labels, random_state=seed)
    except ValueError as error:
        raise console.UserError(f"params.yaml: prepare.validation_split is {share}, too near 0 or 1: {error}") from None
    return Split(images[train], labels[train]), Split(images[validation], labels[validation])


def main() -> None:
    settings = params.load()
    packages.check("numerics")
    name = settings.prepare.dataset
    data = catalog.load(name, Path("data/raw") / name)
    train, validation = stratified_split(data.train_images, data.train_labels, settings.prepare.validation_split, settings.seed)
    prepared = {"train": train, "validation": validation, "test": Split(data.test_images, data.test_labels)}
    for split_name, split in prepared.items():
        splits.save(Path("data/prepared") / split_name, split)
    write_json(
        "metrics/prepare.json",
        {
            "dataset": name,
            "classes": train.classes,
            **{f"{split_name}_images": len(split.labels) for split_name, split in prepared.items()},
            "pixel_mean": float(train.images.mean(dtype=np.float64)),
            "pixel_std": float(train.images.std(dtype=np.float64)),
            # lists, which DVC leaves out of its tables: they are there for whoever reads the file
            "images_per_class": {split_name: np.bincount(split.labels).tolist() for split_name, split in prepared.items()},
            "sha256": [{"file": file, "digest": digest} for file, digest in data.digests.items()],
        },
    )
    sizes = ", ".join(f"{len(split.labels):,} {split_name}" for split_name, split in prepared.items())
    print(f"prepare: {name}, {sizes} images")


if __name__ == "__main__":
    console.run(main)
