"""What a ranker can take from item vectors: a user profile against the target, and attention over the history.

Shapes: N items, D their dimensions, E events, L the longest history, k principal axes, H rows of history. Everything is
float64 unless said otherwise: a score must not depend on the order in which floats were added.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

TEMPERATURES = (0.5, 1.0, 2.0)
_BLOCK = 8192  # events at a time, for look-ups
_DENSE_ITEMS = 4096  # up to here all item-item cosines fit into 128 MB, and a look-up beats a product
_GATHER = 2**26  # floats gathered at a time where they do not: 256 MB


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


def unit_rows(
    vectors: Float[Tensor, "N D"], center: Float[Tensor, " D"], present: Bool[Tensor, " N"]
) -> Float[Tensor, "N D"]:
    """Return centred rows of length 1, and zeros for rows that are absent or have no direction.

    A matrix whose rows differ by rounding only (a collapsed representation) gives zeros throughout: without that,
    normalising would blow the rounding up to unit length.
    """
    vectors = vectors.double()
    centered = (vectors - center) * present[:, None]
    norms = centered.norm(dim=1)
    largest = vectors[present].norm(dim=1).max() if present.any() else norms.new_zeros(())
    typical = norms[present].square().mean().sqrt() if present.any() else norms.new_zeros(())
    floor = torch.maximum(1e-6 * largest, 1e-9 * typical)
    has_direction = norms > floor
    return torch.where(has_direction[:, None], centered / norms.clamp_min(1e-300)[:, None], 0.0)


def fit_axes(vectors: Float[Tensor, "N D"], *, k: int = 16, present: Bool[Tensor, " N"] | None = None) -> Axes:
    """Fit the frame of a representation: centre, then principal axes of the centred unit rows.

    Args:
        vectors: One row an item.
        k: Axes that the profile features use; axes beyond D are zero.
        present: Rows that hold a vector; None means all.

    Returns:
        The axes; they rotate with the vectors, so that coordinates do not.
    """
    present = _all_rows(vectors) if present is None else present
    vectors = vectors.double()
    center = vectors[present].mean(0) if present.any() else vectors.new_zeros(vectors.shape[1])
    rows = unit_rows(vectors, center, present)
    strength, directions = torch.linalg.eigh(rows.T @ rows)
    count = min(k, vectors.shape[1])
    basis = vectors.new_zeros(vectors.shape[1], k)
    # Axes without variance are noise of the solver; left at zero they keep the shape and carry nothing.
    real = strength.flip(0)[:count] > 1e-12 * strength.sum().clamp_min(1e-300)
    basis[:, :count] = directions.flip(1)[:, :count] * real
    scale = (rows @ basis)[present].std(correction=0) if present.any() else vectors.new_zeros(())
    return Axes(center, basis, float(scale))


@dataclass(frozen=True)
class ItemCoordinates:
    """Item vectors in a frame.

    Attributes:
        profile: Principal coordinates at unit overall standard deviation, [N, k].
        unit: Centred unit rows, whose inner products are cosines, [N, D].
        present: Rows that hold a vector with a direction, [N].
    """

    profile: Float[Tensor, "N k"]
    unit: Float[Tensor, "N D"]
    present: Bool[Tensor, " N"]


def project(vectors: Float[Tensor, "N D"], axes: Axes, present: Bool[Tensor, " N"] | None = None) -> ItemCoordinates:
    """Express item vectors in a frame; absent rows are zero.

    Args:
        vectors: One row an item, in the space the axes were fitted in.
        axes: The frame.
        present: Rows that hold a vector; None means all.
    """
    present = _all_rows(vectors) if present is None else present
    unit = unit_rows(vectors, axes.center, present)
    profile = unit @ axes.basis
    profile = profile / axes.scale if axes.scale > 0 else torch.zeros_like(profile)
    return ItemCoordinates(profile, unit, present & unit.any(1))


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

    def select(self, events: Int[Tensor, " e"]) -> Histories:
        """Return the histories of some events."""
        return Histories(
            self.item, self.label, self.start[events], self.stop[events], self.target[events], self.user_rate[events],
            self.length,
        )  # fmt: skip

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
    rows = vectors[histories.item]
    zero = rows.new_zeros(1, rows.shape[1])
    total = torch.cat([zero, rows.cumsum(0)])
    positive = torch.cat([zero, (rows * histories.label[:, None]).cumsum(0)])
    start, stop = histories.start, histories.stop
    count = (stop - start).to(rows.dtype)[:, None]
    wanted = positive[stop] - positive[start] - histories.user_rate[:, None] * (total[stop] - total[start])
    return wanted / (5.0 + count)


def history_cosines(coordinates: ItemCoordinates, histories: Histories) -> Float[Tensor, "E L"]:
    """Return the cosine of each event's target to each item of its history; NaN where either has no vector.

    Args:
        coordinates: Items in their frame.
        histories: The events; histories are right-padded with NaN.
    """
    unit, present = coordinates.unit, coordinates.present
    dense = unit @ unit.T if unit.shape[0] <= _DENSE_ITEMS else None
    size = _BLOCK if dense is not None else max(1, _GATHER // (histories.length * unit.shape[1]))
    unit = unit if dense is not None else unit.float()
    cosines = coordinates.profile.new_full((histories.start.numel(), histories.length), torch.nan)
    for block, rows, valid in histories.padded(size):
        target, item = histories.target[block], histories.item[rows]
        if dense is not None:
            value = dense[target[:, None], item]
        else:
            value = torch.bmm(unit[item], unit[target][:, :, None])[:, :, 0].double()
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
    seen = seen[~seen.isnan()]
    mean, spread = (seen.mean(), seen.std(correction=0)) if seen.numel() else (0.0, torch.zeros(()))
    features = cosines.new_zeros(cosines.shape[0], len(TEMPERATURES) + 1)
    if not float(spread) > 1e-9:
        return features
    for block, rows, valid in histories.padded():
        usable = ~cosines[block].isnan()
        z = torch.where(usable, (cosines[block] - mean) / spread, 0.0)
        residual = torch.where(usable, histories.label[rows] - histories.user_rate[block, None], 0.0)
        for column, tau in enumerate(TEMPERATURES):
            weight = torch.where(usable, torch.exp((tau * z).clamp_max(8.0)), 0.0)
            prior = 3.0 * torch.exp(torch.tensor(tau, dtype=z.dtype))
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


def _all_rows(vectors: Tensor) -> Tensor:
    return torch.ones(vectors.shape[0], dtype=torch.bool, device=vectors.device)
