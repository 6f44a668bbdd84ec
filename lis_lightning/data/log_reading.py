"""Reading a log of any size: in memory as far as the budget holds it, else reduced where it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import polars as pl

from lis_lightning.data.columns import Columns, Label, Roles, columns_of_table
from lis_lightning.data.files import FILE
from lis_lightning.data.sql_engines import DuckDb, SqlEngine, sql_engine
from lis_lightning.data.sql_log import sql_log
from lis_lightning.data.sql_reduction import LogInDatabase, reporter
from lis_lightning.data.tables import InputTable
from lis_lightning.data.whole_log import LogInMemory, WholeLog, sample_in_memory, window_edges
from lis_lightning.errors import LogError


def log_columns(log: Any, names: Sequence[str] | None = None) -> list[str]:
    """Return the names of the columns of a log.

    Args:
        log: As for ``PreferenceSplit.from_log``.
        names: Names of the columns of text files without a header.
    """
    source = sql_engine(log) or InputTable(log, names=names)
    return list(source.columns)


def open_log(log: Any, names: Sequence[str] | None, settings: Mapping[str, Any]) -> InputTable | SqlEngine:
    """Return a log without reading it: a table, or where it is reduced.

    Args:
        log: As for ``PreferenceSplit.from_log``.
        names: Names of the columns of text files without a header.
        settings: Arguments of ``PreferenceSplit.from_log``.
    """
    engine = sql_engine(log)
    if engine is not None:
        return engine
    table = InputTable(log, names=names)
    budget = settings["max_alignment_events"]
    if table.parquet and budget is not None and table.num_rows() > budget:
        keys = _named_keys(table.keys, settings)
        return DuckDb.of_parquet(table.parquet, keys, memory_limit=settings["memory_limit"])
    return table


def _named_keys(keys: pl.DataFrame | None, settings: Mapping[str, Any]) -> pl.DataFrame | None:
    """Return the Hive keys that a split slices by; None if it does not.

    Raises:
        LogError: If another role is a key: keys are text, whatever they would be in the memory.
    """
    if keys is None:
        return None
    named = _texts([settings[name] for name in ("user", "item", "time", "label", "weight", "base_logit")])
    present = [name for name in keys.columns if name in named]
    if present:
        raise LogError(
            f"Column {present[0]!r} is a key of folders, which a log that is reduced where it is may only slice by; "
            "write it into the files, pass a DuckDB relation, or set `max_alignment_events=None` (all in memory)."
        )
    sliced = [name for name in keys.columns if name in settings["slices"]]
    return keys.select(FILE, *sliced) if sliced else None


def _texts(value: Any) -> set[str]:
    """Return all texts in nested lists and mappings."""
    if isinstance(value, str):
        return {value}
    nested = value.values() if isinstance(value, Mapping) else value
    return set().union(*map(_texts, nested)) if isinstance(nested, Iterable) else set()


def read_log(
    source: InputTable | SqlEngine, labels: Mapping[str, Label], settings: Mapping[str, Any]
) -> tuple[Columns, WholeLog]:
    """Return the rows of a sample of whole users, and what only the whole log can say of them.

    Args:
        source: The log.
        labels: Label of each task.
        settings: Arguments of ``PreferenceSplit.from_log``.

    Raises:
        LogError: If the log is empty, a column is missing or has unsuitable values, or a window holds no event.
        ConfigError: If arguments do not go together.
    """
    roles = Roles.of(settings, labels)
    if isinstance(source, InputTable):
        columns = columns_of_table(source.read(roles.columns, ids=[roles.user, roles.item]), roles)
        edges = window_edges(columns.time, settings)
        return sample_in_memory(columns, edges, settings), LogInMemory(columns, edges)
    report = reporter()
    log = sql_log(source, roles)
    report(f"{log.num_events:,} events, from {log.first_and_last[0]} to {log.first_and_last[1]}")
    whole = LogInDatabase(log, settings, report)
    return columns_of_table(whole.sampled_rows(roles.columns), roles), whole
