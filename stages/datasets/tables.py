"""Data sets that are tables, such as CSV files.

A function of the raw folder reads two tables and returns `from_tables(train, test, "label", *files)`; with
its entry in `DATASETS` of catalog.py, `python -m stages.prepare` tries it.
"""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd

from stages.base.console import UserError, say
from stages.base.splits import Split
from stages.datasets.dataset import Dataset

MOST_TEXTS = 100  # in a column, each of which becomes an input


def from_tables(
    train: pd.DataFrame, test: pd.DataFrame, label: str, *files: Path, classes: bool = False
) -> Dataset:
    """Return the data set of two tables with the same columns, read from `files`; `label` is what to predict.

    Labels that are text or booleans are classes, numbered in order; numbers are numbers, unless they are said
    to be `classes`. In other columns, each text becomes an input of 0 and 1; all are standardised by the mean
    and standard deviation of `train`.

    Raises:
        UserError: a column is not in both tables, lacks a value, has text among its numbers, or has too many
            different texts, as an id or a date does.
    """
    both = pd.concat({"train": train, "test": test})
    rows, gaps = len(both), both.isna().sum()
    unpaired = sorted(set(train) ^ set(test) | {label} - set(both))
    problems = [f"column {name} is not in both parts" for name in unpaired]
    problems += [f"column {name} has no value in {n} of {rows} rows" for name, n in gaps.items() if n]
    others = [name for name in both if name != label]
    texts = [name for name in others if not pd.api.types.is_numeric_dtype(both[name])]
    problems += [f"column {name} has {what}" for name in texts if (what := _no_inputs(both[name]))]
    if problems:
        names = ", ".join(map(str, files))
        raise UserError(f"{names}: {problems[0]}; mend the file, or leave out the column or those rows")
    columns = [(name, None) for name in others if name not in texts]
    columns += [(name, text) for name in texts for text in sorted(both[name].unique())]
    values = {(name, text): both[name] if text is None else both[name] == text for name, text in columns}
    inputs, labels = pd.concat(values, axis=1).astype(np.float64), both[label]
    mean, deviation = inputs.loc["train"].mean(), inputs.loc["train"].std(ddof=0).replace(0, 1)
    inputs = ((inputs - mean) / deviation).astype(np.float32)
    numeric = pd.api.types.is_numeric_dtype(labels) and not pd.api.types.is_bool_dtype(labels) and not classes
    if numeric and labels.nunique() == 2:
        both_are = " and ".join(f"{value:g}" for value in sorted(labels.unique()))
        way_out = "with classes=True, `from_tables` takes it for classes"
        say(f"{label} is only {both_are}, and taken for a number; {way_out}")
    kinds = labels.astype("category").cat
    labels = labels.astype(np.float32) if numeric else kinds.codes.astype(np.int32)
    train_part = Split(inputs.loc["train"].to_numpy(), labels.loc["train"].to_numpy())
    test_part = Split(inputs.loc["test"].to_numpy(), labels.loc["test"].to_numpy())
    digests = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    scales = zip(columns, mean.tolist(), deviation.tolist(), strict=True)
    described = [{"column": name, "text": text, "mean": m, "deviation": d} for (name, text), m, d in scales]
    class_names = [] if numeric else [str(name) for name in kinds.categories]
    return Dataset(train_part, test_part, digests, described, class_names)


def _no_inputs(column: pd.Series) -> str | None:
    """What a column with text has that cannot become inputs; None if it can."""
    rows, text = len(column), column[pd.to_numeric(column, errors="coerce").isna()]
    if 0 < len(text) < rows / 2:
        return f"text in {len(text)} of {rows} rows ({text.iloc[0]}), else numbers"
    if (different := column.nunique()) > MOST_TEXTS or different == rows:
        most = f"{MOST_TEXTS} at most, and fewer than rows"
        return f"{different} different texts in {rows} rows, too many to be an input each ({most})"
    return None
