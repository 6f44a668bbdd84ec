"""As-of counts: the events before each event with the same user or item, and the rates they give.

Everything is sorting and searching on whole columns, without a loop over events. "Before" always means a strictly
earlier timestamp: events of the same second are not history.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Int64, Num
from numpy import ndarray

_INT64_MAX = 2**63 - 1


@dataclass(frozen=True)
class AsOf:
    """Counts of the strictly earlier events with the same key, one per event.

    Attributes:
        count: Number of earlier events, [n].
        positives: Number of earlier positive events, [n].
    """

    count: Int[ndarray, " n"]
    positives: Int[ndarray, " n"]

    def rate(self, prior: float, strength: float = 5.0) -> Float[ndarray, " n"]:
        """Return the positive rate, smoothed by `strength` events at the rate `prior`; in (0, 1)."""
        smoothed: ndarray = (self.positives + strength * prior) / (self.count + strength)
        return smoothed


def earlier_range(
    keys: Int[ndarray, " n"], times: Num[ndarray, " n"]
) -> tuple[Int64[ndarray, " n"], Int64[ndarray, " n"]]:
    """Return the row range of the strictly earlier events of the same key, for rows sorted by key, then time.

    Args:
        keys: Key of each row (user or item), non-decreasing.
        times: Timestamp of each row, non-decreasing within a key.

    Returns:
        ``start`` and ``stop``, [n] each: rows ``start[i]:stop[i]`` share the key of row i and are strictly earlier.

    Example:
        >>> import numpy as np
        >>> start, stop = earlier_range(np.array([0, 0, 0, 1]), np.array([5, 5, 6, 1]))
        >>> start.tolist(), stop.tolist()
        ([0, 0, 0, 3], [0, 0, 2, 3])
    """
    if not keys.size:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    index = np.arange(keys.size)
    new_key = np.r_[True, keys[1:] != keys[:-1]]
    new_time = new_key | np.r_[True, times[1:] != times[:-1]]
    # The running maximum carries the first row of each key, and of each timestamp within it, forward.
    start = np.maximum.accumulate(np.where(new_key, index, 0))
    stop = np.maximum.accumulate(np.where(new_time, index, 0))
    return start, stop


def lexical_order(*keys: Num[ndarray, " n"]) -> Int64[ndarray, " n"]:
    """Return the stable order that sorts rows by the first key, then by the next.

    Equals ``np.lexsort`` with the keys reversed. Integer keys are packed into one as far as 63 bits reach, so that one
    sort replaces several: a fifth of the time for a million users and a year in seconds.

    Args:
        *keys: The most significant first.

    Returns:
        Row indices, [n].

    Example:
        >>> import numpy as np
        >>> lexical_order(np.array([1, 0, 1]), np.array([5, 9, 4])).tolist()
        [1, 2, 0]
    """
    packed: list[ndarray] = []  # the least significant first, as `lexsort` expects
    span = 0  # number of values of the last packed key; 0 if no other key can be packed with it
    for key in reversed(keys):
        low, high = _integer_range(key)
        width = high - low + 1
        if width > _INT64_MAX:
            packed.append(key)
            span = 0
        elif span and span * width <= _INT64_MAX:
            packed[-1] = packed[-1] + (key.astype(np.int64) - low) * span
            span *= width
        else:
            packed.append(key.astype(np.int64) - low)
            span = width
    return np.argsort(packed[0], kind="stable") if len(packed) == 1 else np.lexsort(packed)


def _integer_range(key: ndarray) -> tuple[int, int]:
    """Return the least and the largest value; a range too wide to pack for keys that are not integers."""
    if key.size and key.dtype.kind in "iu":
        return int(key.min()), int(key.max())
    return 0, _INT64_MAX


def as_of(keys: Int[ndarray, " n"], times: Num[ndarray, " n"], labels: Int[ndarray, "tasks n"]) -> list[AsOf]:
    """Return for each event how many strictly earlier events share its key, and how many of those are positive.

    Args:
        keys: User or item of each event, in any order.
        times: Timestamp of each event.
        labels: 0 or 1, a row per task.

    Returns:
        The counts of each task; ``count`` is one array shared by all of them.

    Example:
        >>> import numpy as np
        >>> counts, = as_of(np.array([3, 3, 3]), np.array([10, 30, 20]), np.array([[1, 0, 0]]))
        >>> counts.count.tolist(), counts.positives.tolist()
        ([0, 2, 1], [0, 1, 1])
    """
    order = lexical_order(keys, times)
    start, stop = earlier_range(keys[order], times[order])
    count = np.empty(keys.size, np.int64)
    count[order] = stop - start
    counts = []
    for label in labels:
        # Positives within a range are a difference of prefix sums.
        total = np.r_[0, np.cumsum(label[order], dtype=np.int64)]
        positives = np.empty(keys.size, np.int64)
        positives[order] = total[stop] - total[start]
        counts.append(AsOf(count, positives))
    return counts


def count_before(
    keys: Int[ndarray, " n"],
    times: Num[ndarray, " n"],
    labels: Int[ndarray, "tasks n"],
    query_keys: Int[ndarray, " m"],
    query_times: Num[ndarray, " m"],
) -> list[AsOf]:
    """Return for each query how many events of its key are strictly earlier, and how many of those are positive.

    Args:
        keys: User or item of each event, in any order.
        times: Timestamp of each event.
        labels: 0 or 1, a row per task.
        query_keys: Key of each query.
        query_times: Timestamp of each query.

    Returns:
        The counts of each task, [m] each; ``count`` is one array shared by all of them.

    Example:
        >>> import numpy as np
        >>> counts, = count_before(
        ...     np.array([3, 3, 4]), np.array([10, 20, 10]), np.array([[1, 0, 1]]), np.array([3, 4]), np.array([20, 10])
        ... )
        >>> counts.count.tolist(), counts.positives.tolist()
        ([1, 0], [1, 0])
    """
    is_event = np.r_[np.zeros(query_keys.size, np.int64), np.ones(keys.size, np.int64)]
    # Of one key and timestamp queries come first, so that the events before a query are the strictly earlier ones.
    order = lexical_order(np.r_[query_keys, keys], np.r_[query_times, times], is_event)
    rank = np.empty(order.size, np.int64)
    rank[order] = np.arange(order.size)
    sorted_keys = np.r_[query_keys, keys][order]
    first = np.searchsorted(sorted_keys, query_keys)
    at = rank[: query_keys.size]

    def within(values: ndarray) -> ndarray:
        total = np.r_[0, np.cumsum(values[order], dtype=np.int64)]
        difference: ndarray = total[at] - total[first]
        return difference

    count, none = within(is_event), np.zeros(query_keys.size, np.int64)
    return [AsOf(count, within(np.r_[none, label])) for label in labels]
