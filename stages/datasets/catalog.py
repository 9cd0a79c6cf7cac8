"""The data sets by name; the one place to add another: a function in a file beside this, named in `DATASETS`.

For tables, such as CSV files, tables.py does most of it; for images in a folder for each class, folders.py.
"""

import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from pandas.errors import ParserError

from stages.base.console import UserError, one_line
from stages.base.section import shown
from stages.datasets import mnist
from stages.datasets.dataset import Dataset
from stages.datasets.digits import digits

# From a name to a function of the folder for raw files
DATASETS: dict[str, Callable[[Path], Dataset]] = {
    **{name: partial(mnist.images, name) for name in mnist.IDX_DATASETS},
    "digits": digits,
}
# What reading a damaged file raises
_DAMAGE = (EOFError, ParserError, UnicodeDecodeError, tarfile.TarError, zipfile.BadZipFile, zlib.error)


def load(name: str, raw: Path) -> Dataset:
    """Return the data set `name`, downloaded to the folder `raw` unless it is there.

    Raises:
        UserError: there is no such data set, a file of it is missing or damaged, no source had it (the
            message names each with its reason), or a network cannot be trained on it.
    """
    if name not in DATASETS:
        names = ", ".join(DATASETS)
        raise UserError(f"params.yaml: prepare.dataset is {shown(name)}, but should be one of {names}")
    try:
        dataset = DATASETS[name](raw)
    except (FileNotFoundError, *_DAMAGE) as error:
        mistake = f"a file is damaged ({one_line(error)}); get it again"
        if isinstance(error, FileNotFoundError):
            mistake = f"{error.filename} is missing; put it there"
        raise UserError(f"{name}: {mistake}, or fix the data set's function in stages/datasets") from None
    if not isinstance(dataset, Dataset):
        kind = type(dataset).__name__
        raise UserError(f"{name}: its function in stages/datasets returns {kind}, not a Dataset")
    dataset = replace(dataset, class_names=[str(class_name) for class_name in dataset.class_names])
    if problem := next(dataset.problems(), None):
        raise UserError(f"{name}: {problem}; fix the data, or its function in stages/datasets")
    return dataset
