"""Labels of the tasks of a split: which values of a column are positive."""

from __future__ import annotations

import difflib

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lis_lightning.data.tables import missing_values, numbers_of
from lis_lightning.errors import LogError

_TRUTH = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}


def binary_labels(table: pl.DataFrame, label: str | tuple[str, float | str]) -> NDArray[np.int8]:
    """Return 0/1 labels of a column.

    Args:
        table: The log.
        label: A column of 0 and 1, as numbers, truth values or text; ``(column, threshold)`` for values at or above
            the threshold; or ``(column, text)`` for values equal to the text.

    Raises:
        LogError: If values are missing, are not binary and nothing says which are positive, or none is.
    """
    column, positive = (label, None) if isinstance(label, str) else label
    values = table[column]
    if isinstance(values.dtype, pl.Categorical | pl.Enum):
        values = values.cast(pl.String)
    missing = missing_values(values).sum()
    if missing:
        raise LogError(f"Label column {column!r} has {missing} missing values among {values.len()}; drop these rows.")
    if isinstance(positive, str):
        return _equal(values, positive)
    if positive is None and values.dtype == pl.String:
        values = _truth(values)
    elif values.dtype == pl.Boolean:
        values = values.cast(pl.Int8)
    values = numbers_of(values)
    if not values.dtype.is_numeric():
        raise LogError(f"Label column {column!r} must be numeric or boolean, got {values.dtype}.")
    if positive is not None:
        return (values >= positive).cast(pl.Int8).to_numpy()
    if not ((values == 0) | (values == 1)).all():
        distinct = values.unique().sort()
        more = "..." if distinct.len() > 6 else ""
        raise LogError(
            f"Label column {column!r} is not binary: it holds {distinct.to_list()[:6]}{more}. Say which values are "
            f'positive, as in label=("{column}", {distinct[distinct.len() // 2]}) for values at or above.'
        )
    return values.cast(pl.Int8).to_numpy()


def _equal(values: pl.Series, positive: str) -> NDArray[np.int8]:
    """Return which values are equal to a text."""
    labels = values.cast(pl.String) == positive
    if not labels.any():
        present = _most_frequent(values.cast(pl.String))
        matches = difflib.get_close_matches(positive, present, n=1)
        hint = f" Did you mean {matches[0]!r}?" if matches else ""
        raise LogError(f"No value of label column {values.name!r} is {positive!r}; it holds {present}.{hint}")
    return labels.cast(pl.Int8).to_numpy()


def _truth(values: pl.Series) -> pl.Series:
    """Return text such as "1" or "true" as 0 and 1; other numbers in text as numbers."""
    lower = values.str.to_lowercase()
    if lower.is_in(list(_TRUTH)).all():
        return lower.replace_strict(_TRUTH, return_dtype=pl.Int8)
    numbers = numbers_of(values)
    if numbers.dtype != pl.String:
        return numbers
    present = _most_frequent(values)
    raise LogError(
        f"Label column {values.name!r} is text: it holds {present}. Say which value is positive, as in "
        f'label=("{values.name}", "{present[-1]}").'
    )


def _most_frequent(values: pl.Series) -> list[str]:
    """Return up to six values, the most frequent first."""
    counts = values.value_counts(sort=True).to_series(0)
    return counts.head(6).to_list()
