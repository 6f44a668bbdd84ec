"""The columns of an interaction log, checked, coded and in one order: all that a split is cut from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lis_lightning.data import tables as _log
from lis_lightning.errors import ConfigError, LogError
from lis_lightning.functional.as_of_counts import lexical_order

Label = str | tuple[str, float] | None
ALL_POSITIVE = "positive"  # the task of a log without a label column
_RESERVED = ("user", "item", "time", "label")  # columns of ``split.alignment``


@dataclass(frozen=True)
class Columns:
    """The columns of a log, sorted by user, time and item. [num_rows] each, but for the ids.

    Attributes:
        user: Index into `user_ids`.
        item: Index into `item_ids`.
        time: Timestamps of one unit.
        labels: For each task 0 or 1, the primary task first.
        base_logits: Finite float64 logits of the tasks that have one.
        weight: Non-negative float64 weights, or None.
        categories: Columns that events are sliced by.
        user_ids: Distinct user ids, sorted.
        item_ids: Distinct item ids, sorted.
        units_per_day: How many time units make a day, if known.
    """

    user: NDArray[np.int64]
    item: NDArray[np.int64]
    time: NDArray[Any]
    labels: Mapping[str, NDArray[np.int8]]
    base_logits: Mapping[str, NDArray[np.float64]]
    weight: NDArray[np.float64] | None
    categories: Mapping[str, _log.Categories]
    user_ids: NDArray[Any]
    item_ids: NDArray[Any]
    units_per_day: int | None

    @property
    def primary(self) -> str:
        """Name of the first task."""
        return next(iter(self.labels))

    def take(self, rows: NDArray[np.int64]) -> Columns:
        """Return some rows, in the order given."""
        return replace(
            self,
            user=self.user[rows],
            item=self.item[rows],
            time=self.time[rows],
            labels={task: label[rows] for task, label in self.labels.items()},
            base_logits={task: logit[rows] for task, logit in self.base_logits.items()},
            weight=None if self.weight is None else self.weight[rows],
            categories={name: replace(column, codes=column.codes[rows]) for name, column in self.categories.items()},
        )

    def sorted(self) -> Columns:
        """Return the rows by user, time and item, so that the order they came in does not matter."""
        return self.take(lexical_order(self.user, self.time, self.item, self.labels[self.primary]))

    def num_repeats(self) -> int:
        """Return how many rows repeat the user, item and time of the one before; needs sorted rows."""
        same = (self.user[1:] == self.user[:-1]) & (self.item[1:] == self.item[:-1]) & (self.time[1:] == self.time[:-1])
        return int(same.sum())

    def periods(self) -> NDArray[np.int64]:
        """Return the day of each row, or where the unit is unknown its percentile of time."""
        if self.units_per_day is not None:
            days: NDArray[np.int64] = np.floor_divide(self.time, self.units_per_day).astype(np.int64)
            return days
        edges = np.quantile(self.time, np.linspace(0, 1, 101)[1:-1])
        return np.searchsorted(edges, self.time, side="right").astype(np.int64)

    def with_negatives(self, source: NDArray[np.int64], item: NDArray[np.int64]) -> Columns:
        """Return the columns with a negative row (of every task) for each (positive row, item) given, sorted.

        A column that is the same in all rows of an item (its category) follows the item; any other (a surface) is
        that of the positive.
        """
        drawn = self.take(source)
        drawn = replace(
            drawn,
            item=item,
            labels={task: np.zeros_like(label) for task, label in drawn.labels.items()},
            categories={
                name: replace(column, codes=_of_negatives(self.item, column.codes, source, item))
                for name, column in self.categories.items()
            },
        )
        return replace(
            self,
            user=np.r_[self.user, drawn.user],
            item=np.r_[self.item, drawn.item],
            time=np.r_[self.time, drawn.time],
            labels={task: np.r_[label, drawn.labels[task]] for task, label in self.labels.items()},
            categories={
                name: replace(column, codes=np.r_[column.codes, drawn.categories[name].codes])
                for name, column in self.categories.items()
            },
        ).sorted()


def _of_negatives(
    items: NDArray[np.int64], codes: NDArray[np.int64], source: NDArray[np.int64], negative: NDArray[np.int64]
) -> NDArray[np.int64]:
    of_item = np.zeros(int(items.max()) + 1, np.int64)
    of_item[items] = codes
    belongs_to_item = bool((of_item[items] == codes).all())
    return of_item[negative] if belongs_to_item else codes[source]


def task_labels(label: Label | Sequence[Any] | Mapping[str, Any]) -> dict[str, Label]:
    """Return the label of each task by name, the primary one first.

    Args:
        label: A column, a column with a threshold, None, a list of columns, or a mapping of names to any of these. A
            pair of a column and a number is one label; configuration files can only give it as a list.

    Raises:
        ConfigError: If there is no task, two share a name, or one is neither a column nor a column with a threshold.
    """
    if label is None or isinstance(label, str) or _is_threshold(label):
        return {_task_name(label): _one_label(label)}
    if isinstance(label, Mapping):
        tasks = {str(name): _one_label(one) for name, one in label.items()}
    elif isinstance(label, bool | int | float):
        raise ConfigError(f"Expected `label` to name a column, got {label!r}; quote a name that is a number.")
    else:
        names = [_task_name(one) for one in label]
        if len(set(names)) < len(names):
            raise ConfigError(
                f"`label` names a column twice: {names}; name the tasks, as in {{'like': ('rating', 4)}}."
            )
        tasks = {name: _one_label(one) for name, one in zip(names, label, strict=True)}
    if not tasks:
        raise ConfigError(f"Expected `label` to name at least one column, got {label!r}.")
    if len(tasks) > 1 and None in tasks.values():
        raise ConfigError("`label=None` says that every row is a positive; it cannot stand among several tasks.")
    clash = [name for name in list(tasks)[1:] if name in _RESERVED]
    if clash:
        raise ConfigError(
            f"Task {clash[0]!r} would hide a column of `split.alignment`; put it first or give it another name, as in "
            f"label={{..., 'my_{clash[0]}': {tasks[clash[0]]!r}}}."
        )
    return tasks


def _is_threshold(label: Any) -> bool:
    """Whether this is one column with one number."""
    return (
        isinstance(label, Sequence)
        and len(label) == 2
        and isinstance(label[0], str)
        and isinstance(label[1], int | float)
        and not isinstance(label[1], bool)
    )


def _one_label(label: Any) -> Label:
    if label is None or isinstance(label, str):
        return label
    if _is_threshold(label):
        return label[0], label[1]
    given = list(label) if isinstance(label, Sequence) else label
    raise ConfigError(f"A label must be a column, or a column and a threshold as in ('rating', 4), got {given!r}.")


def _task_name(label: Any) -> str:
    one = _one_label(label)
    return ALL_POSITIVE if one is None else one if isinstance(one, str) else one[0]


def task_logits(base_logit: str | Mapping[str, str] | None, tasks: Sequence[str]) -> dict[str, str]:
    """Return the column of the base logit of each task that has one.

    Raises:
        ConfigError: If it is not said which of several tasks a logit is for, or a task does not exist.
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


def read_columns(
    source: str | Path | _log.Table,
    *,
    user: str,
    item: str,
    time: str,
    labels: Mapping[str, Label],
    base_logits: Mapping[str, str],
    weight: str | None,
    slices: Sequence[str],
) -> Columns:
    """Read a log, check each column and bring the rows into one order.

    Raises:
        LogError: With the name of the column, what was expected and what came.
    """
    label_columns = [label if isinstance(label, str) else label[0] for label in labels.values() if label is not None]
    optional = [*label_columns, *base_logits.values(), *([] if weight is None else [weight]), *slices]
    table = _log.read_table(source, columns=[user, item, time, *optional])
    if not table.height:
        raise LogError("The interaction log has no rows.")
    _check_slices(slices, {user: "user", time: "time"} | dict.fromkeys(label_columns, "label"))
    user_ids, user_codes = _log.id_codes(table, user)
    item_ids, item_codes = _log.id_codes(table, item)
    times, units_per_day = _log.timestamps(table, time)
    return Columns(
        user=user_codes,
        item=item_codes,
        time=times,
        labels={
            task: np.ones(table.height, np.int8) if label is None else _log.binary_labels(table, label)
            for task, label in labels.items()
        },
        base_logits={task: _log.finite_logits(table, column) for task, column in base_logits.items()},
        weight=None if weight is None else _log.event_weights(table, weight),
        categories={name: _log.categories(table, name) for name in slices},
        user_ids=user_ids,
        item_ids=item_ids,
        units_per_day=units_per_day,
    ).sorted()


def _check_slices(slices: Sequence[str], taken: Mapping[str, str]) -> None:
    """Raise for a column that cannot say where a representation helps."""
    for name in slices:
        if name in taken:
            raise ConfigError(
                f"`slices` names {name!r}, the {taken[name]} column: AUC within one {taken[name]} says nothing of a "
                "group. Slice by what events have in common: a surface, a country, a category."
            )
