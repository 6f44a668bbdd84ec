"""Slices of the scored events: seen, head and new items, new users, and the values of categorical columns."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from lis_lightning.data.events import Events, Log
from lis_lightning.data.tables import Categories

NUM_VALUES = 12  # most frequent values of a column, each with its own slice

Slices = dict[str, NDArray[np.bool_]]


def built_in_slices(log: Log, events: Events, popularity: NDArray[np.int64], head_count: int) -> Slices:
    """Return the slices that every log has.

    - seen / unseen items: whether alignment may see the target.
    - head items: the most frequent items that together have at least 80 % of the events before w1, including ties;
      tail items: all others.
    - new items: items without an event before w1; they are also tail items.
    - known / new users: whether the user has an event before w1.

    Args:
        log: The log; its window 0 holds the events before w1.
        events: The scored events.
        popularity: Number of events before w1 of the target of each, in the whole log.
        head_count: Smallest number of events before w1 of a head item.
    """
    activity = np.bincount(log.user[log.window == 0], minlength=log.num_users)[events.user]
    head = popularity >= head_count
    return {
        "seen items": ~events.unseen,
        "unseen items": events.unseen,
        "head items": head,
        "tail items": ~head,
        "new items": popularity == 0,
        "known users": activity > 0,
        "new users": activity == 0,
    }


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
