"""The events of a split as arrays: the log, and the scored events with their histories and as-of counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lis_lightning.functional.as_of_counts import AsOf

WINDOWS = ("w0 align", "w1 probe-train", "w2 probe-test")


@dataclass(frozen=True)
class Log:
    """All events up to the end of w2, sorted by user, then time; [num_rows] each. Preference data is built from it.

    With rolling windows, each period has its own log, without later events.

    Attributes:
        user: User index; indices below ``split.num_users`` are the scored users.
        item: Item index; indices below ``split.num_items`` are the rows of R.
        label: 0 or 1.
        time: Timestamp, in the unit of the log.
        window: 0 before w1, 1 in w1, 2 in w2.
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
    """The scored events of w1 and w2, with the history strictly before each; [num_events] each.

    Attributes:
        user: User index in ``[0, split.num_users)``.
        item: Row of the target in R.
        label: 0 or 1.
        train: True in w1, where the probe is fitted; False in w2, where it is tested.
        start: The history of event e is rows ``start[e]:stop[e]`` of the history arrays.
        stop: See `start`.
        by_user: Counts of the user's strictly earlier events in the whole log.
        by_item: Counts of the item's strictly earlier events in the whole log.
        unseen: Whether the target was withheld from alignment.
        base_logit: Logit of a production ranker; None if the log has none for this task.
        weight: Weight of each event, at least 0; None if events are not weighted.
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
    weight: NDArray[np.float64] | None

    def __len__(self) -> int:
        return self.user.size
