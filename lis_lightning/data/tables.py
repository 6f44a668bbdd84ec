"""Interaction logs as they come (files, globs, tables of three libraries) into columns that can be trusted."""

from __future__ import annotations

import difflib
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
    """Read a parquet or CSV path or glob, or take a polars, pandas or pyarrow table.

    Args:
        source: Path, glob, or table.
        what: Name of the table in error messages.
        columns: The only columns that are read; None for all.

    Raises:
        LogError: If nothing matches, the ending is unknown, a column is missing, or the object is no table.
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
    """Return the table; of files nothing but the schema is read yet."""
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
    """Raise LogError for the first column that `table` lacks, with the nearest name it has."""
    present = table.collect_schema().names()
    for column in columns:
        if column not in present:
            near = difflib.get_close_matches(column, present, n=1, cutoff=0.5)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise LogError(f"The {what} has no column {column!r}; it has {present}.{hint}")


def id_codes(table: pl.DataFrame, column: str) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the distinct ids of a column in sorted order, and the index of each row's id among them.

    Raises:
        LogError: If ids are missing, or are neither integers nor strings.
    """
    ids = table[column]
    if ids.null_count() or (ids.dtype.is_float() and ids.is_nan().any()):
        rows = ids.is_null().arg_true() if ids.null_count() else ids.is_nan().arg_true()
        raise LogError(
            f"Column {column!r} has {rows.len()} missing ids, the first in row {rows[0]}; drop these rows or name them."
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
    if values.null_count() or (values.dtype.is_float() and values.is_nan().any()):
        missing = values.null_count() + (int(values.is_nan().sum() or 0) if values.dtype.is_float() else 0)
        raise LogError(f"Label column {column!r} has {missing} missing values among {values.len()}; drop these rows.")
    if values.dtype == pl.Boolean:
        values = values.cast(pl.Int8)
    if not values.dtype.is_numeric():
        raise LogError(f"Label column {column!r} must be numeric or boolean, got {values.dtype}.")
    if threshold is not None:
        return (values >= threshold).cast(pl.Int8).to_numpy()
    distinct = values.unique().sort()
    if not distinct.is_in([0, 1]).all():
        shown = distinct.to_list()[:6]
        raise LogError(
            f"Label column {column!r} is not binary: it holds {shown}{'...' if distinct.len() > 6 else ''}. Say which "
            f'values are positive, as in label=("{column}", {distinct.to_list()[distinct.len() // 2]}) for values at '
            "or above."
        )
    return values.cast(pl.Int8).to_numpy()


def timestamps(table: pl.DataFrame, column: str) -> tuple[NDArray[Any], int | None]:
    """Return sortable timestamps, and how many of their units make a day (None if the unit is unknown).

    Raises:
        LogError: If timestamps are missing, are text, or mix units (seconds and milliseconds, say).
    """
    times = table[column]
    if times.dtype.is_temporal() and times.dtype not in {pl.Time, pl.Duration}:
        times, per_day = times.cast(pl.Datetime("us")).cast(pl.Int64), _PER_DAY["microseconds"]
    elif times.dtype.is_numeric():
        # One width for all sources: a hash must not depend on how a file stores its numbers.
        kind, per_day = pl.Int64() if times.dtype.is_integer() else pl.Float64(), None
        times = times.cast(kind, strict=False)
    else:
        raise LogError(
            f"Time column {column!r} must be numeric or a date or datetime, got {times.dtype}; parse it first, as in "
            f"pl.col({column!r}).str.to_datetime()."
        )
    bad = times.is_null() if not times.dtype.is_float() else times.is_null() | ~times.is_finite()
    if bad.any():
        raise LogError(
            f"Time column {column!r} has {bad.sum()} missing or non-finite timestamps, the first in row "
            f"{bad.arg_true()[0]}; drop these rows."
        )
    values = times.to_numpy()
    if per_day is None:
        per_day = _units_per_day(values, column)
    return values, per_day


def _units_per_day(values: NDArray[Any], column: str) -> int | None:
    """Return how many units make a day if all timestamps look like one unix unit; raise if they look like several."""
    counts = {name: int(((values >= low) & (values < high)).sum()) for name, low, high in _UNITS}
    present = {name: count for name, count in counts.items() if count}
    if len(present) > 1:
        raise LogError(
            f"Time column {column!r} mixes units: "
            + ", ".join(f"{count} values look like unix {name}" for name, count in present.items())
            + ". Bring all of them to one unit."
        )
    if sum(present.values()) == values.size and present:
        return _PER_DAY[next(iter(present))]
    odd = values.size - sum(present.values())
    if present and odd < values.size / 2:
        raise LogError(
            f"Time column {column!r} mixes units: {sum(present.values())} values look like unix "
            f"{next(iter(present))}, {odd} (such as {values[values < 1e8][0] if (values < 1e8).any() else values[0]}) "
            "do not. Correct or drop them."
        )
    return None


def timestamp_like(edge: Any, time: NDArray[Any]) -> Any:
    """Return a window edge in the unit of the log's timestamps; datetimes and ISO strings become microseconds."""
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
    values = table[column]
    if not values.dtype.is_numeric():
        raise LogError(f"Column {column!r} must hold the ranker's logits as numbers, got {values.dtype}.")
    logits = values.cast(pl.Float64).to_numpy()
    bad = ~np.isfinite(logits)
    if bad.any():
        raise LogError(
            f"Column {column!r} has {int(bad.sum())} missing or non-finite logits, the first in row "
            f"{int(np.flatnonzero(bad)[0])}; drop these rows or leave `base_logit` out."
        )
    return logits


def event_weights(table: pl.DataFrame, column: str) -> NDArray[np.float64]:
    """Return a column of non-negative event weights.

    Raises:
        LogError: If values are missing, not finite, negative or not numbers.
    """
    values = table[column]
    if not values.dtype.is_numeric():
        raise LogError(f"Weight column {column!r} must hold numbers, got {values.dtype}.")
    weights = values.cast(pl.Float64).to_numpy()
    bad = ~(np.isfinite(weights) & (weights >= 0))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise LogError(
            f"Weight column {column!r} must hold non-negative numbers, got {int(bad.sum())} that are missing, negative "
            f"or not finite, the first in row {row} ({values[row]}); drop these rows or give them a weight, as in "
            f"pl.col({column!r}).fill_null(1.0).clip(0)."
        )
    return weights


@dataclass(frozen=True)
class Categories:
    """A column with few or many distinct values.

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
