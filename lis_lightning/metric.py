"""The torchmetrics Metric: item representations in, in any order and on any rank; the score of the split out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.distributed import gather_all_tensors

from lis_lightning.errors import NonFiniteError, ShapeError, SnapshotError
from lis_lightning.result import LISResult
from lis_lightning.score import score
from lis_lightning.split import PreferenceSplit


class LeakageImpactScore(Metric):
    """Score item representations on a validation preference split.

    The state is a sum and a count for each item, reduced by summation: shards may be uneven, samplers may pad, ranks
    may see nothing, and an item that is encoded twice counts with its mean.

    Args:
        split: The validation preference split.
        dim: Width of the representations; None takes it from the first update.
        placebo: Whether `compute` also scores representations that know nothing.
        **kwargs: As :class:`torchmetrics.Metric`.

    Example:
        >>> import polars as pl, torch
        >>> log = pl.DataFrame({"user_id": [0, 1] * 20, "item_id": [0, 1, 2, 3] * 10,
        ...                     "timestamp": range(40), "label": [0, 1, 1, 0, 0] * 8})
        >>> metric = LeakageImpactScore(PreferenceSplit.from_log(log))
        >>> metric.update([0, 1], torch.eye(4)[:2])
        >>> metric.update([2, 3], torch.eye(4)[2:])
        >>> sorted(metric.compute())[:3]
        ['ais', 'ais_geometry', 'ais_high']
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    sum: Tensor
    count: Tensor

    def __init__(self, split: PreferenceSplit, *, dim: int | None = None, placebo: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.split = split
        self.dim = dim
        self.placebo = placebo
        self.add_state("sum", torch.zeros(split.num_items, dim or 0), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros(split.num_items, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, item_ids: ArrayLike | Tensor, embeddings: Tensor) -> None:
        """Add the representations of some items.

        Args:
            item_ids: Ids as in the interaction log, [B]. Ids outside the split are left out.
            embeddings: Their representations, [B, dim], any float type.

        Raises:
            ShapeError: If the two do not match, or the width changes between updates.
            NonFiniteError: If a representation holds NaN or infinity; the first five ids are named.
        """
        ids = item_ids.cpu().numpy() if isinstance(item_ids, Tensor) else np.asarray(item_ids)
        if embeddings.ndim != 2 or embeddings.shape[0] != ids.size:
            raise ShapeError(
                f"Expected `embeddings` of shape [{ids.size}, dim] for {ids.size} item ids, got "
                f"{list(embeddings.shape)}."
            )
        self._grow(embeddings.shape[1])
        rows = torch.from_numpy(self.split.item_rows(ids))
        bad = (~embeddings.isfinite()).any(1).cpu() & (rows >= 0)
        if bad.any():
            raise NonFiniteError(
                f"`embeddings` has NaN or infinity for {int(bad.sum())} of {ids.size} items of this batch, first for "
                f"{ids[bad.numpy()][:5].tolist()}; check the encoder on these items."
            )
        inside = (rows >= 0).to(embeddings.device)
        rows = rows.to(self.sum.device)[inside.to(self.sum.device)]
        self.sum.index_add_(0, rows, embeddings.detach()[inside].to(self.sum))
        self.count.index_add_(0, rows, torch.ones_like(rows))

    def compute(self) -> dict[str, Tensor]:
        """Return the scalars of :meth:`result` as float64 tensors, by their keys without ``lis/``."""
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in self.result().scalars().items()}

    def result(self) -> LISResult:
        """Score what was added so far.

        Raises:
            SnapshotError: If an item of the split was never added.
        """
        return score(self.split, self.embeddings(), placebo=self.placebo)

    def embeddings(self) -> Tensor:
        """Return the mean representation of each item, [num_items, dim], rows as ``split.item_ids``.

        Over several processes, call it within ``sync_context()``: unlike `compute`, it does not reduce by itself.

        Raises:
            SnapshotError: If an item of the split was never added; the first five are named.
        """
        absent = (self.count == 0).cpu().numpy()
        if absent.any():
            raise SnapshotError(
                f"{int(absent.sum())} of {self.split.num_items} items of the split were never encoded, first "
                f"{self.split.item_ids[absent][:5].tolist()}; the items given to the encoder must cover "
                "`split.item_ids`."
            )
        return self.sum / self.count[:, None]

    def _grow(self, dim: int) -> None:
        """Give the sum its width at the first update; refuse another one later."""
        if self.dim is not None and dim != self.dim:
            raise ShapeError(f"Expected `embeddings` of width {self.dim}, as before, got {dim}.")
        if self.sum.shape[1] != dim:
            self.dim = dim
            self.sum = self.sum.new_zeros(self.split.num_items, dim)
            self._defaults["sum"] = torch.zeros(self.split.num_items, dim)

    def _sync_dist(self, dist_sync_fn: Callable[..., Any] = gather_all_tensors, process_group: Any = None) -> None:
        # A rank without items does not know the width yet, and sums of unequal shape cannot be reduced.
        width = torch.tensor([self.sum.shape[1]], device=self.sum.device)
        self._grow(int(max(dist_sync_fn(width, group=process_group or self.process_group))))
        super()._sync_dist(dist_sync_fn, process_group=process_group)
