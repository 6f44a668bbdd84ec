"""Cutting a log into preference splits: windows, a sample of whole users, histories, one split per task and period."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lis_lightning.data.checks import (
    check_names_and_budgets,
    check_settings,
    check_split,
    warn_of_logits,
    warn_of_repeats,
)
from lis_lightning.data.columns import Columns, task_labels
from lis_lightning.data.events import WINDOWS, Events, Log
from lis_lightning.data.log_reading import open_log, read_log
from lis_lightning.data.slices import Slices, built_in_slices, column_slices
from lis_lightning.data.tables import Table
from lis_lightning.data.whole_log import WholeLog, user_order
from lis_lightning.errors import ConfigError, LogError
from lis_lightning.functional.as_of_counts import AsOf, as_of, earlier_range
from lis_lightning.functional.sampling import is_withheld, sample_shown_negatives, take_whole_users

if TYPE_CHECKING:
    from lis_lightning.data.split import PreferenceSplit


def cut_log(
    log: str | Path | Table,
    settings: dict[str, Any],
    split_class: type[PreferenceSplit],
    names: Sequence[str] | None = None,
) -> PreferenceSplit:
    """Return the split of the primary task in the first period; its `tasks` and `periods` lead to all others.

    Args:
        log: The log, as in ``PreferenceSplit.from_log``.
        settings: The other arguments of ``PreferenceSplit.from_log``.
        split_class: The class of the splits.
        names: Names of the columns of text files without a header.

    Raises:
        LogError: If the log has unsuitable values, or a window cannot be scored.
        ConfigError: If an argument is out of range, or two arguments are incompatible.
    """
    check_names_and_budgets(settings)
    source = open_log(log, names, settings)
    labels = task_labels(settings["label"], list(source.columns))
    if settings["negatives"] and labels == {"label": "label"} and "label" not in source.columns:
        labels = {"label": None}  # a log of positives only needs no label
    check_settings(settings, labels)
    columns, whole = read_log(source, labels, settings)
    split = _cut(columns, whole, settings | {"units_per_day": columns.units_per_day}, split_class)
    warn_of_repeats(columns.num_repeats(), columns.user.size)
    return split


def _cut(
    columns: Columns, whole: WholeLog, settings: dict[str, Any], split_class: type[PreferenceSplit]
) -> PreferenceSplit:
    seed, num_sampled = settings["seed"], columns.user.size
    columns = _with_negatives(columns, settings["negatives"], np.random.default_rng(seed))
    part = np.searchsorted(whole.edges, columns.time, side="right")
    order = user_order(columns.user_ids, seed)
    budgets = {name: settings[name] for name in ("max_events", "max_items")}
    chosen = take_whole_users(columns.user, columns.item, part > 0, order, **budgets)
    rows = _order(columns, part, chosen, settings)
    scored = _Scored.of(rows, whole)
    periods = [_period(rows, scored, whole, index) for index in range(whole.edges.size - 1)]
    shared: dict[str, Any] = {
        "alignment": _alignment(rows),
        "num_logged": whole.num_events,
        "num_sampled": num_sampled,
    }
    family: dict[str, tuple[PreferenceSplit, ...]] = {}
    for task in rows.columns.labels:
        family[task] = tuple(
            split_class(**_split_fields(rows, scored, period, task, settings), **shared, _family=family)
            for period in periods
        )
    for splits in family.values():
        for split in splits:
            check_split(split)
        warn_of_logits(splits[0])
    return family[columns.primary][0]


def _with_negatives(columns: Columns, num_negatives: int, rng: np.random.Generator) -> Columns:
    """Append drawn negatives to a log of positives; a log with real negatives is returned unchanged."""
    label = columns.labels[columns.primary]
    has_negatives = not label.all()
    if has_negatives and num_negatives:
        raise ConfigError(
            f"`negatives={num_negatives}` is for logs of positives only; this log has "
            f"{int((label == 0).sum())} real negatives. Leave `negatives` at 0."
        )
    if has_negatives:
        return columns
    if not num_negatives:
        raise LogError(
            f"All {label.size} labels are positive; an AUC needs negatives. Set `negatives` (4, say) to draw "
            "them from what other users engaged with on the same day, or log what was shown."
        )
    if columns.base_logits:
        raise ConfigError("Drawn negatives have no `base_logit`; leave one of `negatives` and `base_logit` out.")
    if columns.weight is not None:
        raise ConfigError(
            "Drawn negatives have no `weight`; leave one of `negatives` and `weight` out, or log what was shown, with "
            "a weight."
        )
    return columns.with_negatives(
        *sample_shown_negatives(columns.user, columns.item, columns.periods(), num_negatives, rng)
    )


@dataclass(frozen=True)
class _Rows:
    """The log sorted by user, then time, recoded so that scored users and encoded items come first.

    Attributes:
        columns: The log, recoded.
        part: Window of each row: 0 in the alignment window, then 1, 2 and so on.
        user_ids: Ids of the scored users.
        item_ids: Ids of the encoded items.
        unseen: Whether an item is withheld from alignment, [all items].
        start: The history of row r is rows ``start[r]:stop[r]``.
        stop: See `start`.
        by_user: As-of counts of the user of each row, by task.
        history_item: Rows of R of the scored users' events.
    """

    columns: Columns
    part: NDArray[np.int64]
    user_ids: NDArray[Any]
    item_ids: NDArray[Any]
    unseen: NDArray[np.bool_]
    start: NDArray[np.int64]
    stop: NDArray[np.int64]
    by_user: dict[str, AsOf]
    history_item: NDArray[np.int64]


def _order(columns: Columns, part: NDArray[np.int64], chosen: NDArray[np.bool_], settings: dict[str, Any]) -> _Rows:
    """Recode scored users and encoded items to come first, and return the history and as-of counts of each row.

    Args:
        columns: The log, sorted by user, then time.
        part: Window of each row.
        chosen: Whether a user may be scored, [num_users].
        settings: Arguments of ``PreferenceSplit.from_log``.
    """
    user_order = np.argsort(~chosen, kind="stable")
    rows = np.argsort(~chosen[columns.user], kind="stable")
    columns, part = columns.take(rows), part[rows]
    user = _codes(user_order)[columns.user]
    first, stop = earlier_range(user, columns.time)
    start = np.maximum(first, stop - settings["history"])
    scored = chosen[columns.user] & (part > 0)
    # Encoded are the targets of scored events and all items of their histories.
    needed = np.zeros(columns.item_ids.size, bool)
    needed[columns.item[scored]] = True
    needed[columns.item[_covered(start[scored], stop[scored], scored.size)]] = True
    item_order = np.argsort(~needed, kind="stable")
    item = _codes(item_order)[columns.item]
    columns = replace(
        columns, user=user, item=item, user_ids=columns.user_ids[user_order], item_ids=columns.item_ids[item_order]
    )
    labels = np.stack(list(columns.labels.values()))
    num_users, num_items = int(chosen.sum()), int(needed.sum())
    # Scored users come first, so their rows are a prefix of the log, in which `start:stop` stay valid. A row whose item
    # is not encoded is in no history of a scored event; its 0 is a placeholder that is never read.
    history_item = item[: int(np.searchsorted(user, num_users))]
    return _Rows(
        columns=columns,
        part=part,
        user_ids=columns.user_ids[:num_users],
        item_ids=columns.item_ids[:num_items],
        unseen=is_withheld(columns.item_ids, float(settings["unseen_items"]), settings["seed"]),
        start=start,
        stop=stop,
        by_user=dict(zip(columns.labels, as_of(user, columns.time, labels), strict=True)),
        history_item=np.where(history_item < num_items, history_item, 0),
    )


def _codes(order: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the inverse permutation: the new code of each old code, where `order` lists old codes in new order."""
    codes = np.empty(order.size, np.int64)
    codes[order] = np.arange(order.size)
    return codes


def _covered(start: NDArray[np.int64], stop: NDArray[np.int64], size: int) -> NDArray[np.bool_]:
    """Return which rows lie in at least one of the ranges ``start:stop``."""
    depth = np.bincount(start, minlength=size + 1) - np.bincount(stop, minlength=size + 1)
    return np.cumsum(depth)[:size] > 0


@dataclass(frozen=True)
class _Scored:
    """The scored events of all periods.

    Attributes:
        rows: Their rows in the log, ascending.
        by_item: Counts of the target's strictly earlier events in the whole log, by task. Drawn negatives do not count.
        popularity: Number of events of the target before w1 of each period, in the whole log, [num_periods, events].
    """

    rows: NDArray[np.int64]
    by_item: dict[str, AsOf]
    popularity: NDArray[np.int64]

    @classmethod
    def of(cls, rows: _Rows, whole: WholeLog) -> _Scored:
        """Return them with the counts of their items."""
        columns, edges = rows.columns, whole.edges[:-1]
        if edges.dtype.kind == "f" and columns.time.dtype.kind == "i":
            edges = np.ceil(edges)  # no integer lies between
        scored = np.flatnonzero((columns.user < rows.user_ids.size) & (rows.part > 0))
        # One pass over the log for the counts before each event and before each period.
        targets = np.tile(columns.item_ids[columns.item[scored]], 1 + edges.size)
        times = np.concatenate([columns.time[scored], np.repeat(edges, scored.size).astype(columns.time.dtype)])
        counts = whole.items_before(targets, times)
        by_item = {task: AsOf(of.count[: scored.size], of.positives[: scored.size]) for task, of in counts.items()}
        popularity = counts[columns.primary].count[scored.size :].reshape(edges.size, scored.size)
        return cls(scored, by_item, popularity)

    def item_counts(self, task: str, rows: NDArray[np.int64]) -> AsOf:
        """Return the counts of some scored events, by their rows in the log."""
        inside, counts = np.searchsorted(self.rows, rows), self.by_item[task]
        return AsOf(counts.count[inside], counts.positives[inside])


@dataclass(frozen=True)
class _Period:
    """One pair of windows, with the log and events of the primary task.

    Attributes:
        index: Number of the pair, from 0.
        available: Whether a row of the log is before the end of its w2, [num_rows].
        scored: Rows of the scored events.
        log: The available rows.
        events: The scored events.
        slices: Slices of the scored events, by name.
    """

    index: int
    available: NDArray[np.bool_]
    scored: NDArray[np.int64]
    log: Log
    events: Events
    slices: Slices


def _period(rows: _Rows, scored: _Scored, whole: WholeLog, index: int) -> _Period:
    """Return one pair of windows; all earlier events belong to its w0, as for a ranker retrained in each period."""
    columns, task = rows.columns, rows.columns.primary
    window = np.maximum(rows.part - index, 0).astype(np.int8)
    available = window < len(WINDOWS)
    log = Log(
        user=columns.user[available],
        item=columns.item[available],
        label=columns.labels[task][available],
        time=columns.time[available],
        window=window[available],
        num_users=columns.user_ids.size,
        num_items=columns.item_ids.size,
    )
    is_inside = available[scored.rows] & (window[scored.rows] > 0)
    inside = scored.rows[is_inside]
    events = Events(
        user=columns.user[inside],
        item=columns.item[inside],
        label=columns.labels[task][inside],
        train=window[inside] == 1,
        start=rows.start[inside],
        stop=rows.stop[inside],
        by_user=AsOf(rows.by_user[task].count[inside], rows.by_user[task].positives[inside]),
        by_item=scored.item_counts(task, inside),
        unseen=rows.unseen[columns.item[inside]],
        base_logit=None,
        weight=None if columns.weight is None else columns.weight[inside],
    )
    slices = built_in_slices(log, events, scored.popularity[index][is_inside], whole.head_count(whole.edges[index]))
    # Values are counted over all periods, so that each period has the same slices.
    test = scored.rows[rows.part[scored.rows] > 1]
    slices |= column_slices(columns.categories, inside, test)
    return _Period(index, available, inside, log, events, slices)


def _alignment(rows: _Rows) -> pl.DataFrame:
    """Return the events that alignment may see, with the label of each task."""
    columns, seen = rows.columns, (rows.part == 0) & ~rows.unseen[rows.columns.item]
    primary, *further = columns.labels
    further_labels = {task: columns.labels[task][seen] for task in further}
    labels = pl.DataFrame({"label": columns.labels[primary][seen], **further_labels, "drawn": columns.drawn[seen]})
    return columns.given_events(seen).hstack(labels)


def _split_fields(rows: _Rows, scored: _Scored, period: _Period, task: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of the split of one task in one pair of windows, without those that all splits share."""
    columns, inside = rows.columns, period.scored
    label, log, events = columns.labels[task], period.log, period.events
    if task != columns.primary:
        log = replace(log, label=label[period.available])
        events = replace(
            events,
            label=label[inside],
            by_user=replace(events.by_user, positives=rows.by_user[task].positives[inside]),
            by_item=replace(events.by_item, positives=scored.item_counts(task, inside).positives),
        )
    if task in columns.base_logits:
        events = replace(events, base_logit=columns.base_logits[task][inside])
    return {
        "item_ids": rows.item_ids,
        "user_ids": rows.user_ids,
        "log": log,
        "log_item_ids": columns.item_ids,
        "log_user_ids": columns.user_ids,
        "events": events,
        "history_item": rows.history_item,
        "history_label": label[: rows.history_item.size],
        "prior": float(log.label[log.window == 0].mean()),
        "slices": period.slices,
        "task": task,
        "period": period.index,
        "settings": settings,
        "hash": split_hash(log, columns.item_ids, rows.unseen, events, settings),
    }


def split_hash(
    log: Log, item_ids: NDArray[Any], unseen: NDArray[np.bool_], events: Events, settings: dict[str, Any]
) -> str:
    """Return the hash of all values that a score depends on, 16 hex digits."""
    digest = hashlib.blake2b(digest_size=8)
    digest.update(repr((len(events), settings["history"], settings["seed"])).encode())
    digest.update("\0".join(map(str, item_ids.tolist())).encode())
    counts = [events.by_item.count, events.by_item.positives]
    arrays = [log.user, log.item, log.label, log.time, log.window, unseen, events.start, events.stop, *counts]
    for array in (*arrays, events.base_logit, events.weight):
        digest.update(b"\0" if array is None else np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
