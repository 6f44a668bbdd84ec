"""User histories of events, with the user profile and the repeat counts that depend on them.

Shapes: E events, H rows of history, L rows of the longest history, N items, k principal axes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

BLOCK = 8192  # events per block of padded histories
_PROFILE_PRIOR = 5.0  # history rows at which a profile is shrunk by half


@dataclass(frozen=True)
class Histories:
    """Histories of E events as ranges of H shared rows, and each event's target and user rate.

    Attributes:
        item: Item of each history row, [H].
        label: Label of each history row, [H].
        start: First history row of each event, [E].
        stop: One past its last history row, [E].
        target: Item of each event, [E].
        user_rate: Smoothed positive rate of the user before the event, [E]; label residuals are taken from it.
        length: Longest history L.
    """

    item: Int[Tensor, " H"]
    label: Float[Tensor, " H"]
    start: Int[Tensor, " E"]
    stop: Int[Tensor, " E"]
    target: Int[Tensor, " E"]
    user_rate: Float[Tensor, " E"]
    length: int

    def to(self, device: torch.device) -> Histories:
        """Return the same histories on another device."""
        return replace(self, **{name: value.to(device) for name, value in vars(self).items() if name != "length"})

    def select(self, events: Int[Tensor, " e"]) -> Histories:
        """Return the histories of some events."""
        return replace(
            self,
            start=self.start[events],
            stop=self.stop[events],
            target=self.target[events],
            user_rate=self.user_rate[events],
        )

    def rename(self, items: Int[Tensor, " N"]) -> Histories:
        """Return the same histories with item i renamed to ``items[i]``."""
        return replace(self, item=items[self.item], target=items[self.target])

    def regroup(self, group: Int[Tensor, " E"], num_items: int) -> Histories:
        """Return the same histories with item i renamed to ``i + g * num_items`` for the events of group g.

        Args:
            group: Group of each event, [E]; no two groups share a history row, as is true of groups of users.
            num_items: Number of items.
        """
        # All events that read a history row are of one group: look up the first event that ends beyond the row.
        order = self.stop.argsort(stable=True)
        rows = torch.arange(self.item.numel(), device=self.item.device)
        reader = torch.searchsorted(self.stop[order], rows, right=True).clamp_max_(order.numel() - 1)
        return replace(self, item=self.item + num_items * group[order][reader], target=self.target + num_items * group)

    def padded(self, size: int = BLOCK) -> Iterator[tuple[slice, Int[Tensor, "e L"], Bool[Tensor, "e L"]]]:
        """Yield blocks of `size` events with their history rows, right-padded, and a mask of the real rows."""
        offsets = torch.arange(self.length, device=self.start.device)
        for first in range(0, self.start.numel(), size):
            block = slice(first, min(first + size, self.start.numel()))
            rows = self.start[block, None] + offsets
            valid = rows < self.stop[block, None]
            yield block, torch.where(valid, rows, 0), valid


def user_profiles(vectors: Float[Tensor, "N k"], histories: Histories) -> Float[Tensor, "E k"]:
    """Return the residual profile of each event's user, ``m_e = sum_j (y_j - rate_e) p_j / (5 + n_e)``.

    The sum runs over the n_e rows of the event's history, with labels y_j and item coordinates p_j.

    Args:
        vectors: Principal coordinates of the items.
        histories: The events.

    Returns:
        One profile per event; zeros for an empty history.
    """
    k = vectors.shape[1]
    profiles = vectors.new_empty(histories.start.numel(), k)
    if not histories.start.numel():  # a fold of users may have no events
        return profiles
    # Sums over histories are differences of prefix sums over the shared rows, in float64: no pass over each history.
    for events in torch.split(histories.stop.argsort(stable=True), BLOCK):
        start, stop, rate = histories.start[events], histories.stop[events], histories.user_rate[events]
        first, last = int(start.min()), int(stop.max())
        rows = vectors.index_select(0, histories.item[first:last])
        sums = torch.zeros(last - first + 1, 2 * k, dtype=torch.float64, device=vectors.device)
        sums[1:, :k] = rows
        torch.mul(rows, histories.label[first:last, None], out=sums[1:, k:])
        sums.cumsum_(0)
        own = sums.index_select(0, stop - first) - sums.index_select(0, start - first)
        residual = own[:, k:] - rate[:, None] * own[:, :k]
        profiles[events] = (residual / (_PROFILE_PRIOR + stop - start)[:, None]).to(vectors.dtype)
    return profiles


def repeat_counts(histories: Histories) -> Float[Tensor, "E 2"]:
    """Return how often the target occurs in the event's history as a positive and as a negative, log1p of each.

    Args:
        histories: The events.

    Returns:
        Positive and negative occurrences, [E, 2].
    """
    counts = histories.user_rate.new_zeros(histories.start.numel(), 2)
    for block, rows, valid in histories.padded():
        same = valid & (histories.item[rows] == histories.target[block][:, None])
        positive = histories.label[rows] > 0.5
        counts[block, 0] = (same & positive).sum(1).double()
        counts[block, 1] = (same & ~positive).sum(1).double()
    return counts.log1p()
