"""User histories of events, with the user profile and the repeat counts that depend on them.

Shapes: E events, H rows of history, L rows of the longest history, N items, k principal axes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lis_lightning.functional.threads import for_each_block

BLOCK = 8192  # events per block of padded histories
_GATHER = {"cpu": 2**22, "cuda": 2**26}  # floats gathered for a batch of products: 16 MB on a CPU
_RUN = 32  # history rows whose events share one product of targets and histories
_PROFILE_PRIOR = 5.0  # history rows at which a profile is shrunk by half


@dataclass(frozen=True)
class Runs:
    """A batch of runs of neighbouring events, padded to one size.

    Attributes:
        events: Events of each run, [runs, events]; padded with the run's last event.
        rows: History rows that cover the histories of each run's events and the row after them, [runs, rows],
            consecutive.
    """

    events: Int[Tensor, "runs events"]
    rows: Int[Tensor, "runs rows"]


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

    def rows_of_targets(self) -> bool:
        """Return whether each event's target stands in the row after its history, as in a log that contains both."""
        inside = self.stop < self.item.numel()
        return bool(inside.all()) and torch.equal(self.item[self.stop], self.target)

    def runs(self, dim: int) -> Iterator[Runs]:
        """Yield all events in batches of runs: at most 32 events each, whose histories end within 32 rows.

        Histories of neighbouring events overlap: the events of a run share one product with all of their rows.

        Args:
            dim: Width of the vectors that are gathered, for the size of a batch.
        """
        order = self.stop.argsort(stable=True)
        stop, index = self.stop[order], torch.arange(order.numel(), device=order.device)
        # A run begins at each new stretch of `_RUN` rows, and after every `_RUN` events within a stretch.
        _, sizes = torch.unique_consecutive(stop // _RUN, return_counts=True)
        position = index - (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
        begin = (position % _RUN == 0).nonzero()[:, 0]
        size = torch.diff(begin, append=begin.new_tensor([order.numel()]))
        # The rows of a run reach from the first start of its events to the last stop.
        run = torch.arange(begin.numel(), device=order.device).repeat_interleave(size)
        low = stop.new_full(begin.shape, self.item.numel()).scatter_reduce(0, run, self.start[order], "amin")
        width = (stop[begin + size - 1] - low).clamp_min(1)
        # Batches hold runs of similar size, so that padding is short, and up to `_GATHER` floats each.
        ranked = (size * (_RUN + self.length + 1) + width).argsort()
        cost = ((size + width) * max(dim, self.length))[ranked].cumsum(0)
        batch_sizes = torch.unique_consecutive(
            cost // _GATHER.get(cost.device.type, _GATHER["cpu"]), return_counts=True
        )[1].tolist()
        for batch in torch.split(ranked, batch_sizes):
            most, widest = int(size[batch].max()), int(width[batch].max()) + 1
            within = torch.minimum(index[:most], size[batch, None] - 1)
            rows = low[batch, None] + torch.arange(widest, device=order.device)
            yield Runs(order[begin[batch, None] + within], rows.clamp_max_(self.item.numel() - 1))


def user_profiles(vectors: Float[Tensor, "N k"], histories: Histories) -> Float[Tensor, "E k"]:
    """Return the residual profile of each event's user, ``m_e = sum_j (y_j - rate_e) p_j / (5 + n_e)``.

    The sum runs over the n_e rows of the event's history, with labels y_j and item coordinates p_j.

    Args:
        vectors: Principal coordinates of the items.
        histories: The events.

    Returns:
        One profile per event; zeros for an empty history.
    """
    profiles = vectors.new_empty(histories.start.numel(), vectors.shape[1])
    label, rate = histories.label.to(vectors.dtype), histories.user_rate.to(vectors.dtype)

    def fill(run: Runs) -> None:
        start, stop = histories.start[run.events], histories.stop[run.events]
        own = (run.rows[:, None] >= start[:, :, None]) & (run.rows[:, None] < stop[:, :, None])
        # Padding repeats the last rows of a run: the first of each row is the one that counts.
        own[:, :, 1:] &= (run.rows[:, 1:] > run.rows[:, :-1])[:, None]
        residual = (label[run.rows][:, None] - rate[run.events][:, :, None]).mul_(own)
        rows = vectors.index_select(0, histories.item[run.rows].flatten()).view(*run.rows.shape, -1)
        profiles[run.events] = torch.bmm(residual, rows).div_((_PROFILE_PRIOR + stop - start)[:, :, None])

    for_each_block(fill, histories.runs(vectors.shape[1]), profiles.device)
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
