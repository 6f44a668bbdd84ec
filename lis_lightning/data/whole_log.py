"""What only the whole log can say of a sample of its users: window edges, the sample itself, and counts of items."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lis_lightning.data.columns import Columns
from lis_lightning.data.events import WINDOWS
from lis_lightning.data.times import time_column, timestamp_like
from lis_lightning.errors import ConfigError, LogError
from lis_lightning.functional.as_of_counts import AsOf, count_before
from lis_lightning.functional.sampling import stable_hashes

ROLLING_START = 0.5  # share of the events in w0 of the first period
HEAD_SHARE = 0.8  # share of the events of w0 that the head items cover


class WholeLog(Protocol):
    """The whole log behind the rows of a sample of its users.

    Attributes:
        num_events: Number of its events.
        edges: Timestamps at which all windows but the first begin.
    """

    num_events: int
    edges: NDArray[Any]

    def items_before(self, item_ids: NDArray[Any], times: NDArray[Any]) -> dict[str, AsOf]:
        """Return for each task the counts of the strictly earlier events of items, one for each id and timestamp."""

    def head_count(self, edge: Any) -> int:
        """Return the smallest number of events before a timestamp of a head item."""


class LogInMemory:
    """The whole log, held in memory.

    Args:
        columns: All of its rows.
        edges: Timestamps at which all windows but the first begin.
    """

    def __init__(self, columns: Columns, edges: NDArray[Any]) -> None:
        self.num_events = columns.user.size
        self.edges = edges
        self._columns = columns

    def items_before(self, item_ids: NDArray[Any], times: NDArray[Any]) -> dict[str, AsOf]:
        """Return for each task the counts of the strictly earlier events of items, one for each id and timestamp."""
        columns = self._columns
        items = np.searchsorted(columns.item_ids, item_ids)
        is_asked = np.zeros(columns.item_ids.size, bool)
        is_asked[items] = True
        rows = np.flatnonzero(is_asked[columns.item])
        labels = np.stack([label[rows] for label in columns.labels.values()])
        counts = count_before(columns.item[rows], columns.time[rows], labels, items, times)
        return dict(zip(columns.labels, counts, strict=True))

    def head_count(self, edge: Any) -> int:
        """Return the smallest number of events before a timestamp of a head item."""
        counts = np.bincount(self._columns.item[self._columns.time < edge])
        return smallest_head_count(*np.unique(counts, return_counts=True))


def smallest_head_count(counts: NDArray[np.int64], num_items: NDArray[np.int64]) -> int:
    """Return the number of events of the least frequent head item.

    Head items are the most frequent ones that together have at least :data:`HEAD_SHARE` of the events.

    Args:
        counts: Distinct numbers of events of an item, ascending.
        num_items: Number of items with each.
    """
    counts, num_items = counts[::-1], num_items[::-1]
    events = np.cumsum(counts * num_items)
    return int(counts[np.searchsorted(events, HEAD_SHARE * events[-1])])


def edge_ranks(windows: Any, num_periods: int, num_events: int) -> NDArray[np.int64] | None:
    """Return the ranks, from 0, of the timestamps at which windows given as shares begin; None for given timestamps."""
    if windows == "rolling":
        shares = np.linspace(ROLLING_START, 1, num_periods + 1, endpoint=False)
    elif len(windows) == 3:
        shares = np.array([windows[0], windows[0] + windows[1]])
    else:
        return None
    return np.ceil((num_events - 1) * shares).astype(np.int64)


def given_edges(windows: Any, first_and_last: NDArray[Any]) -> NDArray[Any]:
    """Return window edges that are given as timestamps, in the unit of the log.

    Args:
        windows: The two timestamps.
        first_and_last: Those of the first and last event.

    Raises:
        ConfigError: If they are not ascending.
        LogError: If they are dates and the log's timestamps are numbers.
    """
    edges = np.asarray([timestamp_like(edge, first_and_last) for edge in windows])
    if edges[0] >= edges[1]:
        raise ConfigError(f"Expected w1 to begin before w2 in `windows`, got {windows!r}.")
    return edges


def check_windows(
    sizes: NDArray[np.int64], edges: NDArray[Any], first_and_last: NDArray[Any], settings: Mapping[str, Any]
) -> None:
    """Raise a LogError if a window holds no event.

    Args:
        sizes: Number of events in each window.
        edges: Timestamps at which all windows but the first begin.
        first_and_last: Timestamps of the first and last event.
        settings: Arguments of ``PreferenceSplit.from_log``.
    """
    if sizes.all():
        return
    index = int(np.argmin(sizes))
    rolling = settings["windows"] == "rolling"
    empty = f"{index} of the {sizes.size - 1} after w0" if rolling and index else WINDOWS[index]
    first, last = first_and_last
    raise LogError(
        f"Window {empty} holds no event: column {time_column(settings['time'])!r} spans {first} to {last}, the windows "
        f"begin at {' and '.join(map(str, edges))}. Choose other `windows`, or check that timestamps are not all equal."
    )


def window_edges(time: NDArray[Any], settings: Mapping[str, Any]) -> NDArray[Any]:
    """Return the timestamps at which all windows but the first begin.

    Args:
        time: Timestamps of all events.
        settings: Arguments of ``PreferenceSplit.from_log``.

    Raises:
        ConfigError: If given edges are not ascending.
        LogError: If a window holds no event.
    """
    first_and_last = np.array([time.min(), time.max()])
    ranks = edge_ranks(settings["windows"], settings["num_periods"], time.size)
    edges = given_edges(settings["windows"], first_and_last) if ranks is None else np.partition(time, ranks)[ranks]
    sizes = np.bincount(np.searchsorted(edges, time, side="right"), minlength=edges.size + 1)
    check_windows(sizes, edges, first_and_last, settings)
    return edges


def user_order(user_ids: NDArray[Any], seed: int) -> NDArray[np.int64]:
    """Return the order in which users are sampled, by the hash of their ids; equal hashes in the order of the ids."""
    return np.argsort(stable_hashes(user_ids, f"user:{seed}"), kind="stable")


def sampled_users(
    order: NDArray[np.int64],
    num_early: NDArray[np.int64],
    num_late: NDArray[np.int64],
    *,
    max_events: int | None,
    max_alignment_events: int | None,
) -> NDArray[np.bool_]:
    """Choose the users whose events are kept: those that may be scored, and those that alignment data is built from.

    Both are the first users of one order, so whole users are kept and one set contains the other.

    Args:
        order: All users, in the order in which they are taken.
        num_early: Number of events of each user before w1.
        num_late: Number of its events since w1.
        max_events: Stop taking users for scoring before their late events exceed this; None for no limit.
        max_alignment_events: Stop taking users for alignment before their early events exceed this; None for no limit.

    Returns:
        True for the chosen users.
    """
    chosen = np.zeros(order.size, bool)
    for counts, budget in ((num_late, max_events), (num_early, max_alignment_events)):
        total = np.cumsum(counts[order])
        within = np.ones(order.size, bool) if budget is None else total <= budget
        within |= total <= total[total > 0].min(initial=np.iinfo(np.int64).max)  # one user at least
        chosen[order[within]] = True
    return chosen


def sample_in_memory(columns: Columns, edges: NDArray[Any], settings: Mapping[str, Any]) -> Columns:
    """Return the rows of the sampled users; all rows if the budget for alignment holds them.

    Args:
        columns: The whole log.
        edges: Timestamps at which all windows but the first begin.
        settings: Arguments of ``PreferenceSplit.from_log``.
    """
    early = columns.time < edges[0]
    budget = settings["max_alignment_events"]
    if budget is None or early.sum() <= budget:
        return columns
    num_users = columns.user_ids.size
    chosen = sampled_users(
        user_order(columns.user_ids, settings["seed"]),
        np.bincount(columns.user[early], minlength=num_users),
        np.bincount(columns.user[~early], minlength=num_users),
        max_events=settings["max_events"],
        max_alignment_events=budget,
    )
    return columns.of_users(chosen)
