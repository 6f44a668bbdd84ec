"""Target attention: the cosines of an event's target with its user's history, and attention features of them.

Shapes: E events, L rows of the longest history, N items, D dimensions of their vectors.
"""

from __future__ import annotations

import math
import threading

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.linalg import vecdot

from lis_lightning.functional.histories import BLOCK, Histories, Runs
from lis_lightning.functional.item_coordinates import ItemCoordinates, compute_dtype, take
from lis_lightning.functional.threads import for_each_block, map_blocks

TEMPERATURES = (0.5, 1.0, 2.0)
_MAX_LOGIT = 8.0  # of attention


def history_cosines(coordinates: ItemCoordinates, histories: Histories) -> Float[Tensor, "E L"]:
    """Return the cosine of each event's target with each item of its history; NaN where either has no vector.

    Histories of neighbouring events overlap. Events whose histories end in the same stretch of rows are processed
    together, as one product of their targets with all of their rows, from which each event takes its own range.

    Args:
        coordinates: Items in their frame.
        histories: The events.

    Returns:
        Cosines, right-padded with NaN.
    """
    vectors, center = coordinates.vectors, coordinates.axes.center
    inverse_norm = torch.where(coordinates.present, coordinates.inverse_norm, torch.nan)
    cosines = center.new_full((histories.start.numel(), histories.length), torch.nan)
    offsets = torch.arange(histories.length, device=cosines.device)

    targets_in_rows, buffers = histories.rows_of_targets(), _Buffers()

    def fill(run: Runs) -> None:
        items, targets = histories.item[run.rows], histories.target[run.events]
        rows = buffers.take("rows", vectors, items)
        if targets_in_rows:  # copied from the gathered rows, which are in the cache
            shift = run.rows.shape[1] * torch.arange(len(items), device=cosines.device)[:, None]
            position = histories.stop[run.events] - run.rows[:, :1] + shift
            target_rows = buffers.take("targets", rows.flatten(0, 1), position)
        else:
            target_rows = buffers.take("targets", vectors, targets)
        # (t - c) . (h - c) = (t - c) . h - (t - c) . c: it is enough to centre the targets. There are more rows than
        # events: as the left factor they make the product half as fast again.
        products = torch.bmm(rows, target_rows.sub_(center).mT).mT
        products.sub_(coordinates.center_product[targets][:, :, None])
        products.mul_(inverse_norm[targets][:, :, None]).mul_(inverse_norm[items][:, None, :])
        # Each event takes the columns of its own history.
        start, stop = histories.start[run.events][:, :, None], histories.stop[run.events][:, :, None]
        columns = start - run.rows[:, :1, None] + offsets
        own = products.gather(2, columns.clamp_max_(run.rows.shape[1] - 1))
        cosines[run.events] = own.masked_fill_(offsets >= stop - start, torch.nan)

    for_each_block(fill, histories.runs(vectors.shape[1]), cosines.device)
    return cosines


class _Buffers(threading.local):
    """Memory of each thread for the rows that it gathers: pages of fresh memory would cost more than the gathering."""

    def __init__(self) -> None:
        self._memory: dict[str, Tensor] = {}

    def take(self, name: str, vectors: Float[Tensor, "N D"], rows: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape D"]:
        """Return some rows in compute precision, valid until the next call with the same name in this thread."""
        if vectors.dtype != compute_dtype(vectors.dtype):
            return take(vectors, rows)
        size = rows.numel() * vectors.shape[1]
        if name not in self._memory or self._memory[name].numel() < size:
            self._memory[name] = vectors.new_empty(size)
        out = self._memory[name][:size].view(rows.numel(), -1)
        return torch.index_select(vectors, 0, rows.flatten(), out=out).view(*rows.shape, -1)


def attention_features(
    cosines: Float[Tensor, "E L"], histories: Histories, train: Bool[Tensor, " E"]
) -> Float[Tensor, "E 4"]:
    """Return residual attention over the history at three temperatures, and the mean residual cosine.

    ``att_tau = sum_j r_j K_j / (3 e^tau + sum_j K_j)`` with ``K_j = exp(min(tau c_j, 8))``, ``r_j = y_j - rate_e``, and
    c the cosines standardised over the pairs of the training events.

    Args:
        cosines: As :func:`history_cosines` returns them.
        histories: The events.
        train: Events of w1, whose pairs give mean and spread of the cosines.

    Returns:
        [E, 4]; zeros for an event without a usable history.
    """
    features = cosines.new_zeros(cosines.shape[0], len(TEMPERATURES) + 1)
    mean, spread = _mean_and_spread(cosines, train)
    if not spread > (1e-9 if cosines.dtype == torch.float64 else 1e-6):
        return features
    rate, label = histories.user_rate.to(cosines.dtype), histories.label.to(cosines.dtype)

    def fill(padded: tuple[slice, Tensor, Tensor]) -> None:
        block, rows, valid = padded
        usable = ~cosines[block].isnan()
        # So negative that the exponential is exactly 0, yet finite: times a residual of 0 it stays 0.
        z = torch.where(usable, (cosines[block] - mean) / spread, -1e4)
        residual = (label[rows] - rate[block, None]).mul_(usable)
        weight = torch.exp((TEMPERATURES[0] * z).clamp_max_(_MAX_LOGIT))
        for column, tau in enumerate(TEMPERATURES):
            if column:  # temperatures double: exp(min(2 t, 8)) is the square of exp(min(t, 8)), capped at e^8
                weight = weight.square().clamp_max_(math.exp(_MAX_LOGIT))
            features[block, column] = vecdot(residual, weight) / (3.0 * math.exp(tau) + weight.sum(1))
        features[block, -1] = vecdot(residual, z) / valid.sum(1).clamp_min(1)

    for_each_block(fill, histories.padded(), cosines.device)
    return features


def _mean_and_spread(cosines: Tensor, train: Tensor) -> tuple[float, float]:
    """Return mean and standard deviation of the training events' cosines; zeros if there are none."""
    blocks = torch.split(train.nonzero()[:, 0], BLOCK)

    def count_and_sum(block: Tensor) -> tuple[int, float]:
        own = cosines[block]
        return int((~own.isnan()).sum()), float(own.nansum(dtype=torch.float64))

    def squares(block: Tensor) -> float:
        return float((cosines[block] - mean).square_().nansum(dtype=torch.float64))

    counts, sums = zip(*map_blocks(count_and_sum, blocks, cosines.device), strict=True)
    count = max(1, sum(counts))
    mean = sum(sums) / count
    square = sum(map_blocks(squares, blocks, cosines.device)) / count
    return mean, math.sqrt(square)
