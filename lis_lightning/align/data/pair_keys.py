"""Pairs of item rows as 64-bit keys, and the set of pairs that are known to go together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lis_lightning.errors import LogError

_MAX_ROW = 2**31  # two rows share one int64 key


def pack(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return one key for each ordered pair: the first number in the upper 32 bits, the second in the lower."""
    return (first << 32) | second


def unpack(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the pairs of keys, [num_pairs, 2]: the inverse of `pack`."""
    return np.stack([keys >> 32, keys & (2**32 - 1)], axis=1)


def pair_keys(pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return one key for each pair, [num_pairs], the same in either order of the two items.

    Args:
        pairs: [num_pairs, 2] rows of the item table.

    Raises:
        LogError: If a row is negative or above 2**31 - 1.

    Example:
        >>> pair_keys(np.array([[3, 9], [9, 3]])).tolist()
        [12884901897, 12884901897]
    """
    pairs = checked_rows(pairs.astype(np.int64).reshape(-1, 2))
    return pack(pairs.min(axis=1), pairs.max(axis=1))


def checked_rows(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the rows of items, or raise LogError if they do not fit into half a key."""
    if rows.size and not 0 <= rows.min() <= rows.max() < _MAX_ROW:
        raise LogError(
            f"Items must be rows of the item table, from 0 to {_MAX_ROW - 1}, but got {rows.min()} to {rows.max()}; "
            "look up each item's row first."
        )
    return rows


class PairSet:
    """A set of unordered pairs of item rows; an item also counts as a pair with itself.

    Args:
        pairs: [num_pairs, 2] rows of the item table.

    Example:
        >>> pairs = PairSet(np.array([[0, 3], [2, 1]]))
        >>> pairs.mask(np.array([0, 1]), np.array([3, 2, 1])).tolist()
        [[True, False, False], [False, True, True]]
    """

    def __init__(self, pairs: NDArray[np.int64]) -> None:
        self._keys = np.unique(pair_keys(pairs))

    def __len__(self) -> int:
        return len(self._keys)

    def mask(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return a mask [rows, columns], True where the two are a pair of the set or the same item."""
        return self.has(rows[:, None], columns[None, :])

    def has(self, rows: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return where two rows are a pair of the set or the same item, element by element, broadcast."""
        first, second = np.broadcast_arrays(rows, others)
        same = first == second
        if not len(self._keys):
            return np.asarray(same, dtype=np.bool_)
        # Binary search in the sorted keys.
        keys = pack(np.minimum(first, second), np.maximum(first, second))
        position = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.asarray((self._keys[position] == keys) | same, dtype=np.bool_)
