"""Objectives on pairs of items that belong together."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from lis_lightning.align.data.co_engagement import CoEngagement
from lis_lightning.align.data.events import AlignmentEvents
from lis_lightning.align.data.examples import Examples, Rows, hold_out
from lis_lightning.align.data.hard_negatives import skipped_items
from lis_lightning.align.data.hashing import mix_bits
from lis_lightning.align.data.pair_keys import PairSet, pair_keys
from lis_lightning.align.data.pair_tables import table_pairs
from lis_lightning.align.objectives.objective import Objective, Temperature
from lis_lightning.errors import ConfigError
from lis_lightning.functional.contrastive import info_nce
from lis_lightning.functional.distillation import cosine_distillation
from lis_lightning.scoring.preferences import PairTable, Preference


class _OnPairs(Objective):
    """Base of objectives on pairs: where the pairs come from.

    Args:
        pairs: How pairs are formed from clicks of the alignment window; or a table of pairs, whose rows from the
            evaluation windows are left out.
        count_power: A pair is drawn with weight count ** count_power; 0 draws all alike, 1 as often as seen.
        **options: As of :class:`~lis_lightning.align.objectives.Objective`.
    """

    def __init__(
        self, *, pairs: CoEngagement | PairTable | None = None, count_power: float = 0.5, **options: Any
    ) -> None:
        super().__init__(**options)
        self.pairs = pairs or CoEngagement()
        self.count_power = count_power

    @property
    @override
    def preference(self) -> Preference:
        return self.pairs

    @override
    def examples(self, events: AlignmentEvents, dim: int) -> Examples:
        if isinstance(self.pairs, PairTable):
            pairs, counts = table_pairs(self.pairs, events)
        else:
            clicks = events.positives
            clicks = clicks.shuffled() if self.pairs.shuffled else clicks
            pairs, counts = self.pairs.pairs(clicks.user, clicks.item, clicks.time)
        held_out = hold_out(mix_bits(pair_keys(pairs), events.seed), self.held_out)
        positives = PairSet(pairs[~held_out]), PairSet(pairs)
        return Examples(
            {"anchor": pairs[:, :1], "positive": pairs[:, 1:]},
            held_out,
            counts**self.count_power,
            partial(_known_pairs, positives),
        )


def _known_pairs(positives: tuple[PairSet, PairSet], rows: Rows, held_out: bool) -> dict[str, Tensor]:
    """Return the mask of anchors and positives in a batch that are no negatives of each other, since they are pairs.

    Args:
        positives: The training pairs, and all pairs; in training, the mask must not reveal the held-out pairs.
        rows: Of the batch.
        held_out: Whether the batch is held out.
    """
    mask = positives[held_out].mask(rows["anchor"][:, 0], rows["positive"][:, 0])
    return {"known": torch.from_numpy(mask)}


class PairContrastive(_OnPairs):
    """Symmetric InfoNCE on pairs, with in-batch negatives.

    Args:
        temperature: Initial value; it is learned, and stays at 0.01 or above.
        hard_negatives: Additional negatives for each pair: items that users of its first item were shown and skipped,
            drawn once, never a partner of that item. Each is a negative of its own pair only.
        across_devices: Whether the batches of all processes are negatives.
        **options: `pairs`, `count_power`, and those of :class:`~lis_lightning.align.objectives.Objective`.

    Raises:
        ConfigError: If a value is out of range.

    Example:
        >>> rows = torch.eye(4).repeat_interleave(2, dim=0)  # items 0 and 1 are alike, 2 and 3, ...
        >>> batch = {"anchor": torch.tensor([0, 2]), "positive": torch.tensor([1, 3]), "known": torch.eye(2).bool()}
        >>> round(PairContrastive(temperature=0.5).loss(rows, batch).item(), 3)
        0.127
    """

    def __init__(
        self, *, temperature: float = 0.07, hard_negatives: int = 0, across_devices: bool = False, **options: Any
    ) -> None:
        super().__init__(**options)
        if hard_negatives < 0:
            raise ConfigError(f"`hard_negatives` must be 0 or more, but got {hard_negatives}.")
        self.temperature = Temperature(temperature)
        self.hard_negatives = hard_negatives
        self.across_devices = across_devices

    @override
    def examples(self, events: AlignmentEvents, dim: int) -> Examples:
        pairs = super().examples(events, dim)
        if not self.hard_negatives:
            return pairs
        anchors, positives = pairs.items["anchor"], pairs.items["positive"]
        skipped = skipped_items(events, anchors[:, 0], self.hard_negatives)
        # A partner is no negative; held-out partners stay possible, since training must not know them.
        partners = PairSet(np.concatenate([anchors, positives], axis=1)[~pairs.held_out])
        skipped = np.where(partners.has(anchors, np.maximum(skipped, 0)), -1, skipped)
        return Examples({**pairs.items, "negative": skipped}, pairs.held_out, pairs.weights, pairs.extras)

    @override
    def loss(self, rows: Tensor, batch: dict[str, Any]) -> Tensor:
        anchors, positives = rows[batch["anchor"]], rows[batch["positive"]]
        negatives, hidden = self._negatives(rows, batch)
        if self.across_devices and torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
            remote, remote_rows = _of_other_processes(positives, batch["rows"][batch["positive"]])
            anchor_rows = batch["rows"][batch["anchor"]]
            # Pairs are not sent between processes, so that only equal items can be excluded as negatives.
            negatives = torch.cat([negatives, remote])
            hidden = torch.cat([hidden, anchor_rows[:, None] == remote_rows], dim=1)
        return info_nce(anchors, positives, self.temperature.value, batch["known"], negatives, hidden)

    def _negatives(self, rows: Tensor, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Return the hard negatives of the batch, and a mask of the anchors that each is hidden from."""
        size = len(batch["anchor"])
        if "negative" not in batch:
            return rows[:0], batch["known"].new_zeros(size, 0)
        positions = batch["negative"].reshape(size, -1)
        pair = torch.arange(size, device=rows.device)[:, None]
        present = positions >= 0
        # Hidden from the anchors of other pairs, which it may be a partner of.
        return rows[positions[present]], pair.expand_as(positions)[present] != pair


class PairAttraction(_OnPairs):
    """The alignment loss of Wang and Isola (2020) without uniformity: a negative control.

    Pairs are pulled together and nothing keeps other items apart, so that the representations collapse.

    Args:
        **options: `pairs`, `count_power`, and those of :class:`~lis_lightning.align.objectives.Objective`.

    Example:
        >>> batch = {"anchor": torch.tensor([0]), "positive": torch.tensor([1])}
        >>> PairAttraction().loss(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), batch)  # 1 less the cosine
        tensor(1.)
    """

    @override
    def loss(self, rows: Tensor, batch: dict[str, Any]) -> Tensor:
        return cosine_distillation(rows[batch["anchor"]], rows[batch["positive"]])


class _AllGather(torch.autograd.Function):
    """The tensors of all processes, stacked; gradients flow back to where each came from.

    torch.distributed.nn.functional.all_gather does the same, but is deprecated.
    """

    @staticmethod
    @override
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        gathered = [torch.empty_like(tensor) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(gathered, tensor.contiguous())
        return torch.stack(gathered)

    @staticmethod
    @override
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        # Every process has a gradient for the tensors of all of them.
        total = gradients[0].contiguous()
        torch.distributed.all_reduce(total)
        return total[torch.distributed.get_rank()]


def _of_other_processes(positives: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the positives of the other processes, through which gradients flow back, and their rows."""
    gather: Any = _AllGather.apply
    all_positives, all_rows = gather(positives), gather(rows)
    others = torch.arange(len(all_positives)) != torch.distributed.get_rank()
    return all_positives[others].flatten(0, 1), all_rows[others].flatten(0, 1)
