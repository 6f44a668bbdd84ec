"""The columns of an interaction log as checked and coded arrays, sorted by user, time and item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lis_lightning.data import tables
from lis_lightning.data.labels import binary_labels
from lis_lightning.data.times import Time, time_column, timestamps
from lis_lightning.errors import ConfigError, LogError
from lis_lightning.functional.as_of_counts import lexical_order

Label = str | tuple[str, float | str] | None
ALL_POSITIVE = "positive"  # the task of a log without a label column
ALIGNMENT_COLUMNS = ("label", "drawn")  # of ``split.alignment``, beside those of users, items and timestamps


@dataclass(frozen=True)
class Columns:
    """The columns of a log, [num_rows] each except for the ids.

    Attributes:
        user: Index into `user_ids`.
        item: Index into `item_ids`.
        time: Timestamps of one unit.
        labels: Labels (0 or 1) by task, the primary task first.
        base_logits: Finite float64 logits by task, for the tasks that have a base logit.
        weight: Non-negative float64 weights, or None.
        categories: Columns that events are sliced by.
        user_ids: Distinct user ids, sorted.
        item_ids: Distinct item ids, sorted.
        units_per_day: Number of time units in a day; None if the unit is unknown.
        given: Users, items and timestamps as the log has them.
        given_row: Row of `given`; for a drawn negative that of its positive.
        drawn: Whether a row is a drawn negative.
    """

    user: NDArray[np.int64]
    item: NDArray[np.int64]
    time: NDArray[Any]
    labels: Mapping[str, NDArray[np.int8]]
    base_logits: Mapping[str, NDArray[np.float64]]
    weight: NDArray[np.float64] | None
    categories: Mapping[str, tables.Categories]
    user_ids: NDArray[Any]
    item_ids: NDArray[Any]
    units_per_day: int | None
    given: pl.DataFrame
    given_row: NDArray[np.int64]
    drawn: NDArray[np.bool_]

    @property
    def primary(self) -> str:
        """Name of the first task."""
        return next(iter(self.labels))

    def take(self, rows: NDArray[np.int64]) -> Columns:
        """Return the given rows in the given order."""
        weight = None if self.weight is None else self.weight[rows]
        labels = {task: label[rows] for task, label in self.labels.items()}
        base_logits = {task: logit[rows] for task, logit in self.base_logits.items()}
        categories = {name: replace(column, codes=column.codes[rows]) for name, column in self.categories.items()}
        return replace(
            self,
            user=self.user[rows],
            item=self.item[rows],
            time=self.time[rows],
            labels=labels,
            base_logits=base_logits,
            weight=weight,
            categories=categories,
            given_row=self.given_row[rows],
            drawn=self.drawn[rows],
        )

    def sorted(self) -> Columns:
        """Return the rows sorted by user, time, item and all other values: the order of the input does not matter."""
        codes: list[NDArray[Any]] = [column.codes for column in self.categories.values()]
        weights = [] if self.weight is None else [self.weight]
        others: list[NDArray[Any]] = [*self.labels.values(), *codes, *weights, *self.base_logits.values()]
        return self.take(lexical_order(self.user, self.time, self.item, *others))

    def of_users(self, chosen: NDArray[np.bool_]) -> Columns:
        """Return the rows of some users, with the ids of these rows only.

        Args:
            chosen: Mask of the users, [num_users].
        """
        part = self.take(np.flatnonzero(chosen[self.user]))
        users, user = np.unique(part.user, return_inverse=True)
        items, item = np.unique(part.item, return_inverse=True)
        return replace(part, user=user, item=item, user_ids=self.user_ids[users], item_ids=self.item_ids[items])

    def num_repeats(self) -> int:
        """Return the number of rows with the user, item and time of the row before; needs sorted rows."""
        same = (self.user[1:] == self.user[:-1]) & (self.item[1:] == self.item[:-1]) & (self.time[1:] == self.time[:-1])
        return int(same.sum())

    def periods(self) -> NDArray[np.int64]:
        """Return the day of each row; if the time unit is unknown, its percentile of time."""
        if self.units_per_day is not None:
            days: NDArray[np.int64] = np.floor_divide(self.time, self.units_per_day).astype(np.int64)
            return days
        edges = np.quantile(self.time, np.linspace(0, 1, 101)[1:-1])
        return np.searchsorted(edges, self.time, side="right").astype(np.int64)

    def with_negatives(self, source: NDArray[np.int64], item: NDArray[np.int64]) -> Columns:
        """Return the columns, sorted, with one more row for each drawn negative.

        A negative has the user and time of its positive, the drawn item, and label 0 in every task. A category that is
        constant over the rows of each item is taken from the drawn item; any other, such as a surface, from the
        positive.

        Args:
            source: Row of the positive of each negative.
            item: Drawn item of each negative.
        """
        with_copies = self.take(np.r_[np.arange(self.user.size), source])
        no_label = np.zeros(source.size, np.int8)
        labels = {task: np.r_[label, no_label] for task, label in self.labels.items()}
        categories = {}
        for name, column in self.categories.items():
            drawn_codes = _codes_of_negatives(self.item, column.codes, source, item)
            categories[name] = replace(column, codes=np.r_[column.codes, drawn_codes])
        return replace(
            with_copies,
            item=np.r_[self.item, item],
            labels=labels,
            categories=categories,
            drawn=np.r_[self.drawn, np.ones(source.size, bool)],
        ).sorted()

    def given_events(self, rows: NDArray[np.bool_]) -> pl.DataFrame:
        """Return users, items and timestamps of some rows as the log has them, under its names and of its types.

        Args:
            rows: Mask of the rows, [num_rows].
        """
        user_and_time = self.given[self.given_row[rows]]
        # A drawn negative has the user and time of its positive, and the item as another row has it.
        row_of_item = np.zeros(self.item_ids.size, np.int64)
        row_of_item[self.item[~self.drawn]] = self.given_row[~self.drawn]
        name = self.given.columns[1]
        return user_and_time.with_columns(self.given[name][row_of_item[self.item[rows]]])


def _codes_of_negatives(
    items: NDArray[np.int64], codes: NDArray[np.int64], source: NDArray[np.int64], drawn_items: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the category of each drawn negative: that of its item if items have one each, else of its positive."""
    code_of_item = np.zeros(int(items.max()) + 1, np.int64)
    code_of_item[items] = codes
    belongs_to_item = bool((code_of_item[items] == codes).all())
    return code_of_item[drawn_items] if belongs_to_item else codes[source]


def task_labels(
    label: Label | Sequence[Any] | Mapping[str, Any], present: Sequence[str] | None = None
) -> dict[str, Label]:
    """Return the label of each task by name, the primary task first.

    Args:
        label: A column, a column with a threshold or a text that is positive, None, a list of columns, or a mapping of
            names to any of these. A pair of a column and a number is a column with a threshold, since configuration
            files have no tuples.
        present: Columns of the log: a pair of texts is two columns if it has the second, else a column and the text
            that is positive. None takes it for two columns.

    Raises:
        ConfigError: If there is no task, two tasks share a name, or a label is neither a column nor a column with a
            threshold.
    """
    if label is None or isinstance(label, str) or _is_threshold(label) or _names_a_value(label, present):
        return {_task_name(label): _checked_label(label)}
    if isinstance(label, bool | int | float):
        raise ConfigError(f"Expected `label` to name a column, got {label!r}; quote a name that is a number.")
    if isinstance(label, Mapping):
        tasks = {str(name): _checked_label(task_label) for name, task_label in label.items()}
    else:
        names = [_task_name(task_label) for task_label in label]
        if len(set(names)) < len(names):
            raise ConfigError(
                f"`label` names a column twice: {names}; name the tasks, as in {{'like': ('rating', 4)}}."
            )
        tasks = dict(zip(names, map(_checked_label, label), strict=True))
    if not tasks:
        raise ConfigError(f"Expected `label` to name at least one column, got {label!r}.")
    if len(tasks) > 1 and None in tasks.values():
        raise ConfigError("`label=None` says that every row is a positive; it cannot stand among several tasks.")
    _, *secondary = tasks
    for name in secondary:
        if name in ALIGNMENT_COLUMNS:
            raise ConfigError(
                f"Task {name!r} would hide a column of `split.alignment`; put it first or give it another name, as in "
                f"label={{..., 'my_{name}': {tasks[name]!r}}}."
            )
    return tasks


def _is_threshold(label: Any) -> bool:
    """Return whether a label is a pair of a column and a number."""
    return (
        isinstance(label, Sequence)
        and len(label) == 2
        and isinstance(label[0], str)
        and isinstance(label[1], int | float)
        and not isinstance(label[1], bool)
    )


def _names_a_value(label: Any, present: Sequence[str] | None) -> bool:
    """Return whether a label is a column and a text that is positive, and not two columns."""
    return present is not None and _is_column_and_text(label) and label[0] in present and label[1] not in present


def _is_column_and_text(label: Any) -> bool:
    is_pair = isinstance(label, Sequence) and not isinstance(label, str) and len(label) == 2
    return is_pair and all(isinstance(part, str) for part in label)


def _checked_label(label: Any) -> Label:
    """Return the label of one task, with a pair as a tuple; raise a ConfigError for anything else."""
    if label is None or isinstance(label, str):
        return label
    if _is_threshold(label) or _is_column_and_text(label):
        return label[0], label[1]
    given = list(label) if isinstance(label, Sequence) else label
    raise ConfigError(f"A label must be a column, or a column and a threshold as in ('rating', 4), got {given!r}.")


def _task_name(label: Any) -> str:
    """Return the name of a task that was given without one: that of its column."""
    checked = _checked_label(label)
    if checked is None:
        return ALL_POSITIVE
    return checked if isinstance(checked, str) else checked[0]


def task_logits(base_logit: str | Mapping[str, str] | None, tasks: Sequence[str]) -> dict[str, str]:
    """Return the base-logit column of each task that has one.

    Raises:
        ConfigError: If one column is given for several tasks, or a task does not exist.
    """
    if base_logit is None:
        return {}
    if isinstance(base_logit, str):
        if len(tasks) > 1:
            raise ConfigError(
                f"`base_logit={base_logit!r}` does not say which of the tasks {list(tasks)} it is for; give a mapping, "
                f"as in base_logit={{{tasks[0]!r}: {base_logit!r}}}. Tasks left out get the built-in base."
            )
        return {tasks[0]: base_logit}
    unknown = [task for task in base_logit if task not in tasks]
    if unknown:
        raise ConfigError(f"`base_logit` names the task {unknown[0]!r}; the tasks of `label` are {list(tasks)}.")
    return dict(base_logit)


@dataclass(frozen=True)
class Roles:
    """Which columns of a log are which.

    Attributes:
        user: Column of users.
        item: Column of items.
        time: Column of timestamps, or the column and the format of its text.
        labels: Label of each task, the primary one first.
        base_logits: Column of the base logit of the tasks that have one.
        weight: Column of weights; None for none.
        slices: Columns that events are sliced by.
    """

    user: str
    item: str
    time: Time
    labels: Mapping[str, Label]
    base_logits: Mapping[str, str]
    weight: str | None
    slices: Sequence[str]

    @classmethod
    def of(cls, settings: Mapping[str, Any], labels: Mapping[str, Label]) -> Roles:
        """Return the roles that the arguments of ``PreferenceSplit.from_log`` give to columns.

        Raises:
            ConfigError: If a base logit is of no task, two columns of ``split.alignment`` would have one name, or
                `slices` names the column of users, timestamps or labels.
        """
        given = {name: settings[name] for name in ("user", "item", "time", "weight", "slices")}
        roles = cls(labels=labels, base_logits=task_logits(settings["base_logit"], list(labels)), **given)
        _check_alignment_columns([roles.user, roles.item, time_column(roles.time)], list(labels)[1:])
        roles_by_column = {roles.user: "user", time_column(roles.time): "time"}
        _check_slices(roles.slices, roles_by_column | dict.fromkeys(roles.label_columns, "label"))
        return roles

    @property
    def label_columns(self) -> list[str]:
        """The columns of the labels that have one."""
        return [_task_name(label) for label in self.labels.values() if label is not None]

    @property
    def columns(self) -> list[str]:
        """All columns, those of users, items and timestamps first."""
        weight = [] if self.weight is None else [self.weight]
        first = [self.user, self.item, time_column(self.time)]
        return [*first, *self.label_columns, *self.base_logits.values(), *weight, *self.slices]


def columns_of_table(table: pl.DataFrame, roles: Roles) -> Columns:
    """Check and code each column of a log, and sort the rows.

    Args:
        table: The log.
        roles: Its columns.

    Raises:
        LogError: If the log is empty, or a column has unsuitable values.
    """
    if not table.height:
        raise LogError("The interaction log has no rows.")
    user_ids, user_codes = tables.id_codes(table, roles.user)
    item_ids, item_codes = tables.id_codes(table, roles.item)
    times, units_per_day = timestamps(table, roles.time)
    all_positive = np.ones(table.height, np.int8)
    task_values = {}
    for task, label in roles.labels.items():
        task_values[task] = all_positive if label is None else binary_labels(table, label)
    logits = {task: tables.finite_logits(table, column) for task, column in roles.base_logits.items()}
    weights = None if roles.weight is None else tables.event_weights(table, roles.weight)
    categories = {name: tables.categories(table, name) for name in roles.slices}
    return Columns(
        user=user_codes,
        item=item_codes,
        time=times,
        labels=task_values,
        base_logits=logits,
        weight=weights,
        categories=categories,
        user_ids=user_ids,
        item_ids=item_ids,
        units_per_day=units_per_day,
        given=table.select(roles.user, roles.item, time_column(roles.time)),
        given_row=np.arange(table.height),
        drawn=np.zeros(table.height, bool),
    ).sorted()


def _check_alignment_columns(roles: Sequence[str], further_tasks: Sequence[str]) -> None:
    """Raise a ConfigError if two columns of ``split.alignment`` would have one name."""
    names = [*roles, *ALIGNMENT_COLUMNS, *further_tasks]
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise ConfigError(
            f"Two columns of `split.alignment` would be called {repeated[0]!r}: it has the columns {list(roles)} of "
            f"the log, {list(ALIGNMENT_COLUMNS)}, and one of each further task. Rename a column, or name the task."
        )


def _check_slices(slices: Sequence[str], roles: Mapping[str, str]) -> None:
    """Raise a ConfigError if a slice column has another role (user, time or label), by its name in `roles`."""
    for name in slices:
        if name in roles:
            raise ConfigError(
                f"`slices` names {name!r}, the {roles[name]} column: AUC within one {roles[name]} says nothing of a "
                "group. Slice by what events have in common: a surface, a country, a category."
            )
