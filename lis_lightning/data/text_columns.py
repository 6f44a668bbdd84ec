"""Types of the columns of text files, decided on whole columns: no value is changed by the type of its column."""

from __future__ import annotations

import polars as pl

# As numbers these would lose leading zeros, signs or digits, or merge with another text.
_NOT_A_NUMBER = r"^\+|^-?0\d|^-0$|^\d+[eE]\d+$|^-?\d{16,}$|^\s|\s$"
_INTEGRAL = r"^-?(0|[1-9]\d{0,14})(\.0+)?$"
_YEAR_FIRST = r"^\d{4}[-/]\d{2}[-/]\d{2}"


def typed(values: pl.Series) -> pl.Series:
    """Return a column of text as integers, floats, booleans, dates or datetimes if all of its values are, else as text.

    Args:
        values: Text; null is a missing value.

    Example:
        >>> typed(pl.Series(["7", "10"])).to_list(), typed(pl.Series(["07", "10"])).to_list()
        ([7, 10], ['07', '10'])
    """
    if values.null_count() == values.len():
        return values
    integers = _integers(values)
    if integers is not None:
        return integers
    floats = values.cast(pl.Float64, strict=False)
    if floats.null_count() == values.null_count() and not values.str.contains(_NOT_A_NUMBER).any():
        return floats
    if values.is_in(["true", "false"]).all():
        return values == "true"
    if values.str.contains(_YEAR_FIRST).all():
        return _moments(values)
    return values


def typed_ids(values: pl.Series) -> pl.Series:
    """Return a column of ids as integers if all are written as Python writes them (or as 7.0), else as text.

    Example:
        >>> typed_ids(pl.Series(["7.0", "10.0"])).to_list(), typed_ids(pl.Series(["1e5", "10"])).to_list()
        ([7, 10], ['1e5', '10'])
    """
    integers = _integers(values)
    if integers is not None:
        return integers
    if values.null_count() < values.len() and values.str.contains(_INTEGRAL).all():
        # Pandas writes integer ids as floats if one is missing.
        return values.str.replace(r"\.0+$", "").cast(pl.Int64)
    return values


def _integers(values: pl.Series) -> pl.Series | None:
    """Return text as 64-bit integers if that loses nothing, such as a leading zero."""
    integers = values.cast(pl.Int64, strict=False)
    if integers.null_count() > values.null_count() or values.null_count() == values.len():
        return None
    return integers if (integers.cast(pl.String) == values).all() else None


def _moments(values: pl.Series) -> pl.Series:
    """Return dates and datetimes, the year first; those with an offset in UTC. Text that is none stays as it is."""
    given, values = values, values.str.replace(r"^(\d{4})/(\d{2})/", "${1}-${2}-")
    if (values.str.len_bytes() == len("2026-01-31")).all():
        moments = values.str.to_date("%Y-%m-%d", strict=False)
    else:
        try:
            moments = values.str.to_datetime(time_unit="us", strict=False)
        except pl.exceptions.ComputeError:  # no format fits
            return given
    return moments if moments.null_count() == given.null_count() else given
