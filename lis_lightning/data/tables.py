"""Input tables (files, or tables of polars, pandas and Arrow), and their id, number and category columns as arrays."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lis_lightning.data.files import Scan, scan_files
from lis_lightning.data.objects import from_pandas, plain_column
from lis_lightning.data.text_columns import typed, typed_ids
from lis_lightning.errors import ConfigError, LogError

# A path, a list of paths, or a table: only polars is a dependency, so the types cannot be named.
Table = Any
_EXACT = 2**53  # integers up to here are exact as float64


class InputTable:
    """A table whose column names are read, and whose rows are read on demand.

    Args:
        source: Path, list of paths, folder, glob or URL of files, or a polars, pandas or Arrow table.
        what: Name of the table in error messages.
        names: Names of the columns of text files without a header.

    Raises:
        LogError: If no file matches, the file type is unknown, or the object is not a table.
        ConfigError: If `names` are given for a table that has names.
    """

    def __init__(
        self, source: str | Path | Table, what: str = "interaction log", names: Sequence[str] | None = None
    ) -> None:
        self._what = what
        self._name = f"{what} {str(source)!r}" if isinstance(source, str | Path) else what
        try:
            self._scan = _scan(source, what, names)
            self.columns = self._scan.frame.collect_schema().names()
        except (pl.exceptions.PolarsError, OSError) as error:
            raise self._unreadable(error) from error

    @property
    def parquet(self) -> tuple[str, ...]:
        """The files of the table, if they are parquet on a local or mounted disk."""
        return self._scan.parquet

    @property
    def keys(self) -> pl.DataFrame | None:
        """Path and Hive keys of each file; None without keys."""
        return self._scan.keys

    def num_rows(self) -> int:
        """Return the number of rows, without reading them where the files say it."""
        return int(self._scan.frame.select(pl.len()).collect().item())

    def read(self, columns: Sequence[str] | None = None, ids: Sequence[str] = ()) -> pl.DataFrame:
        """Return the rows.

        Args:
            columns: Columns to read; None for all.
            ids: Those that are ids: in text files they are read as integers or text, never as other numbers.

        Raises:
            LogError: If a column is missing, or a file cannot be read.
        """
        chosen = list(dict.fromkeys(self.columns if columns is None else columns))
        require_columns(self.columns, chosen, self._what)
        try:
            table = self._collect(chosen)
        except (pl.exceptions.PolarsError, OSError, UnicodeError) as error:
            raise self._unreadable(error) from error
        decided = []
        for column in table:
            if column.dtype == pl.Object:
                decided.append(plain_column(column.name, column.to_list()))
            elif column.name in self._scan.text_columns:
                decided.append(typed_ids(column) if column.name in ids else typed(column))
        return table.with_columns(decided)

    def _collect(self, columns: Sequence[str]) -> pl.DataFrame:
        try:
            return self._scan.frame.select(columns).collect()
        except pl.exceptions.ComputeError as error:
            if self._scan.decoded is None or "utf-8" not in str(error).lower():
                raise
            return self._scan.decoded().select(columns).collect()

    def _unreadable(self, error: Exception) -> LogError:
        # Only the first line: polars goes on with advice on arguments of its own.
        reason = str(error).strip().partition("\n")[0]
        return LogError(f"The {self._name} cannot be read: {reason}")


def read_table(
    source: str | Path | Table,
    what: str = "interaction log",
    columns: Sequence[str] | None = None,
    *,
    ids: Sequence[str] = (),
) -> pl.DataFrame:
    """Return a table as a polars data frame.

    Args:
        source: Path, list of paths, folder, glob or URL of files, or a polars, pandas or Arrow table.
        what: Name of the table in error messages.
        columns: Columns to read; None for all.
        ids: Those that are ids: in text files they are read as integers or text, never as other numbers.

    Raises:
        LogError: If no file matches, the file type is unknown, a column is missing, or the object is not a table.
    """
    return InputTable(source, what).read(columns, ids)


def _scan(source: str | Path | Table, what: str, names: Sequence[str] | None) -> Scan:
    """Return the table; files are scanned lazily, so only their schema is read."""
    is_list = isinstance(source, list | tuple) and all(isinstance(path, str | Path) for path in source)
    if isinstance(source, str | Path) or is_list:
        return scan_files(source, what, names)
    if names is not None:
        raise ConfigError(f"`columns` names the columns of text files without a header, got {type(source).__name__}.")
    if isinstance(source, pl.DataFrame | pl.LazyFrame):
        return Scan(source.lazy())
    if type(source).__module__.partition(".")[0] == "pandas":
        return Scan(from_pandas(source).lazy())
    if hasattr(source, "__arrow_c_stream__") or hasattr(source, "__arrow_c_array__"):
        return Scan(pl.DataFrame(source).lazy())
    raise LogError(
        f"Expected the {what} as a path, a list of paths, a folder, a glob, or a polars, pandas or Arrow table, got "
        f"{type(source).__name__}."
    )


def require_columns(table: pl.DataFrame | Sequence[str], columns: Sequence[str], what: str = "interaction log") -> None:
    """Raise a LogError that names all columns missing from `table`, with the most similar names it has."""
    present = table.columns if isinstance(table, pl.DataFrame) else list(table)
    missing = [column for column in dict.fromkeys(columns) if column not in present]
    if not missing:
        return
    similar = {column: match for column in missing if (match := _most_similar(column, present)) is not None}
    hint = ""
    if len(missing) == 1 and similar:
        hint = f" Did you mean {similar[missing[0]]!r}?"
    elif similar:
        hint = f" Did you mean {', '.join(f'{match!r} for {column!r}' for column, match in similar.items())}?"
    noun = "column" if len(missing) == 1 else "columns"
    raise LogError(f"The {what} has no {noun} {', '.join(map(repr, missing))}; it has {present}.{hint}")


def _most_similar(column: str, present: Sequence[str]) -> str | None:
    """Return the most similar name, whatever the case of its letters; None if none is similar."""
    by_lower = {name.lower(): name for name in reversed(present)}
    matches = difflib.get_close_matches(column.lower(), list(by_lower), n=1, cutoff=0.5)
    return by_lower[matches[0]] if matches else None


def id_codes(table: pl.DataFrame, column: str) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Integer coding of an id column: the distinct ids, sorted, and the index of each row's id among them.

    Raises:
        LogError: If ids are missing, or are neither integers nor strings.
    """
    ids = table[column]
    missing = missing_values(ids).arg_true()
    if missing.len():
        raise LogError(
            f"Column {column!r} has {missing.len()} missing ids, the first in row {missing[0]}; drop these rows or "
            "name them."
        )
    ids = _integers_or_text(ids)
    distinct = ids.unique().sort()
    codes = pl.DataFrame({"id": ids}).join(
        pl.DataFrame({"id": distinct, "code": np.arange(distinct.len())}), on="id", how="left", maintain_order="left"
    )["code"]
    return distinct.to_numpy(), codes.to_numpy().astype(np.int64)


def _integers_or_text(ids: pl.Series) -> pl.Series:
    """Return ids as integers that NumPy has, or as text.

    Raises:
        LogError: If they are neither, or floats that are not integers or have lost digits.
    """
    kind = ids.dtype
    if isinstance(kind, pl.String | pl.Categorical | pl.Enum):
        return ids.cast(pl.String)
    if isinstance(kind, pl.Binary):
        return ids.bin.encode("hex")  # UUIDs in parquet files
    if kind.is_integer() and kind not in {pl.Int128, pl.UInt128}:
        return ids
    if kind.is_float():
        if (ids.floor() == ids).all() and bool((ids.abs() <= _EXACT).all()):
            return ids.cast(pl.Int64)
        raise LogError(
            f"Column {ids.name!r} must hold integer or string ids, got {kind} with fractions or above 2^53, where "
            "floats have lost digits."
        )
    if isinstance(kind, pl.Decimal) and not (ids.cast(pl.String).str.contains(r"\.0*[1-9]")).any():
        ids = ids.cast(pl.String).str.replace(r"\.0+$", "")
        kind = ids.dtype
    elif not kind.is_integer():
        raise LogError(f"Column {ids.name!r} must hold integer or string ids, got {kind}.")
    for narrower in (pl.Int64, pl.UInt64):
        integers = ids.cast(narrower, strict=False)
        if not integers.null_count():
            return integers
    return ids.cast(pl.String)


def missing_values(values: pl.Series) -> pl.Series:
    """Return which values are null or NaN."""
    return values.is_null() | values.is_nan() if values.dtype.is_float() else values.is_null()


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


def numbers_of(values: pl.Series) -> pl.Series:
    """Return text as floats if every value is a number; all other columns as they are."""
    if values.dtype != pl.String:
        return values
    numbers = values.cast(pl.Float64, strict=False)
    return numbers if numbers.null_count() == values.null_count() else values


def _finite_numbers(
    table: pl.DataFrame, column: str, name: str, expected: str, *, lowest: float = -math.inf, advice: str
) -> NDArray[np.float64]:
    """Return a column as float64, or raise a LogError if a value is not a finite number of at least `lowest`."""
    values = numbers_of(table[column])
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
