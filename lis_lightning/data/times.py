"""Timestamps of a log as numbers of one unit: unix time, calendar digits, dates and datetimes, or text."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lis_lightning.data.text_columns import typed
from lis_lightning.errors import ConfigError, LogError

Time = str | tuple[str, str]

# A unix timestamp of the years 1973 to 5138 falls into one of these ranges, by its unit.
UNITS = (
    ("seconds", 1e8, 1e11),
    ("milliseconds", 1e11, 1e14),
    ("microseconds", 1e14, 1e17),
    ("nanoseconds", 1e17, 1e20),
)
_PER_DAY = {
    "seconds": 86_400,
    "milliseconds": 86_400_000,
    "microseconds": 86_400_000_000,
    "nanoseconds": 86_400 * 10**9,
}
_FIRST_FILLED, _LAST_FILLED = datetime(1902, 1, 1), datetime(5138, 1, 1)
# Digits of a moment such as 20260131235959, by their number.
_CALENDARS = {8: "%Y%m%d", 10: "%Y%m%d%H", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
_FIRST_YEAR, _LAST_YEAR = 1970, 2100
_SLASHED = r"^\s*(\d{1,2})[/.-](\d{1,2})[/.-](\d{4}|\d{2})"


def time_column(time: Time) -> str:
    """Return the column of a time that is given as a column, or as a column and a format."""
    return time if isinstance(time, str) else time[0]


def timestamps(table: pl.DataFrame, time: Time) -> tuple[NDArray[Any], int | None]:
    """Return timestamps as numbers, and the number of their units in a day (None if the unit is unknown).

    Args:
        table: The log.
        time: Column of numbers of one unit, of dates or datetimes, or of text in an unambiguous format; or the column
            and the format of its text, as in ``("time", "%m/%d/%Y")``.

    Raises:
        LogError: If timestamps are missing, are in a format that is not known or ambiguous, or mix units such as
            seconds and milliseconds.
    """
    column = time_column(time)
    times = table[column]
    if not isinstance(time, str):
        times = _in_format(times, time[1])
    if isinstance(times.dtype, pl.String | pl.Categorical | pl.Enum):
        times = _parsed(times.cast(pl.String))
    if isinstance(times.dtype, pl.Decimal):
        times = _from_decimals(times)
    if times.dtype.is_integer():
        times = _from_calendar_digits(times)
    if isinstance(times.dtype, pl.Date | pl.Datetime):
        times, per_day = times.cast(pl.Datetime("us")).cast(pl.Int64), _PER_DAY["microseconds"]
    elif times.dtype.is_numeric():
        # One width for all sources, so that the hash of a split does not depend on how a file stores its numbers.
        kind, per_day = pl.Int64() if times.dtype.is_integer() else pl.Float64(), None
        times = times.cast(kind, strict=False)
    else:
        raise LogError(
            f"Time column {column!r} must hold moments: numbers, dates or datetimes, got {times.dtype}"
            + ("; add the day at which each began." if isinstance(times.dtype, pl.Duration | pl.Time) else ".")
        )
    invalid = (times.is_null() | ~times.is_finite()).arg_true()
    if invalid.len():
        raise LogError(
            f"Time column {column!r} has {invalid.len()} missing or non-finite timestamps, the first in row "
            f"{invalid[0]}; drop these rows."
        )
    values = times.to_numpy()
    if per_day is None:
        per_day = _units_per_day(values, column)
    else:
        _check_filled(values, column)
    return values, per_day


def _in_format(values: pl.Series, time_format: str) -> pl.Series:
    """Return text, or numbers that are digits, as datetimes of a format."""
    text = values.cast(pl.String)
    with_zone = any(code in time_format for code in ("%z", "%Z", "%:z", "%#z", "%+"))
    with_time = any(code in time_format for code in ("%H", "%I", "%T", "%R", "%s", "%X", "%c", "%+"))
    try:
        if with_zone:
            moments = text.str.to_datetime(time_format, time_unit="us", time_zone="UTC", strict=False)
        elif with_time:
            moments = text.str.to_datetime(time_format, time_unit="us", strict=False)
        else:
            moments = text.str.to_date(time_format, strict=False)
    except pl.exceptions.PolarsError as error:
        raise LogError(f"The format {time_format!r} of time column {values.name!r} cannot be used: {error}") from error
    unfit = (moments.is_null() & text.is_not_null()).arg_true()
    if unfit.len():
        raise LogError(
            f"Time column {values.name!r} has {unfit.len()} values that are not in the format {time_format!r}, the "
            f"first in row {unfit[0]} ({text[unfit[0]]!r})."
        )
    return moments


def _parsed(text: pl.Series) -> pl.Series:
    """Return text as numbers or datetimes.

    Raises:
        LogError: If the order of day and month is ambiguous, or no format is known.
    """
    values = typed(text)
    if values.dtype != pl.String:
        return values
    parts = text.str.extract_groups(_SLASHED)
    first, second, year = (parts.struct.field(name).cast(pl.Int64) for name in ("1", "2", "3"))
    if text.null_count() == text.len() or first.null_count() > text.null_count() or (year < 100).any():
        raise _format_needed(text, "is text in a format that is not known for certain")
    day_first, month_first = bool((first > 12).any()), bool((second > 12).any())
    if day_first and month_first:
        raise _format_needed(text, "has the day before the month in some rows and behind it in others")
    if not day_first and not month_first:
        raise _format_needed(text, "is ambiguous: no day is above 12, so that days and months cannot be told apart")
    parsed = _known_time_of_day(text, "%d/%m/%Y" if day_first else "%m/%d/%Y")
    if parsed is None:
        raise _format_needed(text, "is text in a format that is not known for certain")
    return parsed


def _known_time_of_day(text: pl.Series, day: str) -> pl.Series | None:
    """Return text as datetimes of the format of the day, with or without a time of day; None if none fits."""
    slashes = text.str.strip_chars().str.replace(_SLASHED, "${1}/${2}/${3}")
    for time_of_day in ("", " %H:%M", " %H:%M:%S", " %H:%M:%S%.f", " %I:%M %p", " %I:%M:%S %p"):
        if time_of_day:
            moments = slashes.str.to_datetime(day + time_of_day, time_unit="us", strict=False)
        else:
            moments = slashes.str.to_date(day, strict=False)
        if moments.null_count() == text.null_count():
            return moments
    return None


def _format_needed(text: pl.Series, problem: str) -> LogError:
    example = text.drop_nulls()
    shown = f" ({example[0]!r})" if example.len() else ""
    return LogError(
        f"Time column {text.name!r} {problem}{shown}; give its format, as in time=({text.name!r}, '%m/%d/%Y %H:%M:%S')."
    )


def _from_decimals(times: pl.Series) -> pl.Series:
    """Return decimals as integers where they are, else as floats."""
    integers = times.cast(pl.Int64, strict=False)
    return integers if (integers.cast(pl.Float64) == times.cast(pl.Float64)).all() else times.cast(pl.Float64)


def _from_calendar_digits(times: pl.Series) -> pl.Series:
    """Return integers such as 20260131235959 as datetimes if all are such digits; all others as they are.

    As unix seconds or milliseconds they would be a moment far away, and months would be of seconds.
    """
    if not times.len() or times.null_count() == times.len():
        return times
    if not are_calendar_digits(times.min(), times.max()):
        return times
    digits = len(str(times.max()))
    # Polars parses hours without minutes in no format.
    text = times.cast(pl.String) + ("00" if digits == 10 else "")
    if digits == 8:
        moments = text.str.to_date("%Y%m%d", strict=False).cast(pl.Datetime("us"))
    else:
        moments = text.str.to_datetime(_CALENDARS[max(digits, 12)], time_unit="us", strict=False)
    return moments if moments.null_count() == times.null_count() else times


def filled_range() -> tuple[int, int, int]:
    """Return a day, the first and the last moment of a log, in microseconds: others stand for a missing moment."""
    first, last = (int(np.datetime64(edge, "us").astype(np.int64)) for edge in (_FIRST_FILLED, _LAST_FILLED))
    # A day to either side of the epoch, since it may have been written in another time zone.
    return _PER_DAY["microseconds"], first, last


def _check_filled(values: NDArray[np.int64], column: str) -> None:
    day, first, last = filled_range()
    filled = (np.abs(values) <= day) | (values < first) | (values >= last)
    example = ""
    if filled.any():
        moment = np.datetime64(int(values[filled][0]), "us").astype("datetime64[s]")
        example = f" such as {moment}, the first in row {int(np.argmax(filled))},"
    check_filled(int(filled.sum()), values.size, column, example)


def check_filled(count: int, size: int, column: str, example: str = "") -> None:
    """Raise a LogError if a minority of datetimes are such as stand for a missing one: 1970-01-01, 1900, 9999."""
    if 0 < count < size / 2:
        kinds = example or " of 1970-01-01, before 1902 or after 5138,"
        raise LogError(
            f"Time column {column!r} has {count} of {size} timestamps{kinds} which stand for missing ones. Correct or "
            "drop them."
        )


def _units_per_day(values: NDArray[Any], column: str) -> int | None:
    counts = {name: int(((values >= low) & (values < high)).sum()) for name, low, high in UNITS}
    return units_per_day(counts, values.size, column, values.min())


def units_per_day(counts: Mapping[str, int], size: int, column: str, smallest: Any) -> int | None:
    """Return the number of units in a day if all timestamps are in the range of one unix unit; None if most are not.

    Args:
        counts: Number of timestamps in the range of each unit.
        size: Number of timestamps.
        column: Their column.
        smallest: The smallest timestamp.

    Raises:
        LogError: If they are in the ranges of several units, or a minority is in none.
    """
    present = {name: count for name, count in counts.items() if count}
    if len(present) > 1:
        described = ", ".join(f"{count} values look like unix {name}" for name, count in present.items())
        raise LogError(f"Time column {column!r} mixes units: {described}. Bring all of them to one unit.")
    if not present:
        return None
    [(unit, count)] = present.items()
    outside = size - count
    if not outside:
        return _PER_DAY[unit]
    if outside < size / 2:
        raise LogError(
            f"Time column {column!r} mixes units: {count} values look like unix {unit}, {outside} (such as {smallest}) "
            "do not. Correct or drop them."
        )
    return None


def are_calendar_digits(first: Any, last: Any) -> bool:
    """Return whether integers from `first` to `last` may be digits such as 20260131235959."""
    digits = len(str(last))
    scale = 10 ** (digits - 4)
    return digits in _CALENDARS and _FIRST_YEAR * scale <= first and last < (_LAST_YEAR + 1) * scale


def timestamp_like(edge: Any, time: NDArray[Any]) -> Any:
    """Return a window edge in the unit of the log's timestamps; datetimes and ISO strings become microseconds.

    Raises:
        ConfigError: If the edge is neither a number, nor a date, nor text of the form of ISO 8601.
        LogError: If the edge is a date and the timestamps are not microseconds.
    """
    if not isinstance(edge, str | datetime | date | int | float | np.generic):
        raise ConfigError(f"Expected numbers, dates or text such as '2026-01-31' in `windows`, got {edge!r}.")
    if isinstance(edge, str | datetime | date | np.datetime64):
        given: Any = edge
        try:
            moment = np.datetime64(given, "us").astype(np.int64)
        except ValueError as error:
            raise ConfigError(f"Expected a date such as '2026-01-31' in `windows`, got {edge!r}.") from error
        if time.dtype.kind != "i" or not (1e14 <= np.abs(time).max() < 1e17):
            raise LogError(
                f"Window edge {edge!r} is a date, but the log's timestamps are numbers such as {time[0]}; give the "
                "edge in the same unit."
            )
        return moment
    return edge
