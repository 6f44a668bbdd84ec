"""Slices of the scored events: seen, head and new items, new users, and the values of categorical columns."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from lis_lightning.data.events import Events, Log
from lis_lightning.data.tables import Categories

HEAD_SHARE = 0.8  # share of the events of w0 that the head items cover
NUM_VALUES = 12  # most frequent values of a column, each with its own slice

Slices = dict[str, NDArray[np.bool_]]


def built_in_slices(log: Log, events: Events) -> Slices:
    """Return the slices that every log has.

    - seen / unseen items: whether alignment may see the target.
    - head items: the most frequent items that together have at least 80 % of the events before w1, including ties;
      tail items: all others.
    - new items: items without an event before w1; they are also tail items.
    - known / new users: whether the user has an event before w1.

    Drawn negatives count as events.

    Args:
        log: The log; its window 0 holds the events before w1.
        events: The scored events.
    """
    before = log.window == 0
    popularity = np.bincount(log.item[before], minlength=log.num_items)[events.item]
    activity = np.bincount(log.user[before], minlength=log.num_users)[events.user]
    head = popularity >= _head_count(log.item[before])
    return {
        "seen items": ~events.unseen,
        "unseen items": events.unseen,
        "head items": head,
        "tail items": ~head,
        "new items": popularity == 0,
        "known users": activity > 0,
        "new users": activity == 0,
    }


def _head_count(items: NDArray[np.int64]) -> int:
    """Return the smallest number of events of a head item."""
    counts = np.sort(np.bincount(items))[::-1]
    return int(counts[np.searchsorted(np.cumsum(counts), HEAD_SHARE * items.size)])


def column_slices(categories: Mapping[str, Categories], rows: NDArray[np.int64], test: NDArray[np.int64]) -> Slices:
    """Return a slice ``column=value`` for each of the most frequent values of each column, and ``column=(other)``.

    Args:
        categories: Columns of the log, by name.
        rows: Rows of the scored events.
        test: Rows on which the frequency of values is counted; ties are broken by name.
    """
    slices: Slices = {}
    for column, values in categories.items():
        count = np.bincount(values.codes[test], minlength=values.names.size)
        frequent = np.argsort(-count, kind="stable")[:NUM_VALUES]
        frequent = frequent[count[frequent] > 0]
        codes = values.codes[rows]
        slices |= {f"{column}={values.names[code]}": codes == code for code in frequent}
        infrequent = ~np.isin(codes, frequent)
        if infrequent.any():
            # The column may hold the value "(other)" itself.
            slices[f"{column}=(other)"] = slices.get(f"{column}=(other)", False) | infrequent
    return slices
