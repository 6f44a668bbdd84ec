"""Input tables (files, globs, or tables of polars, pandas and pyarrow) as checked NumPy columns."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lis_lightning.errors import LogError

Table = Any  # polars, pandas or pyarrow table; only polars is a dependency, so the type cannot be named

# A unix timestamp of the years 1973 to 5138 falls into one of these ranges, by its unit.
_UNITS = (
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


def read_table(
    source: str | Path | Table, what: str = "interaction log", columns: Sequence[str] | None = None
) -> pl.DataFrame:
    """Return a table as a polars data frame.

    Args:
        source: Path or glob of parquet or CSV files, or a polars, pandas or pyarrow table.
        what: Name of the table in error messages.
        columns: Columns to read; None for all.

    Raises:
        LogError: If no file matches, the file type is unknown, a column is missing, or the object is not a table.
    """
    name = f"{what} {str(source)!r}" if isinstance(source, str | Path) else what
    frame = _scan(source, what)
    try:
        if columns is not None:
            require_columns(frame, columns, what)
            frame = frame.select(list(dict.fromkeys(columns)))
        return frame.lazy().collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise LogError(f"The {name} cannot be read: {error}") from error


def _scan(source: str | Path | Table, what: str) -> pl.DataFrame | pl.LazyFrame:
    """Return the table; files are scanned lazily, so only their schema is read."""
    if isinstance(source, str | Path):
        return _scan_files(str(source), what)
    if isinstance(source, pl.DataFrame | pl.LazyFrame):
        return source
    module = type(source).__module__.partition(".")[0]
    if module == "pandas":
        # Not `pl.from_pandas`: it needs pyarrow, which pandas users may not have.
        return pl.DataFrame({str(name): source[name].to_numpy() for name in source.columns}, strict=False)
    if module == "pyarrow":
        return pl.DataFrame(pl.from_arrow(source))
    raise LogError(
        f"Expected the {what} as a parquet or CSV path, a glob, or a polars, pandas or pyarrow table, "
        f"got {type(source).__name__}."
    )


def _scan_files(path: str, what: str) -> pl.LazyFrame:
    expanded = Path(path).expanduser()
    has_glob = any(mark in path for mark in "*?[")
    if not has_glob and expanded.is_dir():
        raise LogError(f"The {what} {path!r} is a folder; name a file or a glob, as in {path.rstrip('/')}/*.parquet.")
    if not has_glob and not expanded.is_file():
        raise LogError(f"The {what} {path!r} does not exist (working directory: {Path.cwd().name}/).")
    ending = expanded.suffix.lower()
    if ending in {".parquet", ".pq"}:
        return pl.scan_parquet(expanded)
    if ending in {".csv", ".tsv"}:
        return pl.scan_csv(expanded, separator="\t" if ending == ".tsv" else ",", try_parse_dates=True)
    raise LogError(f"Expected the {what} to end in .parquet, .csv or .tsv, got {path!r}.")


def require_columns(table: pl.DataFrame | pl.LazyFrame, columns: Sequence[str], what: str = "interaction log") -> None:
    """Raise a LogError for the first column missing from `table`, with the most similar name it has."""
    present = table.collect_schema().names()
    for column in columns:
        if column not in present:
            matches = difflib.get_close_matches(column, present, n=1, cutoff=0.5)
            hint = f" Did you mean {matches[0]!r}?" if matches else ""
            raise LogError(f"The {what} has no column {column!r}; it has {present}.{hint}")


def id_codes(table: pl.DataFrame, column: str) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Integer coding of an id column: the distinct ids, sorted, and the index of each row's id among them.

    Raises:
        LogError: If ids are missing, or are neither integers nor strings.
    """
    ids = table[column]
    missing = _missing(ids).arg_true()
    if missing.len():
        raise LogError(
            f"Column {column!r} has {missing.len()} missing ids, the first in row {missing[0]}; drop these rows or "
            "name them."
        )
    if not (ids.dtype.is_integer() or isinstance(ids.dtype, pl.String | pl.Categorical | pl.Enum)):
        raise LogError(f"Column {column!r} must hold integer or string ids, got {ids.dtype}.")
    if not ids.dtype.is_integer():
        ids = ids.cast(pl.String)
    distinct = ids.unique().sort()
    codes = pl.DataFrame({"id": ids}).join(
        pl.DataFrame({"id": distinct, "code": np.arange(distinct.len())}), on="id", how="left", maintain_order="left"
    )["code"]
    return distinct.to_numpy(), codes.to_numpy().astype(np.int64)


def binary_labels(table: pl.DataFrame, label: str | tuple[str, float]) -> NDArray[np.int8]:
    """Return 0/1 labels: a 0/1 or boolean column, or ``(column, threshold)`` for values at or above the threshold.

    Raises:
        LogError: If values are missing, or are not binary and no threshold is given.
    """
    column, threshold = (label, None) if isinstance(label, str) else label
    values = table[column]
    missing = _missing(values).sum()
    if missing:
        raise LogError(f"Label column {column!r} has {missing} missing values among {values.len()}; drop these rows.")
    if values.dtype == pl.Boolean:
        values = values.cast(pl.Int8)
    if not values.dtype.is_numeric():
        raise LogError(f"Label column {column!r} must be numeric or boolean, got {values.dtype}.")
    if threshold is not None:
        return (values >= threshold).cast(pl.Int8).to_numpy()
    distinct = values.unique().sort()
    if not distinct.is_in([0, 1]).all():
        more = "..." if distinct.len() > 6 else ""
        raise LogError(
            f"Label column {column!r} is not binary: it holds {distinct.to_list()[:6]}{more}. Say which values are "
            f'positive, as in label=("{column}", {distinct[distinct.len() // 2]}) for values at or above.'
        )
    return values.cast(pl.Int8).to_numpy()


def _missing(values: pl.Series) -> pl.Series:
    """Return which values are null or NaN."""
    return values.is_null() | values.is_nan() if values.dtype.is_float() else values.is_null()


def timestamps(table: pl.DataFrame, column: str) -> tuple[NDArray[Any], int | None]:
    """Return timestamps as numbers, and the number of their units in a day (None if the unit is unknown).

    Raises:
        LogError: If timestamps are missing, are text, or mix units such as seconds and milliseconds.
    """
    times = table[column]
    if times.dtype.is_temporal() and times.dtype not in {pl.Time, pl.Duration}:
        times, per_day = times.cast(pl.Datetime("us")).cast(pl.Int64), _PER_DAY["microseconds"]
    elif times.dtype.is_numeric():
        # One width for all sources, so that the hash of a split does not depend on how a file stores its numbers.
        kind, per_day = pl.Int64() if times.dtype.is_integer() else pl.Float64(), None
        times = times.cast(kind, strict=False)
    else:
        raise LogError(
            f"Time column {column!r} must be numeric or a date or datetime, got {times.dtype}; parse it first, as in "
            f"pl.col({column!r}).str.to_datetime()."
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
    return values, per_day


def _units_per_day(values: NDArray[Any], column: str) -> int | None:
    """Return the number of units in a day if all timestamps are in the range of one unix unit; None if most are not.

    Raises:
        LogError: If they are in the ranges of several units, or a minority is in none.
    """
    counts = {name: int(((values >= low) & (values < high)).sum()) for name, low, high in _UNITS}
    present = {name: count for name, count in counts.items() if count}
    if len(present) > 1:
        described = ", ".join(f"{count} values look like unix {name}" for name, count in present.items())
        raise LogError(f"Time column {column!r} mixes units: {described}. Bring all of them to one unit.")
    if not present:
        return None
    [(unit, count)] = present.items()
    outside = values.size - count
    if not outside:
        return _PER_DAY[unit]
    if outside < values.size / 2:
        too_small = values[values < _UNITS[0][1]]
        example = too_small[0] if too_small.size else values[0]
        raise LogError(
            f"Time column {column!r} mixes units: {count} values look like unix {unit}, {outside} (such as {example}) "
            "do not. Correct or drop them."
        )
    return None


def timestamp_like(edge: Any, time: NDArray[Any]) -> Any:
    """Return a window edge in the unit of the log's timestamps; datetimes and ISO strings become microseconds.

    Raises:
        LogError: If the edge is a date and the timestamps are not microseconds.
    """
    if isinstance(edge, str | datetime | date):
        moment = np.datetime64(edge, "us").astype(np.int64)
        if time.dtype.kind != "i" or not (1e14 <= np.abs(time).max() < 1e17):
            raise LogError(
                f"Window edge {edge!r} is a date, but the log's timestamps are numbers such as {time[0]}; give the "
                "edge in the same unit."
            )
        return moment
    return edge


def finite_logits(table: pl.DataFrame, column: str) -> NDArray[np.float64]:
    """Return a column of logits.

    Raises:
        LogError: If values are missing, not finite or not numbers.
    """
    return _finite_numbers(table, column, "Logit", "finite", advice="drop these rows or leave `base_logit` out")


def event_weights(table: pl.DataFrame, column: str) -> NDArray[np.float64]:
    """Return a column of non-negative event weights.

    Raises:
        LogError: If values are missing, not finite, negative or not numbers.
    """
    advice = f"drop these rows or give them a weight, as in pl.col({column!r}).fill_null(1.0).clip(0)"
    return _finite_numbers(table, column, "Weight", "finite non-negative", lowest=0.0, advice=advice)


def _finite_numbers(
    table: pl.DataFrame, column: str, name: str, expected: str, *, lowest: float = -math.inf, advice: str
) -> NDArray[np.float64]:
    """Return a column as float64, or raise a LogError if a value is not a finite number of at least `lowest`."""
    values = table[column]
    if not values.dtype.is_numeric():
        raise LogError(f"{name} column {column!r} must hold numbers, got {values.dtype}.")
    numbers = values.cast(pl.Float64).to_numpy()
    invalid = np.flatnonzero(~(np.isfinite(numbers) & (numbers >= lowest)))
    if invalid.size:
        raise LogError(
            f"{name} column {column!r} must hold {expected} numbers, got {invalid.size} values that are not, the first "
            f"in row {invalid[0]} ({values[int(invalid[0])]}); {advice}."
        )
    return numbers


@dataclass(frozen=True)
class Categories:
    """A categorical column as integer codes.

    Attributes:
        codes: Index into `names`, [num_rows].
        names: Distinct values as text, sorted; a missing value is ``(none)``.
    """

    codes: NDArray[np.int64]
    names: NDArray[Any]


def categories(table: pl.DataFrame, column: str) -> Categories:
    """Return the values of a categorical column: text, integers, booleans or categoricals.

    Raises:
        LogError: If it holds something else.
    """
    values = table[column]
    if not (values.dtype.is_integer() or isinstance(values.dtype, pl.String | pl.Categorical | pl.Enum | pl.Boolean)):
        raise LogError(
            f"Slice column {column!r} must be categorical (text, integers, booleans), got {values.dtype}; cut numbers "
            f"into ranges first, as in pl.col({column!r}).cut([1, 10])."
        )
    text = values.cast(pl.String).fill_null("(none)").alias("slice").to_frame()
    names, codes = id_codes(text, "slice")
    return Categories(codes, names)
