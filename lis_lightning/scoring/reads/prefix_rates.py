"""Rates of the prefixes of semantic IDs as of each event, as a ranker learns them from its training events."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lis_lightning.functional.as_of_counts import AsOf, count_before
from lis_lightning.scoring.cache import SplitCache

_STRENGTH = 20.0  # events of all items at which the rate of a prefix is shrunk by half


def prefix_rates(cache: SplitCache, prefixes: NDArray[np.int64]) -> Tensor:
    """Return how much more often than all items the other items of the target's prefix were clicked before each event.

    The target's own events do not count: the base ranker has them. A prefix that all items share gives exactly 0.

    Args:
        cache: The split; its log is what counts are taken from.
        prefixes: Number of each item's prefix at each level, [num_items, L].

    Returns:
        Differences of log odds, [E, L] float64.
    """
    split = cache.split
    own, everything = cache.value(
        "counts of items and of all items",
        lambda: tuple(_counts(cache, keys) for keys in (np.arange(split.num_items), np.zeros(split.num_items, int))),
        content=lambda: None,
    )
    others = _minus(everything, own)
    overall = (others.positives + split.prior) / (others.count + 1.0)
    columns = []
    for level in range(prefixes.shape[1]):
        prefix = _minus(_counts(cache, prefixes[:, level]), own)
        rate = (prefix.positives + _STRENGTH * overall) / (prefix.count + _STRENGTH)
        difference = np.log(rate / (1 - rate)) - np.log(overall / (1 - overall))
        columns.append(np.where(prefix.count == others.count, 0.0, difference))
    return torch.from_numpy(np.stack(columns, axis=1))


def _counts(cache: SplitCache, key: NDArray[np.int64]) -> AsOf:
    """Return the counts of the earlier events of the target's key before each scored event.

    Args:
        cache: The split.
        key: Key of each item, [num_items].
    """
    split, log = cache.split, cache.split.log
    known = log.item < split.num_items
    scored = (log.user < split.num_users) & (log.window > 0)  # in the order of `split.events`
    (counts,) = count_before(
        key[log.item[known]], log.time[known], log.label[None, known], key[split.events.item], log.time[scored]
    )
    return counts


def _minus(counts: AsOf, own: AsOf) -> AsOf:
    return AsOf(counts.count - own.count, counts.positives - own.positives)
