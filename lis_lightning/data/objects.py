"""Columns of Python objects and of pandas as polars columns, without pyarrow."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from lis_lightning.errors import LogError


def from_pandas(frame: Any) -> pl.DataFrame:
    """Return a pandas data frame as a polars one.

    This does not use ``pl.from_pandas``, which needs pyarrow.

    Raises:
        LogError: If a column mixes types, or two columns share a name.
    """
    repeated = frame.columns[frame.columns.duplicated()]
    if len(repeated):
        raise LogError(f"The table has column {str(repeated[0])!r} more than once; rename one of them.")
    return pl.DataFrame([_pandas_column(str(name), frame[name]) for name in frame.columns])


def _pandas_column(name: str, values: Any) -> pl.Series:
    """Return a pandas series as a polars one; datetimes with a time zone in UTC, missing values as null."""
    if hasattr(values, "dt") and getattr(values.dt, "tz", None) is not None:
        values = values.dt.tz_convert("UTC").dt.tz_localize(None)
    elif str(values.dtype).startswith("period"):
        values = values.dt.to_timestamp()
    missing = values.isna().to_numpy()
    is_nullable = not isinstance(values.dtype, np.dtype)
    # As an array, nullable integers with a missing one would become floats and lose digits.
    array = values.to_numpy(dtype=object) if is_nullable and missing.any() else values.to_numpy()
    if array.dtype.kind != "O":
        return pl.Series(name, array)
    return plain_column(name, [None if absent else value for value, absent in zip(array, missing, strict=True)])


def plain_column(name: str, values: Sequence[Any]) -> pl.Series:
    """Return Python objects as a column of the type they share; UUIDs, and integers among text, become text.

    Raises:
        LogError: If they have no type in common.

    Example:
        >>> plain_column("id", [7, None, "07"]).to_list()
        ['7', None, '07']
    """
    kinds = {type(value) for value in values if value is not None}
    if kinds and all(issubclass(kind, uuid.UUID) for kind in kinds):
        return pl.Series(name, [None if value is None else str(value) for value in values], dtype=pl.String)
    if kinds == {int, str}:
        # Pandas reads a long column in chunks, each with its own type.
        return pl.Series(name, [None if value is None else str(value) for value in values], dtype=pl.String)
    try:
        return pl.Series(name, values, strict=True)
    except (TypeError, pl.exceptions.PolarsError, OverflowError) as error:
        names = sorted(kind.__name__ for kind in kinds)
        raise LogError(
            f"Column {name!r} holds values of {', '.join(names)}, which share no type; convert it."
        ) from error
