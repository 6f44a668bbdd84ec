"""The torchmetrics Metric: accumulates item representations in any order, on any rank, and scores them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.distributed import gather_all_tensors

from lis_lightning.data.digest import digest_ids
from lis_lightning.data.split import PreferenceSplit
from lis_lightning.errors import NonFiniteError, ShapeError, SnapshotError
from lis_lightning.results.result import LISResult
from lis_lightning.scoring.options import ScoreOptions
from lis_lightning.scoring.preferences import Preference
from lis_lightning.scoring.reads.naming import Reads
from lis_lightning.scoring.scorer import Scorer

_BLOCK = 8192  # rows averaged at a time
_PLOTTED = ("ais", "ais_low", "ais_high")


class LeakageImpactScore(Metric):
    """Score item representations on a validation preference split.

    The state is a sum and a count for each item, reduced by summation: shards may be uneven, samplers may pad, ranks
    may be empty, and an item that is encoded twice is scored at its mean. Sums are float64 whatever the input type and
    whatever the surrounding module is cast to, so the mean does not depend on order, batches or ranks. The score equals
    that of :meth:`lis_lightning.scoring.Scorer.score` on these means, to the bit. Base ranker and ceilings are computed
    once a split and shared by all metrics on it, their clones, and copies from other processes.

    Calling the metric (`forward`) adds a batch and returns the batch's own score if it holds all items of the split,
    else an empty dict. With ``dist_sync_on_step`` the batch consists of the items of all processes at this step.

    Args:
        split: The validation preference split.
        dim: Width of the representations; None takes it from the first update.
        ceilings: Preference data to compute ceilings for, as :class:`lis_lightning.scoring.ScoreOptions` takes them.
        aligned_to: Name of the preference data that ``realised`` refers to.
        placebo: Whether to score uninformative representations too (in :meth:`result`).
        k: Largest number of principal axes that the probe reads; see :class:`ScoreOptions`.
        reads: What else to score, as rankers read it; see :class:`ScoreOptions`.
        cache_dir: Cache folder; see :class:`lis_lightning.scoring.Scorer`.
        log_more: Whether to compute all scalars, under ``more/...``, beside the five of the default.
        **kwargs: Arguments of :class:`torchmetrics.Metric`.

    Raises:
        ConfigError: If `aligned_to` is not among `ceilings`, or these are malformed.

    Example:
        >>> import polars as pl, torch
        >>> log = pl.DataFrame({"user_id": [0, 1] * 20, "item_id": [0, 1, 2, 3] * 10,
        ...                     "timestamp": range(40), "label": [0, 1, 1, 0, 0] * 8})
        >>> metric = LeakageImpactScore(PreferenceSplit.from_log(log))
        >>> metric.update([0, 1], torch.eye(4)[:2])
        >>> metric.update([2, 3], torch.eye(4)[2:])
        >>> sorted(metric.compute())[:3]
        ['ais', 'ais_high', 'ais_low']
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    if TYPE_CHECKING:  # `torch.jit.script` cannot read string annotations
        sum: Tensor
        count: Tensor
        items: Tensor
        double_seen: Tensor

    def __init__(
        self,
        split: PreferenceSplit,
        *,
        dim: int | None = None,
        ceilings: Sequence[str] | Mapping[str, Preference] = ("pairs", "ids"),
        aligned_to: str = "pairs",
        placebo: bool = False,
        k: int = 64,
        reads: Reads = (),
        cache_dir: str | Path | None = None,
        log_more: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.options = ScoreOptions(ceilings=ceilings, aligned_to=aligned_to, placebo=placebo, k=k, reads=reads)
        self.split = split
        self.dim = dim
        self.cache_dir = cache_dir
        self.log_more = log_more
        self._in_forward = False
        # The width stays 0 until the first update, because torchmetrics holds every default twice.
        self.add_state("sum", torch.zeros(split.num_items, 0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros(split.num_items, dtype=torch.int64), dist_reduce_fx="sum")
        # Identifies the items: MetricCollection merges the states of metrics whose states are equal.
        identity = torch.tensor(list(bytes.fromhex(digest_ids(split.item_ids))), dtype=torch.uint8)
        self.add_state("items", identity, dist_reduce_fx="max")
        self.add_state("double_seen", torch.zeros(1, dtype=torch.uint8), dist_reduce_fx="max")

    def update(self, item_ids: ArrayLike | Tensor, embeddings: Tensor) -> None:
        """Add the representations of some items.

        Args:
            item_ids: Ids as in the interaction log, [B]. Ids outside the split are ignored.
            embeddings: Their representations, [B, dim], any float type, on any device.

        Raises:
            ShapeError: If ids and representations differ in number, the type is not floating-point, or the width
                changes between updates.
            NonFiniteError: If a representation holds NaN or infinity; the first five ids are named.
        """
        ids = _ids(item_ids)
        if embeddings.ndim != 2 or embeddings.shape[0] != ids.size:
            raise ShapeError(
                f"Expected `embeddings` of shape [{ids.size}, dim] for {ids.size} item ids, got "
                f"{list(embeddings.shape)}."
            )
        if not embeddings.is_floating_point():
            raise ShapeError(f"Expected `embeddings` of a float type, got {embeddings.dtype}.")
        self._grow(embeddings.shape[1])
        rows = self.split.item_rows(ids)
        in_split = np.flatnonzero(rows >= 0)
        if in_split.size < rows.size:
            ids, rows = ids[in_split], rows[in_split]
            embeddings = embeddings[torch.from_numpy(in_split).to(embeddings.device)]
        embeddings = embeddings.detach()
        # The sum is a cheap check; rows are checked only if it is not finite (large finite numbers may overflow it).
        if not embeddings.sum(dtype=torch.promote_types(embeddings.dtype, torch.float32)).isfinite():
            _refuse_non_finite(ids, embeddings)
        index = torch.from_numpy(rows).to(self.sum.device)
        self.sum.index_add_(0, index, embeddings.to(self.sum))
        self.count.index_add_(0, index, torch.ones_like(index))
        if embeddings.dtype == torch.float64:
            self.double_seen.fill_(1)

    def compute(self) -> dict[str, Tensor]:
        """Return the scalars of :meth:`result` as float64 tensors, by their keys without ``lis/``.

        They are ``ais`` with ``ais_low`` and ``ais_high``, ``headroom`` and ``realised``; see
        :meth:`lis_lightning.LISResult.scalars`.

        Raises:
            SnapshotError: If an item of the split was never added; the first five are named.
        """
        if self._in_forward and not self.count.all():
            return {}
        return {
            name: torch.tensor(value, dtype=torch.float64, device=self.device)
            for name, value in self._score().scalars(more=self.log_more).items()
        }

    def result(self) -> LISResult:
        """Score the items added so far on all processes, and return the whole result.

        Raises:
            SnapshotError: If an item of the split was never added; the first five are named.
        """
        unsynced = not self._is_synced  # within the caller's `sync_context` the states are reduced already
        should_sync = unsynced and self.sync_on_compute
        with self.sync_context(self.dist_sync_fn, should_sync=should_sync, should_unsync=unsynced):
            return self._score()

    def embeddings(self) -> Tensor:
        """Return the mean representation of each item, [num_items, dim], rows as ``split.item_ids``.

        The type is float64 if any update was float64, else float32. With several processes, call it within
        ``sync_context()``: unlike :meth:`result`, it does not reduce the states itself.

        Raises:
            SnapshotError: If an item of the split was never added; the first five are named.
        """
        absent = (self.count == 0).cpu().numpy()
        if absent.any():
            advice = "call `update` first" if absent.all() else "the items given to the encoder must cover them"
            raise SnapshotError(
                f"{int(absent.sum())} of {self.split.num_items} items of the split were never added, first "
                f"{self.split.item_ids[absent][:5].tolist()}; {advice} (`split.item_ids`)."
            )
        mean = torch.empty_like(self.sum, dtype=torch.float64 if self.double_seen.any() else torch.float32)
        for rows in torch.split(torch.arange(len(mean)), _BLOCK):
            block = slice(int(rows[0]), int(rows[-1]) + 1)
            mean[block] = self.sum[block] / self.count[block, None]
        return mean

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Plot AIS with its interval, in the style of torchmetrics.

        Args:
            val: A value returned by `compute`, or a list of them for a curve; None calls `compute`.
            ax: Matplotlib axes to draw on; None creates a figure.

        Returns:
            Figure and axes.

        Raises:
            ModuleNotFoundError: If matplotlib is not installed.
        """

        def plotted(scalars: Mapping[str, Any]) -> dict[str, Any]:
            return {name: scalars[name] for name in _PLOTTED}

        value = self.compute() if val is None else val
        if isinstance(value, Mapping):
            return self._plot(plotted(value), ax)
        return self._plot([plotted(scalars) for scalars in value if scalars], ax)

    @contextmanager
    def sync_context(
        self,
        dist_sync_fn: Callable[..., Any] | None = None,
        process_group: Any = None,
        should_sync: bool = True,
        should_unsync: bool = True,
        distributed_available: Callable[..., Any] | None = None,
    ) -> Iterator[None]:
        """Reduce the states over the processes within the context, as torchmetrics does; unsync after an error too."""
        try:
            with super().sync_context(dist_sync_fn, process_group, should_sync, should_unsync, distributed_available):
                yield
        except BaseException:
            if self._is_synced and should_unsync:
                self.unsync()
            raise

    def _score(self) -> LISResult:
        return Scorer(self.split, cache_dir=self.cache_dir).score(self.embeddings(), self.options)

    def _grow(self, dim: int) -> None:
        """Set the width of the sum at the first update; raise if a later width differs."""
        expected = self.sum.shape[1] or self.dim or dim
        if dim != expected or not dim:
            raise ShapeError(f"Expected `embeddings` of width {expected or 'at least 1'}, as before, got {dim}.")
        if not self.sum.shape[1]:
            self.sum = self.sum.new_zeros(self.split.num_items, dim)

    def _same_items(self, items: Tensor) -> None:
        """Raise if states belong to another split."""
        if not torch.equal(items.cpu(), self.items.cpu()):
            raise ShapeError(
                f"Expected states of a split with the same {self.split.num_items} items in the same order (this one "
                f"is {self.split.hash!r}), got those of another split."
            )

    def _changed(self) -> None:
        """Discard the value computed from the previous states."""
        self._computed = None
        self._update_count = max(self._update_count, int(bool(self.count.any())))

    # Overrides of torchmetrics: the width is unknown before the first update, and states must be of one split.

    def _forward_reduce_state_update(self, item_ids: ArrayLike | Tensor, embeddings: Tensor) -> dict[str, Tensor]:
        rows = self.split.item_rows(_ids(item_ids))
        if np.unique(rows[rows >= 0]).size == self.split.num_items:
            value: dict[str, Tensor] = super()._forward_reduce_state_update(item_ids, embeddings)
            return value
        self.update(item_ids, embeddings)
        return {}

    def _forward_full_state_update(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        # Used with `dist_sync_on_step`: only `compute` sees the items of the other processes.
        self._in_forward = True
        try:
            value: dict[str, Tensor] = super()._forward_full_state_update(*args, **kwargs)
        finally:
            self._in_forward = False
        return value

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = "") -> Any:
        # States are moved but never cast: half sums would lose precision, and half counts end at 2048.
        def apply(state: Tensor) -> Tensor:
            probe = fn(torch.zeros(1, dtype=state.dtype, device=state.device))
            return fn(state) if probe.dtype == state.dtype else state.to(probe.device)

        return super()._apply(apply, exclude_state)

    def _reduce_states(self, incoming_state: dict[str, Any]) -> None:
        incoming = dict(incoming_state)
        self._same_items(incoming["items"])
        if incoming["sum"].shape[1]:
            self._grow(incoming["sum"].shape[1])
        else:
            incoming["sum"] = torch.zeros_like(self.sum)
        super()._reduce_states(incoming)
        self._changed()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        if f"{prefix}items" in state_dict:
            self._same_items(state_dict[f"{prefix}items"])
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        self._changed()

    def _sync_dist(self, dist_sync_fn: Callable[..., Any] = gather_all_tensors, process_group: Any = None) -> None:
        group = process_group or self.process_group
        # A rank without items does not know the width yet, and sums of unequal shape cannot be reduced.
        width = torch.tensor([self.sum.shape[1]], device=self.sum.device)
        seen = torch.stack(list(dist_sync_fn(torch.cat([self.items.long(), width]), group=group)))
        for items in seen[:, :-1]:
            self._same_items(items.to(torch.uint8))
        widths = sorted(set(seen[:, -1].tolist()) - {0})
        if len(widths) > 1:
            raise ShapeError(f"Expected `embeddings` of one width on all processes, got the widths {widths}.")
        if widths:
            self._grow(widths[0])
        if dist_sync_fn is not gather_all_tensors:
            super()._sync_dist(dist_sync_fn, process_group=process_group)
            return
        # All-reduce, because gathering would hold the sums of all processes on each of them.
        for name in ("sum", "count", "double_seen"):
            reduced = getattr(self, name).clone()
            operation = torch.distributed.ReduceOp.MAX if name == "double_seen" else torch.distributed.ReduceOp.SUM
            torch.distributed.all_reduce(reduced, operation, group=group)
            setattr(self, name, reduced)


def _ids(item_ids: ArrayLike | Tensor) -> Any:
    return item_ids.cpu().numpy() if isinstance(item_ids, Tensor) else np.asarray(item_ids)


def _refuse_non_finite(ids: Any, embeddings: Tensor) -> None:
    bad = (~embeddings.isfinite()).any(1).cpu().numpy()
    if bad.any():
        raise NonFiniteError(
            f"`embeddings` has NaN or infinity for {int(bad.sum())} of {ids.size} items of this batch, first for "
            f"{ids[bad][:5].tolist()}; check the encoder on these items."
        )
