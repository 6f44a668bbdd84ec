"""What a ranker can take from item vectors: a user profile against the target, and attention over the history.

Shapes: N items, D their dimensions, E events, L the longest history, k principal axes, H rows of history. Precision
follows the item vectors: float64 throughout if they are float64, else float32 products with float64 sums.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

TEMPERATURES = (0.5, 1.0, 2.0)
_BLOCK = 8192  # events or items at a time
_DENSE_ITEMS = 4096  # up to here all item-item cosines fit into 128 MB, and a look-up beats a product
_GATHER = 2**26  # floats gathered at a time where they do not: 256 MB
_AXES_ITEMS = 16384  # items that principal axes are fitted on


def working(dtype: torch.dtype) -> torch.dtype:
    """Return the precision of products: float64 for float64, else float32 (half precision is read in blocks)."""
    return torch.float64 if dtype == torch.float64 else torch.float32


@dataclass(frozen=True)
class Axes:
    """The frame that item vectors are read in: fitted on one matrix, applied to others of the same space.

    Attributes:
        center: Mean of the rows, [D].
        basis: The k strongest principal axes of the centred unit rows, [D, k].
        scale: Overall standard deviation of the coordinates on them.
    """

    center: Float[Tensor, " D"]
    basis: Float[Tensor, "D k"]
    scale: float


@dataclass(frozen=True)
class ItemCoordinates:
    """Item vectors in a frame. The vectors are kept as they were given: centred unit rows are made where they are read.

    Attributes:
        vectors: One row an item, [N, D].
        axes: The frame.
        inverse: One over the length of each centred row, in working precision; 0 for a row that is absent or has no
            direction, [N].
        profile: Principal coordinates at unit overall standard deviation, [N, k].
    """

    vectors: Float[Tensor, "N D"]
    axes: Axes
    inverse: Float[Tensor, " N"]
    profile: Float[Tensor, "N k"]

    @property
    def present(self) -> Bool[Tensor, " N"]:
        """Rows that hold a vector with a direction, [N]."""
        return self.inverse > 0

    def unit(self, rows: Int[Tensor, "*batch"] | slice) -> Float[Tensor, "*shape D"]:
        """Return centred rows of length 1, whose inner products are cosines; zeros for rows that are not present."""
        return (self.vectors[rows].to(self.inverse.dtype) - self.axes.center) * self.inverse[rows][..., None]


def place(
    vectors: Float[Tensor, "N D"], *, k: int = 16, axes: Axes | None = None, present: Bool[Tensor, " N"] | None = None
) -> ItemCoordinates:
    """Express item vectors in a frame: centre, unit length, principal axes.

    Args:
        vectors: One row an item; products are taken in float64 if they are float64, else in float32.
        k: Axes that the profile features use; axes beyond D are zero.
        axes: The frame, where another matrix of the same space has set it; None fits it. Axes come from the Gram matrix
            of at most 16 384 evenly spaced items: rotating, scaling and shifting the vectors changes no coordinate,
            another order of more items than that moves them a little.
        present: Rows that hold a vector; None means all.
    """
    present = torch.ones(vectors.shape[0], dtype=torch.bool, device=vectors.device) if present is None else present
    center = _center(vectors, present) if axes is None else axes.center
    inverse = _inverse_lengths(vectors, center, present)
    basis = _basis(vectors, center, inverse, present, k) if axes is None else axes.basis
    coordinates = _product(vectors, center, inverse, basis)
    if axes is None:
        scale = coordinates[present].double().std(correction=0) if present.any() else torch.zeros(())
        axes = Axes(center, basis, float(scale))
    profile = coordinates / axes.scale if axes.scale > 0 else torch.zeros_like(coordinates)
    return ItemCoordinates(vectors, axes, inverse, profile)


def _center(vectors: Tensor, present: Tensor) -> Tensor:
    total = torch.zeros(vectors.shape[1], dtype=torch.float64, device=vectors.device)
    dtype = working(vectors.dtype)
    for rows, there in zip(torch.split(vectors, _BLOCK), torch.split(present, _BLOCK), strict=True):
        total += (rows if there.all() else rows[there]).to(dtype).sum(0)
    return (total / present.sum().clamp_min(1)).to(dtype)


def _inverse_lengths(vectors: Tensor, center: Tensor, present: Tensor) -> Tensor:
    """Return one over the length of each centred row, 0 where it is absent or has no direction.

    A matrix whose rows differ by rounding only (a collapsed representation) gives zeros throughout: without that,
    normalising would blow the rounding up to unit length.
    """
    blocks = torch.split(vectors, _BLOCK)
    lengths = torch.cat([(rows.to(center.dtype) - center).norm(dim=1) for rows in blocks])
    given = torch.cat([rows.to(center.dtype).norm(dim=1) for rows in blocks])
    if not present.any():
        return torch.zeros_like(lengths)
    typical = lengths[present].double().square().mean().sqrt()
    floor = torch.maximum(1e-6 * given[present].max(), 1e-9 * typical)
    there = present & (lengths > floor)
    return torch.where(there, 1.0 / torch.where(there, lengths, 1.0), 0.0)


def _basis(vectors: Tensor, center: Tensor, inverse: Tensor, present: Tensor, k: int) -> Tensor:
    """Return the k strongest principal axes of the centred unit rows; zeros for axes without variance."""
    rows = present.nonzero()[:, 0]
    rows = rows[:: -(-rows.numel() // _AXES_ITEMS) or 1]
    gram = torch.zeros(center.numel(), center.numel(), dtype=torch.float64, device=center.device)
    for block in torch.split(rows, _BLOCK):
        unit = (vectors[block].to(center.dtype) - center) * inverse[block, None]
        gram += unit.T @ unit
    strength, directions = torch.linalg.eigh(gram)
    count = min(k, center.numel())
    basis = center.new_zeros(center.numel(), k)
    # Axes without variance are noise of the solver; left at zero they keep the shape and carry nothing.
    noise = 1e-12 if center.dtype == torch.float64 else 1e-6
    real = strength.flip(0)[:count] > noise * strength.sum().clamp_min(1e-300)
    basis[:, :count] = directions.flip(1)[:, :count] * real
    return basis


def _product(vectors: Tensor, center: Tensor, inverse: Tensor, basis: Tensor) -> Tensor:
    """Return the centred unit rows times a basis, [N, k]."""
    blocks = zip(torch.split(vectors, _BLOCK), torch.split(inverse, _BLOCK), strict=True)
    return torch.cat([(rows.to(center.dtype) - center) @ basis * scale[:, None] for rows, scale in blocks])


@dataclass(frozen=True)
class Histories:
    """The histories of E events as ranges of H rows, and what each event expects of its user.

    Attributes:
        item: Item of each history row, [H].
        label: Label of each history row, [H].
        start: First history row of each event, [E].
        stop: One past its last, [E].
        target: Item of each event, [E].
        user_rate: Smoothed positive rate of the user before the event, [E]; residuals are taken from it.
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
        """Return the same on another device."""
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
        """Return the same histories with item i called ``items[i]``."""
        return replace(self, item=items[self.item], target=items[self.target])

    def padded(self, size: int = _BLOCK) -> Iterator[tuple[slice, Int[Tensor, "e L"], Bool[Tensor, "e L"]]]:
        """Yield blocks of `size` events with their history rows, right-padded, and which of them are real."""
        offsets = torch.arange(self.length, device=self.start.device)
        for first in range(0, self.start.numel(), size):
            block = slice(first, min(first + size, self.start.numel()))
            rows = self.start[block, None] + offsets
            valid = rows < self.stop[block, None]
            yield block, torch.where(valid, rows, 0), valid


def profiles(vectors: Float[Tensor, "N k"], histories: Histories) -> Float[Tensor, "E k"]:
    """Return the residual profile of each event's user, ``m_e = sum_j (y_j - rate_e) p_j / (5 + n_e)``.

    Differences of prefix sums over the history rows; no pass over histories.

    Args:
        vectors: Profile coordinates of the items.
        histories: The events.
    """
    rows = vectors[histories.item].double()
    zero = rows.new_zeros(1, rows.shape[1])
    total = torch.cat([zero, rows.cumsum(0)])
    positive = torch.cat([zero, (rows * histories.label[:, None]).cumsum(0)])
    start, stop = histories.start, histories.stop
    count = (stop - start).to(rows.dtype)[:, None]
    wanted = positive[stop] - positive[start] - histories.user_rate[:, None] * (total[stop] - total[start])
    return (wanted / (5.0 + count)).to(vectors.dtype)


def history_cosines(coordinates: ItemCoordinates, histories: Histories) -> Float[Tensor, "E L"]:
    """Return the cosine of each event's target to each item of its history; NaN where either has no vector.

    Args:
        coordinates: Items in their frame.
        histories: The events; histories are right-padded with NaN.
    """
    present, (num_items, dim) = coordinates.present, coordinates.vectors.shape
    table = coordinates.unit(slice(None)) if num_items <= _DENSE_ITEMS else None
    dense = table @ table.T if table is not None else None
    size = _BLOCK if dense is not None else max(1, _GATHER // (histories.length * dim))
    cosines = coordinates.profile.new_full((histories.start.numel(), histories.length), torch.nan)
    for block, rows, valid in histories.padded(size):
        target, item = histories.target[block], histories.item[rows]
        if dense is not None:
            value = dense[target[:, None], item]
        else:
            value = torch.bmm(coordinates.unit(item), coordinates.unit(target)[:, :, None])[:, :, 0]
        usable = valid & present[item] & present[target][:, None]
        cosines[block] = torch.where(usable, value, torch.nan)
    return cosines


def attention(cosines: Float[Tensor, "E L"], histories: Histories, train: Bool[Tensor, " E"]) -> Float[Tensor, "E 4"]:
    """Return residual attention over the history at three temperatures, and the mean residual cosine.

    ``att_tau = sum_j r_j K / (3 e^tau + sum_j K)`` with ``K = exp(min(tau c_j, 8))``, ``r_j = y_j - rate_e`` and c the
    cosines standardised over the pairs of the training events.

    Args:
        cosines: As :func:`history_cosines` returns them.
        histories: The events.
        train: Events of w1, whose pairs give mean and spread of the cosines.

    Returns:
        [E, 4]; zeros for an event without a usable history.
    """
    seen = cosines[train]
    seen = seen[~seen.isnan()].double()
    mean, spread = (float(seen.mean()), float(seen.std(correction=0))) if seen.numel() else (0.0, 0.0)
    features = cosines.new_zeros(cosines.shape[0], len(TEMPERATURES) + 1)
    rate = histories.user_rate.to(cosines.dtype)
    label = histories.label.to(cosines.dtype)
    if not spread > (1e-9 if cosines.dtype == torch.float64 else 1e-6):
        return features
    for block, rows, valid in histories.padded():
        usable = ~cosines[block].isnan()
        z = torch.where(usable, (cosines[block] - mean) / spread, 0.0)
        residual = torch.where(usable, label[rows] - rate[block, None], 0.0)
        for column, tau in enumerate(TEMPERATURES):
            weight = torch.where(usable, torch.exp((tau * z).clamp_max(8.0)), 0.0)
            prior = 3.0 * math.exp(tau)
            features[block, column] = (residual * weight).sum(1) / (prior + weight.sum(1))
        features[block, -1] = (residual * z).sum(1) / valid.sum(1).clamp_min(1)
    return features


def repeats(histories: Histories) -> Float[Tensor, "E 2"]:
    """Return how often the target stands in the history as a positive and as a negative, log1p of each.

    Args:
        histories: The events.
    """
    counts = histories.user_rate.new_zeros(histories.start.numel(), 2)
    for block, rows, valid in histories.padded():
        same = valid & (histories.item[rows] == histories.target[block][:, None])
        positive = histories.label[rows] > 0.5
        counts[block, 0] = (same & positive).sum(1).double()
        counts[block, 1] = (same & ~positive).sum(1).double()
    return counts.log1p()
