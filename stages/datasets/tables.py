"""Data sets that are tables, such as CSV files.

To add one, write a function that takes the folder of raw files, reads two tables and returns
`from_tables(train, test, "label", *files)`, and name it in `DATASETS` of catalog.py. Then
`python -m stages.prepare` reads it.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from stages.base.console import UserError, say
from stages.base.splits import Split
from stages.datasets.dataset import Dataset

MOST_TEXTS = 100  # distinct texts in a column; each becomes an input


def from_tables(
    train: pd.DataFrame, test: pd.DataFrame, label: str, *files: Path, classes: bool = False
) -> Dataset:
    """Return the data set of two tables with the same columns, read from `files`.

    Column `label` is what to predict. Text and booleans are classes, numbered in sorted order; numbers are
    predicted as numbers unless `classes` is true. The other columns are inputs. Text is one-hot encoded, with
    an input for each distinct text of `train`. All inputs are standardised by the mean and standard deviation
    of `train`.

    Raises:
        UserError: a column is not in both tables, lacks a value, has text among its numbers, or has too many
            distinct texts, as an id or a date does.
    """
    if problem := next(_problems(train, test, label), None):
        names = ", ".join(map(str, files)) or "the tables"
        raise UserError(f"{names}: {problem}; fix the file, or leave out the column or those rows")
    both = pd.concat({"train": train, "test": test})
    others = [name for name in both if name != label]
    columns: list[tuple[str, str | None]] = []
    for name in sorted(others, key=lambda name: not _is_numeric(both[name])):  # numbers first
        texts = [None] if _is_numeric(both[name]) else sorted(train[name].unique(), key=str)
        columns += [(name, text) for text in texts]
        if unknown := set(test[name]) - set(train[name]) if None not in texts else set():
            text = min(unknown, key=str)
            say(f"note: column {name} has {text} in the test part only; no input represents it")
    values = {(name, text): both[name] if text is None else both[name] == text for name, text in columns}
    inputs, labels = pd.concat(values, axis=1).astype(np.float64), both[label]
    mean, deviation = inputs.loc["train"].mean(), inputs.loc["train"].std(ddof=0)
    deviation = deviation.where(deviation > 1e-9 * mean.abs(), 1.0)  # 0, up to rounding, if constant
    inputs = ((inputs - mean) / deviation).astype(np.float32)
    numeric = _is_numeric(labels) and not pd.api.types.is_bool_dtype(labels) and not classes
    if numeric and labels.nunique() == 2:
        both_are = " and ".join(f"{value:g}" for value in sorted(labels.unique()))
        advice = "pass classes=True to `from_tables` to treat it as classes"
        say(f"note: label {label} is only {both_are}, and treated as a number; {advice}")
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
    """Yield the reasons why the tables cannot become a data set; only the first is reliable."""
    for part, table in (("train", train), ("test", test)):
        if not len(table) or len(table.columns) < 2:
            rows, columns = table.shape
            yield f"the {part} table has {rows} rows and {columns} columns; it needs rows, and inputs"
        if (duplicated := table.columns[table.columns.duplicated()]).size:
            yield f"column {duplicated[0]} appears twice"
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
        if name != label and not _is_numeric(both[name]) and (problem := _text_problem(both[name])):
            yield f"column {name} has {problem}"


def _text_problem(column: pd.Series) -> str | None:
    """Return why a column with text cannot become inputs; None if it can."""
    rows, text = len(column), column[pd.to_numeric(column, errors="coerce").isna()]
    if 0 < len(text) < rows / 2:
        return f"text in {len(text)} of {rows} rows ({text.iloc[0]}), else numbers"
    if (different := column.nunique()) > MOST_TEXTS or different == rows:
        most = f"{MOST_TEXTS} at most, and fewer than rows"
        return f"{different} different texts in {rows} rows, too many to be an input each ({most})"
    return None
