"""Co-engagement pairs: items that the same user clicked within a few successive clicks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from lis_lightning.align.data.hashing import mix_bits
from lis_lightning.align.data.pair_keys import checked_rows, pack, unpack
from lis_lightning.errors import ConfigError, LogError, ShapeError
from lis_lightning.functional.pointwise_mutual_information import cooccurrence_vectors


@dataclass(frozen=True, kw_only=True)
class CoEngagement:
    """Which pairs of clicks count as co-engagement: as training pairs of an objective, and as preference data.

    Attributes:
        window: A click is paired with this many next clicks of the same user.
        max_gap: Longest time between the two, in the unit of the log (seconds for datetimes), for pairs within a
            session; None for any.
        user_power: How much less the pairs of a heavy user count; see :func:`co_engagement_pairs`.
        min_information: Least pointwise mutual information of a pair, in nats; None keeps all pairs.
        shuffled: Permute the items of the clicks first: a negative control, from which no ranker gains.

    Example:
        >>> users, items, times = np.array([7, 7, 7]), np.array([0, 1, 2]), np.array([1, 2, 3])
        >>> pairs, counts = CoEngagement(window=1).pairs(users, items, times)
        >>> pairs.tolist(), counts.tolist()
        ([[0, 1], [1, 2]], [1.0, 1.0])
    """

    window: int = 5
    max_gap: float | None = None
    user_power: float = 0.0
    min_information: float | None = None
    shuffled: bool = False

    def pairs(self, users: Any, items: Any, times: Any) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return pairs [num_pairs, 2] and how often each was seen [num_pairs].

        Args:
            users: User of each click.
            items: Row of its item.
            times: Its time.

        Raises:
            LogError: If there is no pair.
            ConfigError: If no pair reaches `min_information`.
        """
        pairs, counts = co_engagement_pairs(
            users, items, times, window=self.window, max_gap=self.max_gap, user_power=self.user_power
        )
        if self.min_information is None:
            return pairs, counts
        information = pointwise_mutual_information(pairs, counts)
        keep = information >= self.min_information
        if not keep.any():
            raise ConfigError(
                f"`min_information` is {self.min_information}, and no pair has more than {information.max():.2f} nats; "
                "lower it."
            )
        return pairs[keep], counts[keep]

    @property
    def cache_key(self) -> str:
        """Key of the cached ceiling: everything that the vectors depend on besides the events."""
        return repr(self)

    def __call__(self, events: pl.DataFrame) -> tuple[NDArray[Any], NDArray[np.float64]]:
        """Return item ids and vectors of the co-occurrence matrix of these pairs, for the ceiling.

        Args:
            events: Columns user, item, time, label.
        """
        clicks = events.filter(pl.col("label") == 1)
        ids, items = np.unique(clicks["item"].to_numpy(), return_inverse=True)
        if self.shuffled:
            items = np.random.default_rng(11).permutation(items)
        users = np.unique(clicks["user"].to_numpy(), return_inverse=True)[1]
        pairs, counts = self.pairs(users, items, clicks["time"].to_numpy())
        together = sparse.csr_matrix((counts, pairs.T), shape=(ids.size, ids.size))
        return ids, cooccurrence_vectors(sparse.csr_matrix(together + together.T)).vectors


def co_engagement_pairs(
    users: ArrayLike,
    items: ArrayLike,
    times: ArrayLike,
    *,
    window: int = 5,
    max_gap: float | None = None,
    user_power: float = 0.0,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return pairs of different items that a user engaged with within a few successive events, and their counts.

    Events of one user at the same time have no order in the log. They are put in a random order drawn from a hash of
    their ids, so that the result depends neither on the order of the rows nor on the numbering of the items.

    Args:
        users: The user of each positive event, as integers.
        items: The item's row in the item table, from 0.
        times: When, as numbers or datetimes.
        window: How many of the user's next positives an event is paired with.
        max_gap: Longest time between the two, in the unit of `times` (seconds for datetimes); None for any.
        user_power: The pairs of a user with n events count ``n ** -user_power``: 0 counts all alike, 0.35 is the value
            of Swing (Yang et al. 2020), 1 gives all users the same total.

    Returns:
        Pairs [num_pairs, 2] with the smaller row first, sorted, each once; and the weighted count of each [num_pairs].

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
    _check_arguments(users, items, times, window, max_gap, user_power)
    user = np.unique(users, return_inverse=True)[1].astype(np.int64)
    # By user, then time; ties in the order of a hash.
    order = np.lexsort((mix_bits(pack(user, items)), times, user))
    user, items, when = user[order], checked_rows(items[order]), _seconds(times[order])
    weight = np.bincount(user).astype(np.float64)[user] ** -user_power if len(user) else np.empty(0)
    # An event pairs with the one `lag` places later if both are of one user and of different items.
    keys, weights = [np.empty(0, np.int64)], [np.empty(0)]
    for lag in range(1, min(window, len(items) - 1) + 1):
        first, second = items[:-lag], items[lag:]
        paired = (user[:-lag] == user[lag:]) & (first != second)
        if max_gap is not None:
            paired &= when[lag:] - when[:-lag] <= max_gap
        keys.append(pack(np.minimum(first, second)[paired], np.maximum(first, second)[paired]))
        weights.append(weight[lag:][paired])
    distinct, pair = np.unique(np.concatenate(keys), return_inverse=True)
    counts = np.bincount(pair, weights=np.concatenate(weights), minlength=len(distinct))
    if len(distinct) == 0:
        gap = "" if max_gap is None else f" and {max_gap:g} of time"
        raise LogError(
            f"No pair of items: the alignment window has {len(items)} positive events of {len(np.unique(user))} users, "
            f"and no user engaged with two different items within {window} successive ones{gap}. Give the alignment "
            "window a larger share of the log, count more labels as positive, or raise `window`."
        )
    return unpack(distinct), counts.astype(np.float64)


def pointwise_mutual_information(pairs: NDArray[np.int64], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the pointwise mutual information of pairs, ``log(c_ij C / (c_i c_j))``, [num_pairs], in nats.

    Church and Hanks 1990, with each pair counted in both directions. It is above 0 where two items occur together more
    often than their popularity alone would lead to.

    Args:
        pairs: [num_pairs, 2] rows, each pair once.
        counts: How often each was seen.

    Example:
        >>> pointwise_mutual_information(np.array([[0, 1], [2, 3]]), np.array([1.0, 1.0])).round(3).tolist()
        [1.386, 1.386]
    """
    margin = np.bincount(pairs.ravel(), weights=np.repeat(counts, 2))
    return np.asarray(np.log(counts * margin.sum() / (margin[pairs[:, 0]] * margin[pairs[:, 1]])))


def _check_arguments(
    users: NDArray[Any], items: NDArray[Any], times: NDArray[Any], window: int, max_gap: float | None, user_power: float
) -> None:
    if users.ndim != 1 or not users.shape == items.shape == times.shape:
        raise ShapeError(
            f"`users`, `items` and `times` must be of one length, but got {users.shape}, {items.shape}, {times.shape}."
        )
    if window < 1:
        raise ConfigError(f"`window` must be 1 or more successive positives, but got {window}.")
    if (max_gap is not None and not max_gap > 0) or not user_power >= 0:
        raise ConfigError(f"`max_gap` must be above 0 and `user_power` 0 or more, but got {max_gap} and {user_power}.")


def _seconds(times: NDArray[Any]) -> NDArray[Any]:
    """Return datetimes as seconds, and numbers as they are."""
    return times.astype("datetime64[us]").astype(np.float64) / 1e6 if times.dtype.kind == "M" else times
