"""Data sets that are tables, such as CSV files.

A function of the raw folder reads two tables and returns `from_tables(train, test, "label", *files)`; with
its entry in `DATASETS` of catalog.py, `python -m stages.prepare` tries it.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from stages.base.console import UserError, say
from stages.base.splits import Split
from stages.datasets.dataset import Dataset

MOST_TEXTS = 100  # different texts in a column, since each becomes an input


def from_tables(
    train: pd.DataFrame, test: pd.DataFrame, label: str, *files: Path, classes: bool = False
) -> Dataset:
    """Return the data set of two tables with the same columns; `label` is the column to predict.

    Labels that are text or booleans become classes, numbered in sorted order; labels that are numbers stay
    numbers unless `classes` is set. Of the other columns, numbers are inputs, and each text in `train`
    becomes an input of 0 and 1. All inputs are standardised by the mean and standard deviation of `train`.
    `files` are those that the tables were read from, to be hashed and named in errors.

    Raises:
        UserError: a column is not in both tables, lacks values, mixes text and numbers, or has too many
            different texts, as ids and dates do.
    """
    if problem := next(_problems(train, test, label), None):
        names = ", ".join(map(str, files)) or "the tables"
        raise UserError(f"{names}: {problem}; mend the file, or leave out the column or those rows")
    both = pd.concat({"train": train, "test": test})
    others = [name for name in both if name != label]
    columns: list[tuple[str, str | None]] = []
    for name in sorted(others, key=lambda name: not _is_numeric(both[name])):  # numbers first
        texts = [None] if _is_numeric(both[name]) else sorted(train[name].unique(), key=str)
        columns += [(name, text) for text in texts]
        if unknown := set(test[name]) - set(train[name]) if None not in texts else set():
            text = min(unknown, key=str)
            say(f"note: column {name} has {text} in the test part only; no input stands for it")
    values = {(name, text): both[name] if text is None else both[name] == text for name, text in columns}
    inputs, labels = pd.concat(values, axis=1).astype(np.float64), both[label]
    mean, deviation = inputs.loc["train"].mean(), inputs.loc["train"].std(ddof=0)
    deviation = deviation.where(deviation > 1e-9 * mean.abs(), 1.0)  # a constant has 0, but for rounding
    inputs = ((inputs - mean) / deviation).astype(np.float32)
    numeric = _is_numeric(labels) and not pd.api.types.is_bool_dtype(labels) and not classes
    if numeric and labels.nunique() == 2:
        both_are = " and ".join(f"{value:g}" for value in sorted(labels.unique()))
        way_out = "pass classes=True to `from_tables` to treat it as classes"
        say(f"note: label {label} is only {both_are}, and treated as a number; {way_out}")
    kinds = labels.astype("category").cat.remove_unused_categories().cat
    labels = labels.astype(np.float32) if numeric else kinds.codes.astype(np.int32)
    train_part = Split(inputs.loc["train"].to_numpy(), labels.loc["train"].to_numpy())
    test_part = Split(inputs.loc["test"].to_numpy(), labels.loc["test"].to_numpy())
    digests = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    scales = zip(columns, mean.tolist(), deviation.tolist(), strict=True)
    described = [
        {"column": name, "text": text if text is None else str(text), "mean": m, "deviation": d}
        for (name, text), m, d in scales
    ]
    class_names = [] if numeric else [str(name) for name in kinds.categories]
    return Dataset(train_part, test_part, digests, described, class_names)


def _is_numeric(column: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(column)


def _problems(train: pd.DataFrame, test: pd.DataFrame, label: str) -> Iterator[str]:
    """Yield reasons why no data set can be made of the tables; only the first is reliable."""
    for part, table in (("train", train), ("test", test)):
        if not len(table) or len(table.columns) < 2:
            rows, columns = table.shape
            yield f"the {part} table has {rows} rows and {columns} columns; it needs rows, and inputs"
        if (again := table.columns[table.columns.duplicated()]).size:
            yield f"column {again[0]} is there twice"
    for name in sorted(set(train) ^ set(test) | {label} - set(train), key=str):
        yield f"column {name} is not in both parts"
    both = pd.concat([train, test])
    for name in both:
        if gaps := both[name].isna().sum():
            yield f"column {name} has no value in {gaps} of {len(both)} rows"
        if _is_numeric(both[name]) and not np.isfinite(both[name].astype(np.complex128)).all():
            yield f"column {name} has infinite numbers"
        if pd.api.types.is_complex_dtype(both[name]):
            yield f"column {name} has complex numbers"
        if name != label and not _is_numeric(both[name]) and (what := _no_inputs(both[name])):
            yield f"column {name} has {what}"


def _no_inputs(column: pd.Series) -> str | None:
    """Why a column with text cannot become inputs; None if it can."""
    rows, text = len(column), column[pd.to_numeric(column, errors="coerce").isna()]
    if 0 < len(text) < rows / 2:
        return f"text in {len(text)} of {rows} rows ({text.iloc[0]}), else numbers"
    if (different := column.nunique()) > MOST_TEXTS or different == rows:
        most = f"{MOST_TEXTS} at most, and fewer than rows"
        return f"{different} different texts in {rows} rows, too many to be an input each ({most})"
    return None
