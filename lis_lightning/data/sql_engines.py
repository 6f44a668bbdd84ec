"""Query engines that a log may live in: DuckDB and Spark, behind one plain SQL dialect.

Both get the same text: aggregates, equi-joins and MD5 alone, which they define alike. What differs (quotes, types,
the number of a moment, how a small table gets there) is here.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from lis_lightning.data.files import FILE
from lis_lightning.errors import ConfigError, LogError

LOG = "lis_log"  # name of the log in queries
_INTEGERS = {"TINYINT", "SMALLINT", "INTEGER", "INT", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER"}
_UNSIGNED = "UBIGINT"
_FLOATS = {"FLOAT", "DOUBLE", "REAL"}


class SqlEngine(ABC):
    """A log as a table of a query engine.

    Attributes:
        columns: Kind of each column: integer, unsigned (of 64 bits), float, boolean, text, date, moment, or the
            engine's own name of it.
        quote: Character around names.
    """

    columns: Mapping[str, str]
    quote: str

    @abstractmethod
    def query(self, sql: str) -> pl.DataFrame:
        """Return the result of a query over the table :data:`LOG`."""

    @abstractmethod
    def upload(self, name: str, table: pl.DataFrame) -> str:
        """Make a small table available to queries, and return how they refer to it."""

    @abstractmethod
    def microseconds(self, expression: str, kind: str) -> str:
        """Return a date or moment as microseconds since 1970, in SQL."""

    def name(self, column: str) -> str:
        """Return the name of a column in SQL."""
        return f"{self.quote}{column.replace(self.quote, 2 * self.quote)}{self.quote}"


class DuckDb(SqlEngine):
    """A log in DuckDB: a relation, or parquet files.

    Args:
        relation: A ``duckdb.DuckDBPyRelation``.
        folder: Folder of temporary files, removed with this object; None makes one.
    """

    quote = '"'

    def __init__(self, relation: Any, folder: Path | None = None) -> None:
        self._relation = relation
        self._folder = _temporary_folder() if folder is None else folder
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self.columns = dict(zip(relation.columns, map(_kind, map(str, relation.types)), strict=True))

    @classmethod
    def of_parquet(cls, paths: Sequence[str], keys: pl.DataFrame | None, *, memory_limit: str | None) -> DuckDb:
        """Return the log in parquet files, read by a connection of its own that spills to disk.

        Args:
            paths: The files.
            keys: Column :data:`FILE` with the paths, and further columns that all rows of a file have; None for none.
            memory_limit: Memory that DuckDB may use, such as ``"4GB"``; None for its own default.
        """
        import duckdb

        folder = _temporary_folder()
        config: dict[str, Any] = {"temp_directory": str(folder), "preserve_insertion_order": "false"}
        if memory_limit is not None:
            config["memory_limit"] = memory_limit
        try:
            connection = duckdb.connect(config=config)
            connection.execute("SET enable_progress_bar = false")  # it would go to standard output
        except duckdb.Error as error:
            raise ConfigError(f"DuckDB refuses `memory_limit={memory_limit!r}`: {_first_line(error)}") from error
        files = ", ".join("'" + path.replace("'", "''") + "'" for path in paths)
        # Hive keys are joined: DuckDB would prefer them to the columns of the files, and not decode their names.
        scan = f"read_parquet([{files}], hive_partitioning=false, filename={'false' if keys is None else repr(FILE)})"
        if keys is not None:
            keys.write_parquet(folder / "keys.parquet")
            scan = f"{scan} AS files JOIN read_parquet('{folder / 'keys.parquet'}') AS keys USING ({FILE})"
        try:
            return cls(connection.sql(f"FROM {scan}"), folder)
        except duckdb.Error as error:
            raise LogError(f"DuckDB cannot read the log: {_first_line(error)}") from error

    def query(self, sql: str) -> pl.DataFrame:
        """Return the result of a query over the table :data:`LOG`."""
        import duckdb

        try:
            return pl.DataFrame(self._relation.query(LOG, sql))
        except duckdb.Error as error:
            raise LogError(f"DuckDB cannot read the log: {_first_line(error)}") from error

    def upload(self, name: str, table: pl.DataFrame) -> str:
        """Make a small table available to queries, and return how they refer to it."""
        # A relation does not give its connection away, so tables go by way of a file.
        path = self._folder / f"{name}.parquet"
        table.write_parquet(path)
        return f"read_parquet('{path}')"

    def microseconds(self, expression: str, kind: str) -> str:
        """Return a date or moment as microseconds since 1970, in SQL."""
        return f"epoch_us(CAST({expression} AS TIMESTAMP))" if kind == "date" else f"epoch_us({expression})"


class Spark(SqlEngine):
    """A log in Spark.

    Args:
        frame: A ``pyspark.sql.DataFrame``.
    """

    quote = "`"

    def __init__(self, frame: Any) -> None:
        self._frame, self._session = frame, frame.sparkSession
        self.columns = {name: _kind(kind.upper()) for name, kind in frame.dtypes}

    def query(self, sql: str) -> pl.DataFrame:
        """Return the result of a query over the table :data:`LOG`."""
        from pyspark.errors import PySparkException

        try:
            self._frame.createOrReplaceTempView(LOG)
            return pl.DataFrame(self._session.sql(sql).toArrow())
        except PySparkException as error:
            raise LogError(f"Spark cannot read the log: {_first_line(error)}") from error

    def upload(self, name: str, table: pl.DataFrame) -> str:
        """Make a small table available to queries, and return how they refer to it."""
        view = f"lis_{name}"
        self._session.createDataFrame(table.to_arrow()).createOrReplaceTempView(view)
        return view

    def microseconds(self, expression: str, kind: str) -> str:
        """Return a date or moment as microseconds since 1970, in SQL."""
        if kind == "date":
            return f"(CAST(unix_date({expression}) AS BIGINT) * 86400000000)"
        if kind == "local moment":
            # Without a time zone it is taken as UTC, as everywhere else, and not as of the session's zone.
            expression = f"CAST(CONCAT(CAST({expression} AS STRING), 'Z') AS TIMESTAMP)"
        return f"unix_micros({expression})"


def _kind(name: str) -> str:
    """Return the kind of a column by the engine's name of its type."""
    if name in _INTEGERS:
        return "integer"
    if name == _UNSIGNED:
        return "unsigned"
    if name in _FLOATS:
        return "float"
    # A column of nulls alone has no type.
    if name.startswith(("VARCHAR", "STRING", "CHAR", "ENUM", '"NULL"', "NULL", "VOID")):
        return "text"
    named = {
        "BOOLEAN": "boolean",
        "DATE": "date",
        "TIMESTAMP": "moment",
        "TIMESTAMP WITH TIME ZONE": "moment",
        "TIMESTAMP_NS": "moment",
        "TIMESTAMP_MS": "moment",
        "TIMESTAMP_S": "moment",
        "TIMESTAMP_NTZ": "local moment",
    }
    return named.get(name, name)


def sql_engine(source: Any) -> SqlEngine | None:
    """Return the engine of a DuckDB relation or Spark data frame; None for anything else."""
    package = type(source).__module__.partition(".")[0]
    if package in {"duckdb", "_duckdb"} and hasattr(source, "query"):
        return DuckDb(source)
    if package == "pyspark" and hasattr(source, "sparkSession"):
        return Spark(source)
    return None


def _temporary_folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="lis-lightning-"))


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
