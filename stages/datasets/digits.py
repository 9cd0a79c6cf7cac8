"""Small images from scikit-learn; `dvc exp run -S prepare.dataset=digits` takes half a minute."""

import hashlib
import importlib.resources
from pathlib import Path

import numpy as np

from stages.base.splits import Split
from stages.datasets.dataset import Dataset


def digits(_raw: Path) -> Dataset:
    """Return 1,797 handwritten 8x8 digits (UCI; Alpaydin and Kaynak, 1998), the last 360 for testing."""
    from sklearn.datasets import load_digits

    file = importlib.resources.files("sklearn.datasets.data") / "digits.csv.gz"
    digits = load_digits()
    images, labels = digits.images.astype(np.float32) / 16, digits.target.astype(np.int32)
    train, test = Split(images[:-360], labels[:-360]), Split(images[-360:], labels[-360:])
    return Dataset(train, test, {file.name: hashlib.sha256(file.read_bytes()).hexdigest()})
