"""Small images that come with scikit-learn: `dvc exp run -S prepare.dataset=digits` takes half a minute."""

import hashlib
import importlib.resources
from pathlib import Path

import numpy as np

from stages.base.console import UserError
from stages.base.splits import Split
from stages.datasets.dataset import Dataset


def digits(_raw: Path | None = None) -> Dataset:
    """Scikit-learn's 1,797 handwritten 8x8 digits (UCI; Alpaydin and Kaynak, 1998), the last 360 to test."""
    from sklearn.datasets import load_digits

    file = importlib.resources.files("sklearn.datasets.data") / "digits.csv.gz"
    digest = "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22"
    if hashlib.sha256(file.read_bytes()).hexdigest() != digest:
        way_out = "install the version in requirements.txt"
        raise UserError(f"digits: scikit-learn's {file.name} has a wrong SHA-256; {way_out}")
    digits = load_digits()
    images, labels = digits.images.astype(np.float32) / 16, digits.target.astype(np.int32)
    train, test = Split(images[:-360], labels[:-360]), Split(images[-360:], labels[-360:])
    return Dataset(train, test, {file.name: digest})
