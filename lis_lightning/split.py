"""The validation preference split: an interaction log cut in time, with what was known before each event."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from lis_lightning import _log
from lis_lightning.errors import ConfigError, LogError, ShapeError
from lis_lightning.functional.history import AsOf, as_of, earlier_range, sample_shown_negatives, take_whole_users

if TYPE_CHECKING:
    from lis_lightning.result import LISResult

WINDOWS = ("w0 align", "w1 probe-train", "w2 probe-test")


@dataclass(frozen=True)
class Log:
    """All events as arrays sorted by user, then time: what preference data is built from. [num_rows] each.

    Attributes:
        user: User index; indices below ``split.num_users`` are the scored users.
        item: Item index; indices below ``split.num_items`` are the rows of R.
        label: 0 or 1.
        time: Timestamp.
        window: 0, 1 or 2.
        num_users: Number of users of the log.
        num_items: Number of items of the log.
    """

    user: NDArray[np.int64]
    item: NDArray[np.int64]
    label: NDArray[np.int8]
    time: NDArray[Any]
    window: NDArray[np.int8]
    num_users: int
    num_items: int


@dataclass(frozen=True)
class Events:
    """The scored events of w1 and w2, with what was known strictly before each. [num_events] each.

    Attributes:
        user: User index in ``[0, split.num_users)``.
        item: Row of the target in R.
        label: 0 or 1.
        train: True in w1 (the probe is fitted there), False in w2 (it is tested there).
        start: The history of event e is rows ``start[e]:stop[e]`` of the history arrays.
        stop: See `start`.
        by_user: Counts of the user's earlier events, over all of the log.
        by_item: Counts of the item's earlier events.
        unseen: Whether the target was withheld from alignment.
        base_logit: Logit of a production ranker, where the log has one.
    """

    user: NDArray[np.int64]
    item: NDArray[np.int64]
    label: NDArray[np.int8]
    train: NDArray[np.bool_]
    start: NDArray[np.int64]
    stop: NDArray[np.int64]
    by_user: AsOf
    by_item: AsOf
    unseen: NDArray[np.bool_]
    base_logit: NDArray[np.float64] | None

    def __len__(self) -> int:
        return self.user.size


@dataclass(frozen=True, eq=False)
class PreferenceSplit:
    """A log cut into an alignment window, a probe-train window and a probe-test window.

    Made by :meth:`from_log`. It holds everything that scoring needs: a score is a function of the split and of a
    matrix of item representations.

    Attributes:
        item_ids: Ids of the items that must be encoded, in the order of R's rows: all targets of scored events and
            all that stands in their histories.
        user_ids: Ids of the users whose events are scored.
        log: All events.
        log_item_ids: Ids of all items of the log; the first ``num_items`` are `item_ids`.
        log_user_ids: Ids of all users of the log; the first ``num_users`` are `user_ids`.
        events: The scored events.
        history_item: Rows of R of the scored users' events, sorted by user, then time.
        history_label: Their labels.
        alignment: The events of w0 without the unseen items, with columns user, item, time, label: the only events
            that alignment may see.
        prior: Positive rate of w0; as-of rates are smoothed to it.
        settings: The arguments it was made with.
        hash: Identifies content and settings; results pair only where it is equal.
    """

    item_ids: NDArray[Any]
    user_ids: NDArray[Any]
    log: Log = field(repr=False)
    log_item_ids: NDArray[Any] = field(repr=False)
    log_user_ids: NDArray[Any] = field(repr=False)
    events: Events = field(repr=False)
    history_item: NDArray[np.int64] = field(repr=False)
    history_label: NDArray[np.int8] = field(repr=False)
    alignment: pl.DataFrame = field(repr=False)
    prior: float
    settings: dict[str, Any]
    hash: str

    @property
    def num_items(self) -> int:
        """Number of items that must be encoded."""
        return int(self.item_ids.size)

    @property
    def num_users(self) -> int:
        """Number of users whose events are scored."""
        return int(self.user_ids.size)

    @classmethod
    def from_log(
        cls,
        log: str | Path | _log.Table,
        *,
        user: str = "user_id",
        item: str = "item_id",
        time: str = "timestamp",
        label: str | tuple[str, float] | None = "label",
        windows: tuple[float, float, float] | tuple[Any, Any] = (0.50, 0.25, 0.25),
        history: int = 50,
        max_events: int | None = 50_000,
        max_items: int | None = None,
        unseen_items: float = 0.2,
        negatives: int = 0,
        base_logit: str | None = None,
        seed: int = 0,
    ) -> PreferenceSplit:
        """Cut an interaction log.

        Args:
            log: Parquet or CSV path or glob, or a polars, pandas or pyarrow table; one row an event.
            user: Column of user ids (integers or strings).
            item: Column of item ids.
            time: Column of timestamps: numbers of one unit, dates or datetimes.
            label: Column of 0/1 labels, ``(column, threshold)`` for "at or above", or None if every row is a positive.
            windows: Shares of the events, by time, of w0, w1 and w2; or the two timestamps at which w1 and w2 begin.
            history: How many of the user's last strictly earlier events make an event's history.
            max_events: Budget of scored events (w1 and w2 together), filled with whole users.
            max_items: Budget of items that must be encoded, filled with whole users.
            unseen_items: Share of the items that is withheld from alignment, so that memorising shows.
            negatives: For a log of positives only: negatives for each positive, drawn from what other users engaged
                with in the same period (the same day, where the unit of time is known).
            base_logit: Column with a production ranker's logit for each event; None builds a base.
            seed: Of the choice of users, of unseen items and of negatives.

        Raises:
            LogError: If a column is missing, labels are not binary, timestamps are missing or mix units, or a window
                is empty or holds one class.
            ConfigError: If an argument is out of range.

        Example:
            >>> import polars as pl
            >>> log = pl.DataFrame({"user_id": [0, 1] * 20, "item_id": [0, 1, 2, 3] * 10,
            ...                     "timestamp": range(40), "label": [0, 1, 1, 0, 0] * 8})
            >>> split = PreferenceSplit.from_log(log)
            >>> split.num_items, len(split.events)
            (4, 20)
        """
        settings = {
            "user": user, "item": item, "time": time, "label": label, "windows": windows, "history": history,
            "max_events": max_events, "max_items": max_items, "unseen_items": unseen_items, "negatives": negatives,
            "base_logit": base_logit, "seed": seed,
        }  # fmt: skip
        _check_settings(settings)
        columns = _log.read_columns(log, user=user, item=item, time=time, label=label, base_logit=base_logit)
        return _cut(columns, settings | {"units_per_day": columns.units_per_day})

    def user_folds(self, num_folds: int = 5) -> pl.DataFrame:
        """Return the fold of each scored user, in equal numbers, drawn from the split's seed.

        Vectors that are leaked to a user's events must be built without the users of that fold. Users that are not
        scored are in no fold; they may always be used.

        Args:
            num_folds: Number of folds; ceilings use 5.

        Returns:
            Columns ``user`` (ids as in the log, in the order of `user_ids`) and ``fold``, in ``[0, num_folds)``.
        """
        rng = np.random.default_rng([self.settings["seed"], num_folds])
        return pl.DataFrame({"user": self.user_ids, "fold": rng.permutation(self.num_users) % num_folds})

    def item_rows(self, item_ids: ArrayLike) -> NDArray[np.int64]:
        """Return the row of R of each id, -1 for ids that are not in the split.

        Args:
            item_ids: Ids of the same kind (integers or strings) as the log's.

        Raises:
            ShapeError: If ids are integers here and strings in the log, or the other way round.
        """
        ids = np.asarray(item_ids).ravel()
        numeric = self.item_ids.dtype.kind in "iu"
        if ids.size and (ids.dtype.kind in "iu") != numeric:
            raise ShapeError(
                f"Item ids of the split are {'integers' if numeric else 'strings'} (such as {self.item_ids[0]!r}), got "
                f"{ids.dtype} (such as {ids[0]!r}); use the ids of the interaction log."
            )
        order, ordered = self._ordered_ids
        at = np.minimum(np.searchsorted(ordered, ids), self.num_items - 1)
        return np.where(ordered[at] == ids, order[at], -1)

    @cached_property
    def _ordered_ids(self) -> tuple[NDArray[np.int64], NDArray[Any]]:
        order = np.argsort(self.item_ids)
        return order, self.item_ids[order]

    def score(self, embeddings: ArrayLike, **options: Any) -> LISResult:
        """Score item representations; see :func:`lis_lightning.score.score`.

        Args:
            embeddings: [num_items, dim], rows in the order of `item_ids`.
            **options: As :func:`lis_lightning.score.score`.
        """
        from lis_lightning.score import score

        return score(self, embeddings, **options)

    def describe(self) -> dict[str, Any]:
        """Return sizes, rates and what the split can detect, as plain values; `print(split)` shows them."""
        from lis_lightning.summary import describe

        return describe(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> PreferenceSplit:
        # Nothing changes a split, and what is computed once for it is found by its identity.
        return self

    def __str__(self) -> str:
        from lis_lightning.summary import render

        return render(self)


def _check_settings(settings: dict[str, Any]) -> None:
    """Raise ConfigError for the first argument out of range."""
    for name, low in (("history", 1), ("negatives", 0), ("max_events", 1), ("max_items", 1)):
        value = settings[name]
        if value is not None and (not isinstance(value, int) or value < low):
            raise ConfigError(f"Expected `{name}` to be an integer of at least {low}, got {value!r}.")
    if not 0 <= settings["unseen_items"] < 1:
        raise ConfigError(f"Expected `unseen_items` to be a share in [0, 1), got {settings['unseen_items']!r}.")
    windows = settings["windows"]
    if len(windows) not in {2, 3}:
        raise ConfigError(f"Expected `windows` to be three shares or two timestamps, got {windows!r}.")
    if len(windows) == 3 and (min(windows) <= 0 or abs(sum(windows) - 1) > 1e-6):
        raise ConfigError(f"Expected three positive shares that sum to 1 in `windows`, got {windows!r}.")
    if settings["label"] is None and not settings["negatives"]:
        raise ConfigError(
            "`label=None` says that every row is a positive; an AUC needs negatives too: set `negatives` (4, say), or "
            "better, log what was shown and not clicked."
        )


def _cut(columns: _log.Columns, settings: dict[str, Any]) -> PreferenceSplit:
    """Build the split from clean columns."""
    rng = np.random.default_rng(settings["seed"])
    window = _windows(columns.time, settings["windows"], settings["time"])
    # Drawn before anything that depends on the budget, so that the same items are unseen whatever the budget.
    unseen = rng.random(columns.item_ids.size) < settings["unseen_items"]
    columns, window = _with_negatives(columns, window, settings["negatives"], rng)
    scored_users = take_whole_users(
        columns.user,
        columns.item,
        window > 0,
        max_events=settings["max_events"],
        max_items=settings["max_items"],
        rng=rng,
    )
    user_code, user_ids = _scored_first(scored_users, columns.user_ids)
    rows = np.lexsort((columns.time, user_code[columns.user]))
    user, item, label, time, window = (
        user_code[columns.user][rows], columns.item[rows], columns.label[rows], columns.time[rows], window[rows]
    )  # fmt: skip
    num_users = int(scored_users.sum())
    scored = np.flatnonzero((user < num_users) & (window > 0))
    first, stop = earlier_range(user, time)
    start = np.maximum(first, stop - settings["history"])
    needed = np.zeros(columns.item_ids.size, bool)
    needed[item[scored]] = True
    needed[item[_covered(start[scored], stop[scored], item.size)]] = True
    item_code, log_item_ids = _scored_first(needed, columns.item_ids)
    prior = float(label[window == 0].mean())
    by_user, by_item = as_of(user, time, label), as_of(item, time, label)
    events = Events(
        user=user[scored], item=item_code[item[scored]], label=label[scored], train=window[scored] == 1,
        start=start[scored], stop=stop[scored],
        by_user=AsOf(by_user.count[scored], by_user.positives[scored]),
        by_item=AsOf(by_item.count[scored], by_item.positives[scored]),
        unseen=unseen[item[scored]],
        base_logit=None if columns.base_logit is None else columns.base_logit[rows][scored],
    )  # fmt: skip
    _check_classes(events)
    align = (window == 0) & ~unseen[item]
    # Scored users come first in `user`, so their rows are a prefix, and `start:stop` stay valid in it.
    prefix = int(np.searchsorted(user, num_users))
    # Items outside the encoded ones stand in a history only beyond its reach; row 0 is a placeholder never read.
    history_item = np.where(needed[item[:prefix]], item_code[item[:prefix]], 0)
    log = Log(user, item_code[item], label, time, window, columns.user_ids.size, columns.item_ids.size)
    return PreferenceSplit(
        item_ids=log_item_ids[: int(needed.sum())],
        user_ids=user_ids[:num_users],
        log=log,
        log_item_ids=log_item_ids,
        log_user_ids=user_ids,
        events=events,
        history_item=history_item,
        history_label=label[:prefix],
        alignment=pl.DataFrame(
            {
                "user": user_ids[user[align]],
                "item": columns.item_ids[item[align]],
                "time": time[align],
                "label": label[align],
            }
        ),
        prior=prior,
        settings=settings,
        hash=_hash(log, log_item_ids, events, settings),
    )


def _windows(time: NDArray[Any], windows: tuple[Any, ...], column: str) -> NDArray[np.int8]:
    """Return 0, 1 or 2 for each event; raise if a window holds no event."""
    if len(windows) == 3:
        edges = np.quantile(time, [windows[0], windows[0] + windows[1]], method="higher")
    else:
        edges = np.asarray([_log.timestamp_like(edge, time) for edge in windows])
    window = np.searchsorted(edges, time, side="right").astype(np.int8)
    sizes = np.bincount(window, minlength=3)
    if (sizes == 0).any():
        empty = WINDOWS[int(np.argmin(sizes))]
        raise LogError(
            f"Window {empty} holds no event: column {column!r} spans {time.min()} to {time.max()}, the windows begin "
            f"at {edges[0]} and {edges[1]}. Choose other `windows`, or check that timestamps are not all equal."
        )
    return window


def _with_negatives(
    columns: _log.Columns, window: NDArray[np.int8], num_negatives: int, rng: np.random.Generator
) -> tuple[_log.Columns, NDArray[np.int8]]:
    """Append drawn negatives to a log of positives; return a log with real negatives as it is."""
    has_negatives = not columns.label.all()
    if has_negatives and num_negatives:
        raise ConfigError(
            f"`negatives={num_negatives}` is for logs of positives only; this log has "
            f"{int((columns.label == 0).sum())} real negatives. Leave `negatives` at 0."
        )
    if has_negatives:
        return columns, window
    if not num_negatives:
        raise LogError(
            f"All {columns.label.size} labels are positive; an AUC needs negatives. Set `negatives` (4, say) to draw "
            "them from what other users engaged with on the same day, or log what was shown."
        )
    if columns.base_logit is not None:
        raise ConfigError("Drawn negatives have no `base_logit`; leave one of `negatives` and `base_logit` out.")
    source, negative = sample_shown_negatives(columns.user, columns.item, columns.periods(), num_negatives, rng)
    return columns.with_negatives(source, negative), np.r_[window, window[source]]


def _scored_first(chosen: NDArray[np.bool_], ids: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Return new codes that put the chosen first, and the ids in their order."""
    order = np.argsort(~chosen, kind="stable")
    code = np.empty(order.size, np.int64)
    code[order] = np.arange(order.size)
    return code, ids[order]


def _covered(start: NDArray[np.int64], stop: NDArray[np.int64], size: int) -> NDArray[np.bool_]:
    """Return which rows lie in at least one of the ranges ``start:stop``."""
    depth = np.bincount(start, minlength=size + 1) - np.bincount(stop, minlength=size + 1)
    return np.cumsum(depth)[:size] > 0


def _check_classes(events: Events) -> None:
    """Raise LogError if w1 or w2 lacks a class."""
    for name, inside in ((WINDOWS[1], events.train), (WINDOWS[2], ~events.train)):
        positives, total = int(events.label[inside].sum()), int(inside.sum())
        if positives in {0, total}:
            raise LogError(
                f"Window {name} needs events of both classes, got {positives} positives among {total} scored events. "
                "Use longer windows, a larger `max_events`, or another label."
            )


def _hash(log: Log, item_ids: NDArray[Any], events: Events, settings: dict[str, Any]) -> str:
    """Return 16 hex digits that change with any value the score depends on."""
    digest = hashlib.blake2b(digest_size=8)
    arrays = [log.user, log.item, log.label, log.time, log.window, events.start, events.stop, events.unseen]
    if events.base_logit is not None:
        arrays.append(events.base_logit)
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    digest.update("\0".join(map(str, item_ids.tolist())).encode())
    digest.update(repr((len(events), settings["history"])).encode())
    return digest.hexdigest()
