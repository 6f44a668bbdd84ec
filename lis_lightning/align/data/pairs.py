"""Pairs of items that the same users engage with closely in time: what contrastive objectives align to."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lis_lightning.errors import ConfigError, LogError, ShapeError

_MAX_ROW = 2**31  # two rows share one int64 key


def co_engagement_pairs(
    users: ArrayLike,
    items: ArrayLike,
    times: ArrayLike,
    *,
    window: int = 5,
    max_gap: float | None = None,
    user_power: float = 0.0,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the pairs of different items that a user engaged with within a few successive events, and how often.

    Events of one user at the same time have no order in the log; they get a random one, drawn from the ids, so that
    neither the order of the rows nor that of the item numbers matters.

    Args:
        users: The user of each positive event of the alignment window, as integers.
        items: The item's row in the item table, from 0.
        times: When, as numbers or datetimes.
        window: How many of the user's next positives an event is paired with.
        max_gap: Longest time between the two, in the unit of `times` (of datetimes: seconds), as within a session;
            None for any.
        user_power: A user's pairs count ``n ** -user_power`` with n the user's events: 0 counts all alike, 0.35 is that
            of Swing (Yang et al. 2020), 1 lets heavy users say no more than others.

    Returns:
        Pairs [num_pairs, 2] with the smaller row first, sorted, each once; and how often [num_pairs] each was seen,
        weighted by user.

    Raises:
        ShapeError: If the three differ in length.
        ConfigError: If `window` is below 1, `max_gap` not above 0, or `user_power` below 0.
        LogError: If no user engaged with two different items within the window.

    Example:
        >>> pairs, counts = co_engagement_pairs(users=[7, 7, 7, 8, 8], items=[0, 1, 2, 1, 0], times=[1, 2, 3, 1, 9])
        >>> pairs.tolist(), counts.tolist()
        ([[0, 1], [0, 2], [1, 2]], [2.0, 1.0, 1.0])
    """
    users, items, times = np.asarray(users), np.asarray(items, dtype=np.int64), np.asarray(times)
    if users.ndim != 1 or not users.shape == items.shape == times.shape:
        raise ShapeError(
            f"`users`, `items` and `times` must be of one length, but got {users.shape}, {items.shape}, {times.shape}."
        )
    if window < 1:
        raise ConfigError(f"`window` must be 1 or more successive positives, but got {window}.")
    if (max_gap is not None and not max_gap > 0) or not user_power >= 0:
        raise ConfigError(f"`max_gap` must be above 0 and `user_power` 0 or more, but got {max_gap} and {user_power}.")
    user = np.unique(users, return_inverse=True)[1].astype(np.int64)
    order = np.lexsort((mixed(_key(user, items)), times, user))
    user, items, when = user[order], _checked_rows(items[order]), _seconds(times[order])
    worth = np.bincount(user).astype(np.float64)[user] ** -user_power if len(user) else np.empty(0)
    keys, weights = [np.empty(0, np.int64)], [np.empty(0)]
    for lag in range(1, min(window, len(items) - 1) + 1):
        first, second = items[:-lag], items[lag:]
        keep = (user[:-lag] == user[lag:]) & (first != second)
        if max_gap is not None:
            keep &= when[lag:] - when[:-lag] <= max_gap
        keys.append(_key(np.minimum(first, second)[keep], np.maximum(first, second)[keep]))
        weights.append(worth[lag:][keep])
    unique, place = np.unique(np.concatenate(keys), return_inverse=True)
    counts = np.bincount(place, weights=np.concatenate(weights), minlength=len(unique))
    if len(unique) == 0:
        raise LogError(
            f"No pair of items: the alignment window has {len(items)} positive events of {len(np.unique(user))} users, "
            f"and no user engaged with two different items within {window} successive ones"
            f"{'' if max_gap is None else f' and {max_gap:g} of time'}. Give the alignment window a larger share of "
            "the log, count more labels as positive, or raise `window`."
        )
    return np.stack([unique >> 32, unique & (2**32 - 1)], axis=1), counts.astype(np.float64)


def pointwise_information(pairs: NDArray[np.int64], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the pointwise mutual information of pairs, ``log(c_ij C / (c_i c_j))``, [num_pairs].

    Church and Hanks 1990, with each pair counted in both directions: above 0 where two items occur together more often
    than their popularity alone would bring.

    Args:
        pairs: [num_pairs, 2] rows, each pair once.
        counts: How often each was seen.

    Example:
        >>> pointwise_information(np.array([[0, 1], [2, 3]]), np.array([1.0, 1.0])).round(3).tolist()
        [1.386, 1.386]
    """
    margin = np.bincount(pairs.ravel(), weights=np.repeat(counts, 2))
    return np.asarray(np.log(counts * margin.sum() / (margin[pairs[:, 0]] * margin[pairs[:, 1]])))


class KnownPairs:
    """Tells which of many pairs of rows are known to go together, in either order, or are the same item.

    Args:
        pairs: [num_pairs, 2] rows of the item table.

    Example:
        >>> known = KnownPairs(np.array([[0, 3], [2, 1]]))
        >>> known.mask(np.array([0, 1]), np.array([3, 2, 1])).tolist()
        [[True, False, False], [False, True, True]]
    """

    def __init__(self, pairs: NDArray[np.int64]) -> None:
        self._keys = np.unique(pair_keys(pairs))

    def __len__(self) -> int:
        return len(self._keys)

    def mask(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return a mask [rows, columns], True where the two are a known pair or the same item."""
        return self.has(rows[:, None], columns[None, :])

    def has(self, rows: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return where two rows are a known pair or the same item, element by element, broadcast."""
        first, second = np.broadcast_arrays(rows, others)
        keys = _key(np.minimum(first, second), np.maximum(first, second))
        place = np.minimum(np.searchsorted(self._keys, keys), max(len(self._keys) - 1, 0))
        known = self._keys[place] == keys if len(self._keys) else np.zeros(keys.shape, dtype=bool)
        return np.asarray(known | (first == second), dtype=np.bool_)


def _key(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    return (first << 32) | second


def _seconds(times: NDArray[Any]) -> NDArray[Any]:
    return times.astype("datetime64[us]").astype(np.float64) / 1e6 if times.dtype.kind == "M" else times


def _checked_rows(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    if rows.size and not 0 <= rows.min() <= rows.max() < _MAX_ROW:
        raise LogError(
            f"Items must be rows of the item table, from 0 to {_MAX_ROW - 1}, but got {rows.min()} to {rows.max()}; "
            "look up each item's row first."
        )
    return rows


def pair_keys(pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return one number a pair, [num_pairs], the same in either order."""
    pairs = _checked_rows(pairs.astype(np.int64).reshape(-1, 2))
    return _key(pairs.min(axis=1), pairs.max(axis=1))


def mixed(keys: NDArray[np.int64], seed: int = 0) -> NDArray[np.uint64]:
    """Return 64 well-mixed bits of each key: the finaliser of splitmix64 (Steele, Lea and Flood 2014)."""
    bits = keys.astype(np.uint64) + np.uint64((seed + 1) * 0x9E3779B97F4A7C15 % 2**64)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(bits ^ (bits >> np.uint64(31)))
