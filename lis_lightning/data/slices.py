"""Groups of scored events: where a representation helps, and where not."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from lis_lightning.data.events import Events, Log
from lis_lightning.data.tables import Categories

HEAD_SHARE = 0.8  # of the events of w0 fall on the head items
NUM_VALUES = 12  # values of a column that get a slice of their own

Slices = dict[str, NDArray[np.bool_]]


def built_in_slices(log: Log, events: Events) -> Slices:
    """Return the slices that every log has; ``before`` is window 0 of `log`, drawn negatives included.

    - seen / unseen items: whether alignment may see the target.
    - head items: the most frequent items that make at least 80 % of the events before w1 (items of equal count stay
      together); tail items: all others.
    - new items: without an event before w1. They are tail items too.
    - known / new users: whether the user has an event before w1.

    Args:
        log: Its window 0 says what was there before.
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
    """Return the number of events from which an item belongs to the head."""
    counts = np.sort(np.bincount(items))[::-1]
    return int(counts[np.searchsorted(np.cumsum(counts), HEAD_SHARE * items.size)])


def column_slices(categories: Mapping[str, Categories], rows: NDArray[np.int64], test: NDArray[np.int64]) -> Slices:
    """Return a slice ``column=value`` for the most frequent values of each column, and ``column=(other)``.

    Args:
        categories: Columns of the log.
        rows: Rows of the scored events.
        test: Rows among which values are counted; equally frequent ones come in the order of their names.
    """
    slices: Slices = {}
    for column, values in categories.items():
        count = np.bincount(values.codes[test], minlength=values.names.size)
        shown = np.argsort(-count, kind="stable")[:NUM_VALUES]
        shown = shown[count[shown] > 0]
        codes = values.codes[rows]
        slices |= {f"{column}={values.names[code]}": codes == code for code in shown}
        other = ~np.isin(codes, shown)
        if other.any():
            slices[f"{column}=(other)"] = slices.get(f"{column}=(other)", False) | other
    return slices
