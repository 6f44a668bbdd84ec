"""A log in a query engine: its columns as SQL, checked on the whole log, and the aggregates that a split needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lis_lightning.data.columns import Label, Roles
from lis_lightning.data.sql_engines import LOG, SqlEngine
from lis_lightning.data.tables import require_columns
from lis_lightning.data.times import (
    UNITS,
    Time,
    are_calendar_digits,
    check_filled,
    filled_range,
    time_column,
    units_per_day,
)
from lis_lightning.errors import LogError

COUNT = "CAST(count(*) AS BIGINT)"  # number of rows, in SQL
NUM_BUCKETS = 4096  # buckets of time in one aggregate
MOST_VALUES = 1_000_000  # distinct timestamps that are counted one by one


@dataclass(frozen=True)
class SqlLog:
    """The columns of a log as SQL expressions.

    Attributes:
        engine: Where the log is.
        user: Id of the user: an integer or text.
        item: Id of the item.
        time: A number of one unit.
        labels: 0 or 1 by task.
        first_and_last: The first and last timestamp.
        num_events: Number of rows.
    """

    engine: SqlEngine
    user: str
    item: str
    time: str
    labels: Mapping[str, str]
    first_and_last: NDArray[Any] = field(default_factory=lambda: np.zeros(2))
    num_events: int = 0

    def aggregate(
        self, values: Mapping[str, str], *, by: Mapping[str, str] | None = None, join: str = "", where: str = ""
    ) -> pl.DataFrame:
        """Return aggregates of the log.

        Args:
            values: Aggregates by name.
            by: Expressions to group by, by name.
            join: A table to join with, as its name and condition.
            where: Condition on rows.
        """
        columns = {**(by or {}), **values}
        clauses = [f"SELECT {', '.join(f'{expression} AS {name}' for name, expression in columns.items())} FROM {LOG}"]
        clauses += [f"JOIN {join}"] if join else []
        clauses += [f"WHERE {where}"] if where else []
        clauses += [f"GROUP BY {', '.join(by.values())}"] if by else []
        return self.engine.query(" ".join(clauses))

    def label_sums(self) -> dict[str, str]:
        """Return the number of positives of each task, as expressions by name."""
        return {f"y{index}": total(label) for index, label in enumerate(self.labels.values())}

    def bucket(self, low: Any, high: Any, number: int = NUM_BUCKETS) -> str:
        """Return an event's bucket of time as an expression: `number` buckets of equal width from `low` to `high`."""
        return f"CAST(floor(({self.time} - {literal(low)}) / {literal(bucket_width(low, high, number))}) AS BIGINT)"


def bucket_width(low: Any, high: Any, number: int = NUM_BUCKETS) -> float:
    """Return the width of the buckets of :meth:`SqlLog.bucket`, in the unit of the timestamps."""
    return max((float(high) - float(low)) / number, 1e-300)


def total(expression: str) -> str:
    """Return the sum of a number of rows as a 64-bit integer, in SQL."""
    return f"CAST(sum({expression}) AS BIGINT)"


def literal(value: Any) -> str:
    """Return a number in SQL; Spark takes a plain 0.5 for a decimal."""
    number = value.item() if isinstance(value, np.generic) else value
    return f"CAST('{number!r}' AS DOUBLE)" if isinstance(number, float) else f"CAST({number} AS BIGINT)"


def sql_log(engine: SqlEngine, roles: Roles) -> SqlLog:
    """Return the columns of a log as SQL, after checks of the whole log in one pass.

    Args:
        engine: Where the log is.
        roles: Its columns.

    Raises:
        LogError: If a column is missing, has missing values or unsuitable ones, or is of an unsuitable type.
    """
    names, user, item, time = list(engine.columns), roles.user, roles.item, roles.time
    require_columns(names, roles.columns)
    reserved = [name for name in names if name.startswith("lis_")]
    if reserved:
        raise LogError(f"Column {reserved[0]!r} has a name that queries use for their own columns; rename it.")
    time_sql, is_moment = _time(engine, time)
    label_sql: dict[str, str] = {}
    label_checks: dict[str, str] = {}
    for index, (task, label) in enumerate(roles.labels.items()):
        label_sql[task] = "1" if label is None else _label(engine, label)
        label_checks |= {} if label is None else _label_checks(engine, label, index)
    log = SqlLog(engine, _id(engine, user), _id(engine, item), time_sql, label_sql)
    time_checks = _filled_check(log) if is_moment else _unit_checks(log)
    checks = _id_checks(engine, user, "user") | _id_checks(engine, item, "item") | label_checks | time_checks
    facts = log.aggregate(
        {
            "num_events": COUNT,
            "first_time": f"min({time_sql})",
            "last_time": f"max({time_sql})",
            "no_time": total(f"CASE WHEN {_is_no_number(engine, time_sql, time)} THEN 1 ELSE 0 END"),
            **{name: total(f"CASE WHEN {condition} THEN 1 ELSE 0 END") for name, condition in checks.items()},
        }
    ).row(0, named=True)
    if not facts["num_events"]:
        raise LogError("The interaction log has no rows.")
    _check_ids(facts, {"user": user, "item": item})
    _check_labels(facts, list(roles.labels.values()))
    _check_times(facts, time_column(time), is_moment)
    first_and_last = np.array([facts["first_time"], facts["last_time"]])
    return replace(log, first_and_last=first_and_last, num_events=facts["num_events"])


def _id(engine: SqlEngine, column: str) -> str:
    """Return an id as an integer or as text, as the reader of files has it."""
    kind, name = engine.columns[column], engine.name(column)
    if kind in {"integer", "float"}:
        return f"CAST({name} AS BIGINT)"
    if kind == "text":
        return f"CAST({name} AS STRING)"
    if kind == "unsigned":
        return name
    raise LogError(
        f"Column {column!r} of a log that is reduced where it is must hold integer or text ids, got {kind}; convert it "
        "there first, as in CAST(... AS VARCHAR)."
    )


def _is_missing(engine: SqlEngine, column: str) -> str:
    """Return the condition that a value is null or NaN, in SQL."""
    name = engine.name(column)
    # Engines differ in how they compare NaN, but not in its text.
    is_nan = f" OR lower(CAST({name} AS STRING)) = 'nan'" if engine.columns[column] == "float" else ""
    return f"{name} IS NULL{is_nan}"


def _id_checks(engine: SqlEngine, column: str, role: str) -> dict[str, str]:
    name = engine.name(column)
    checks = {f"no_{role}": _is_missing(engine, column)}
    if engine.columns[column] == "float":
        checks |= {f"fraction_{role}": f"{name} <> floor({name}) OR abs({name}) > 9007199254740992"}
    return checks


def _check_ids(facts: Mapping[str, Any], columns: Mapping[str, str]) -> None:
    for role, column in columns.items():
        if facts[f"no_{role}"]:
            raise LogError(f"Column {column!r} has {facts[f'no_{role}']} missing ids; drop these rows or name them.")
        if facts.get(f"fraction_{role}"):
            raise LogError(
                f"Column {column!r} must hold integer or string ids, got floats of which {facts[f'fraction_{role}']} "
                "have fractions or are above 2^53, where floats have lost digits."
            )


def _label(engine: SqlEngine, label: str | tuple[str, float | str]) -> str:
    """Return a label as 0 or 1, in SQL."""
    column, positive = (label, None) if isinstance(label, str) else label
    kind, name = engine.columns[column], engine.name(column)
    if isinstance(positive, str):
        text = positive.replace("'", "''")
        return f"CASE WHEN CAST({name} AS STRING) = '{text}' THEN 1 ELSE 0 END"
    if kind == "boolean":
        return f"CASE WHEN {name} THEN 1 ELSE 0 END"
    if kind == "text":
        raise LogError(
            f"Label column {column!r} of a log in a database must hold numbers or truth values, got text; say which "
            f"value is positive, as in label=({column!r}, 'buy')."
        )
    return f"CASE WHEN {name} >= {literal(float(1 if positive is None else positive))} THEN 1 ELSE 0 END"


def _label_checks(engine: SqlEngine, label: str | tuple[str, float | str], index: int) -> dict[str, str]:
    column = label if isinstance(label, str) else label[0]
    name, kind = engine.name(column), engine.columns[column]
    checks = {f"no_label{index}": _is_missing(engine, column)}
    if isinstance(label, str) and kind != "boolean":
        checks[f"other_label{index}"] = f"{name} <> 0 AND {name} <> 1"
    return checks


def _check_labels(facts: Mapping[str, Any], labels: Sequence[Label]) -> None:
    for index, label in enumerate(labels):
        column = label if isinstance(label, str) or label is None else label[0]
        missing, other = facts.get(f"no_label{index}"), facts.get(f"other_label{index}")
        if missing:
            raise LogError(
                f"Label column {column!r} has {missing} missing values among {facts['num_events']}; drop these rows."
            )
        if other:
            raise LogError(
                f"Label column {column!r} is not binary: {other} of {facts['num_events']} values are neither 0 nor 1. "
                f"Say which values are positive, as in label=({column!r}, 4) for values at or above."
            )


def _time(engine: SqlEngine, time: Time) -> tuple[str, bool]:
    """Return a timestamp as a number, in SQL, and whether it is a date or moment.

    Raises:
        LogError: If it is text.
    """
    column = time_column(time)
    kind, name = engine.columns[column] if isinstance(time, str) else "text", engine.name(column)
    if kind in {"date", "moment", "local moment"}:
        return engine.microseconds(name, kind), True
    if kind in {"integer", "unsigned"}:
        return f"CAST({name} AS BIGINT)", False
    if kind == "float":
        return f"CAST({name} AS DOUBLE)", False
    raise LogError(
        f"Time column {column!r} of a log that is reduced where it is must hold numbers, dates or timestamps, got "
        f"{kind}; convert it there first, as in CAST(... AS BIGINT) or CAST(... AS TIMESTAMP)."
    )


def _is_no_number(engine: SqlEngine, time_sql: str, time: Time) -> str:
    is_float = engine.columns[time_column(time)] == "float"
    # Engines differ in how they compare NaN, but not in its text.
    text = f"lower(CAST({time_sql} AS STRING))"
    return f"{time_sql} IS NULL" + (
        f" OR {text} IN ('nan', 'inf', '-inf', 'infinity', '-infinity')" if is_float else ""
    )


def _unit_checks(log: SqlLog) -> dict[str, str]:
    """Return the conditions that a number is in the range of a unix unit."""
    checks = {}
    for unit, low, high in UNITS:
        checks[unit] = f"{log.time} >= {literal(low)} AND {log.time} < {literal(high)}"
    return checks


def _filled_check(log: SqlLog) -> dict[str, str]:
    """Return the condition that a moment stands for a missing one."""
    day, first, last = filled_range()
    return {"filled": f"abs({log.time}) <= {day} OR {log.time} < {first} OR {log.time} >= {last}"}


def _check_times(facts: Mapping[str, Any], column: str, is_moment: bool) -> None:
    if facts["no_time"]:
        raise LogError(
            f"Time column {column!r} has {facts['no_time']} missing or non-finite timestamps; drop these rows."
        )
    if is_moment:
        check_filled(facts["filled"], facts["num_events"], column)
        return
    counts = {unit: facts[unit] for unit, _, _ in UNITS}
    units_per_day(counts, facts["num_events"], column, smallest=facts["first_time"])
    if isinstance(facts["last_time"], int) and are_calendar_digits(facts["first_time"], facts["last_time"]):
        raise LogError(
            f"Time column {column!r} holds calendar digits such as {facts['first_time']}; convert them to timestamps "
            "first, since months have different lengths."
        )
