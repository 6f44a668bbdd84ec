"""Reading a log of any size: in memory as far as the budget holds it, else reduced where it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lis_lightning.data.columns import Columns, Label, columns_of_table, needed_columns, task_logits
from lis_lightning.data.sql_engines import DuckDb, SqlEngine, sql_engine
from lis_lightning.data.sql_log import sql_log
from lis_lightning.data.sql_reduction import LogInDatabase, reporter
from lis_lightning.data.tables import InputTable
from lis_lightning.data.whole_log import LogInMemory, WholeLog, sample_in_memory, window_edges


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
        return DuckDb.of_parquet(table.parquet, memory_limit=settings["memory_limit"])
    return table


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
    roles: dict[str, Any] = {name: settings[name] for name in ("user", "item", "time", "weight", "slices")}
    roles |= {"labels": labels, "base_logits": task_logits(settings["base_logit"], list(labels))}
    if isinstance(source, InputTable):
        ids = [settings["user"], settings["item"]]
        columns = columns_of_table(source.read(needed_columns(**roles), ids=ids), **roles)
        edges = window_edges(columns.time, settings)
        return sample_in_memory(columns, edges, settings), LogInMemory(columns, edges)
    report = reporter()
    needed = needed_columns(**roles)
    log = sql_log(
        source, user=settings["user"], item=settings["item"], time=settings["time"], labels=labels, others=needed
    )
    report(f"{log.num_events:,} events, from {log.first_and_last[0]} to {log.first_and_last[1]}")
    whole = LogInDatabase(log, settings, report)
    return columns_of_table(whole.sampled_rows(needed), **roles), whole
