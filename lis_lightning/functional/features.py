"""What a ranker can take from item vectors: a user profile against the target, and attention over the history.

Shapes: N items, D their dimensions, E events, L the longest history, k principal axes, H rows of history. Precision
follows the item vectors: float64 throughout if they are float64, else float32 products with float64 sums.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.linalg import vecdot

TEMPERATURES = (0.5, 1.0, 2.0)
_BLOCK = 8192  # events at a time, for look-ups
_CHUNK = 2**20  # floats of item vectors at a time: 4 MB, which caches hold
_GATHER = 2**21  # floats gathered for a batch of products: 8 MB
_RUN = 48  # history rows whose events share one product of targets and histories
_AXES_ITEMS = 4096  # items that principal axes are fitted on
_ROUNDS = 3  # of the iteration that finds them


def working(dtype: torch.dtype) -> torch.dtype:
    """Return the precision of products: float64 for float64, else float32 (half precision is read in blocks)."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def take(vectors: Float[Tensor, "N D"], rows: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape D"]:
    """Return rows in working precision; on the CPU twice as fast as indexing."""
    return vectors.index_select(0, rows.flatten()).view(*rows.shape, -1).to(working(vectors.dtype))


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
        drift: Product of each centred row with the center, [N].
        profile: Principal coordinates at unit overall standard deviation, [N, k].
    """

    vectors: Float[Tensor, "N D"]
    axes: Axes
    inverse: Float[Tensor, " N"]
    drift: Float[Tensor, " N"]
    profile: Float[Tensor, "N k"]

    @property
    def present(self) -> Bool[Tensor, " N"]:
        """Rows that hold a vector with a direction, [N]."""
        return self.inverse > 0

    def unit(self, rows: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape D"]:
        """Return centred rows of length 1, whose inner products are cosines; zeros for rows that are not present."""
        return take(self.vectors, rows).sub_(self.axes.center).mul_(self.inverse[rows][..., None])


def join(items: Sequence[ItemCoordinates]) -> ItemCoordinates:
    """Return several matrices of one space as one, their rows below each other."""
    return ItemCoordinates(
        vectors=torch.cat([item.vectors for item in items]),
        axes=items[0].axes,
        inverse=torch.cat([item.inverse for item in items]),
        drift=torch.cat([item.drift for item in items]),
        profile=torch.cat([item.profile for item in items]),
    )


def place(
    vectors: Float[Tensor, "N D"], *, k: int = 16, axes: Axes | None = None, present: Bool[Tensor, " N"] | None = None
) -> ItemCoordinates:
    """Express item vectors in a frame: centre, unit length, principal axes.

    Axes come from the Gram matrix of at most 4096 evenly spaced items: rotating, scaling and shifting the vectors
    changes no coordinate; another order of more items than that moves them a little. Nothing here copies the vectors.

    Args:
        vectors: One row an item; products are taken in float64 if they are float64, else in float32.
        k: Axes that the profile features use; axes beyond D are zero.
        axes: The frame, where another matrix of the same space has set it; None fits it.
        present: Rows that hold a vector; None means all.
    """
    present = torch.ones(vectors.shape[0], dtype=torch.bool, device=vectors.device) if present is None else present
    center = _center(vectors, present) if axes is None else axes.center
    basis = _basis(vectors, center, present, k) if axes is None else axes.basis
    lengths, products = _read(vectors, center, torch.cat([basis, center[:, None]], dim=1))
    inverse = _inverse(lengths, center, present)
    coordinates = products[:, :-1] * inverse[:, None]
    if axes is None:
        there = coordinates[present]
        axes = Axes(center, basis, float(there.std(correction=0)) if there.numel() else 0.0)
    profile = coordinates / axes.scale if axes.scale > 0 else torch.zeros_like(coordinates)
    return ItemCoordinates(vectors, axes, inverse, products[:, -1].contiguous(), profile)


def _chunk_rows(vectors: Tensor) -> int:
    return max(1, _CHUNK // vectors.shape[1])


def _center(vectors: Tensor, present: Tensor) -> Tensor:
    """Return the mean of the rows that are present."""
    dtype = working(vectors.dtype)
    if present.all():
        total = torch.stack(
            [rows.sum(0, dtype=dtype).double() for rows in torch.split(vectors, _chunk_rows(vectors))]
        ).sum(0)
    else:
        total = vectors[present].sum(0, dtype=torch.float64)
    return (total / present.sum().clamp_min(1)).to(dtype)


def _inverse(lengths: Tensor, center: Tensor, present: Tensor) -> Tensor:
    """Return one over the length of each centred row, 0 where it is absent or has no direction.

    A matrix whose rows differ by rounding only (a collapsed representation) gives zeros throughout: without that,
    normalising would blow the rounding up to unit length.
    """
    known = torch.where(present, lengths, 0.0)
    typical = (known.double().square().sum() / present.sum().clamp_min(1)).sqrt()
    floor = torch.maximum(1e-6 * (center.norm() + known.amax(0)), 1e-9 * typical) if known.numel() else typical
    return torch.where(known > floor, 1.0 / lengths, 0.0)


def _basis(vectors: Tensor, center: Tensor, present: Tensor, k: int) -> Tensor:
    """Return the k strongest principal axes of the centred unit rows; zeros for axes without variance."""
    rows = present.nonzero()[:, 0]
    rows = rows[:: max(1, -(-rows.numel() // _AXES_ITEMS))]
    unit = vectors[rows].to(center.dtype) - center
    unit *= _inverse(unit.norm(dim=1), center, torch.ones_like(rows, dtype=torch.bool))[:, None]
    strength, directions = _leading(unit, k)
    # Axes without variance are noise of the solver; left at zero they keep the shape and carry nothing.
    noise = 1e-12 if center.dtype == torch.float64 else 1e-6
    real = strength > noise * unit.square().sum().clamp_min(1e-30)
    return torch.nn.functional.pad(directions * real, (0, k - strength.numel()))


def _leading(rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the leading eigenvalues and eigenvectors of ``rows.T @ rows``, at most `k`, strongest first.

    Subspace iteration (Halko, Martinsson and Tropp 2011) with four times the columns: exact where that is all of them,
    and else as good: after three rounds the AIS of text vectors is that of exact axes to 2e-6. It starts from sums of
    rows with fixed random weights, so that it turns with the rows to the last bit that rounding leaves.
    """
    generator = torch.Generator().manual_seed(0)
    columns = min(4 * k, rows.shape[1])
    span = rows.T @ torch.randn(rows.shape[0], columns, generator=generator, dtype=torch.float64).to(rows)
    for _ in range(_ROUNDS):
        span = rows.T @ (rows @ torch.linalg.qr(span).Q)
    span = torch.linalg.qr(span).Q
    seen = rows @ span
    strength, turn = torch.linalg.eigh((seen.T @ seen).double())
    return strength.flip(0)[:k], (span @ turn.to(span)).flip(1)[:, :k]


def _read(vectors: Tensor, center: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """Return the length of each centred row, and its products with the basis."""
    lengths = center.new_empty(vectors.shape[0])
    products = center.new_empty(vectors.shape[0], basis.shape[1])
    size = _chunk_rows(vectors)
    for rows, length, product in zip(*(torch.split(x, size) for x in (vectors, lengths, products)), strict=True):
        centered = rows.to(center.dtype) - center
        torch.linalg.vector_norm(centered, dim=1, out=length)
        torch.mm(centered, basis, out=product)
    return lengths, products


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

    def regroup(self, group: Int[Tensor, " E"], num_items: int) -> Histories:
        """Return the same histories with item i called ``i + g * num_items`` by the events of group g.

        Args:
            group: Group of each event, [E]; no two groups share a history row, as groups of users do not.
            num_items: Number of items.
        """
        # The events that read a history row are of one group: that of the first event that ends beyond it.
        order = self.stop.argsort(stable=True)
        rows = torch.arange(self.item.numel(), device=self.item.device)
        reader = torch.searchsorted(self.stop[order], rows, right=True).clamp_max_(order.numel() - 1)
        return replace(self, item=self.item + num_items * group[order][reader], target=self.target + num_items * group)

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

    Differences of prefix sums over the history rows, taken in float64; no pass over histories.

    Args:
        vectors: Profile coordinates of the items.
        histories: The events.
    """
    k = vectors.shape[1]
    wanted = vectors.new_empty(histories.start.numel(), k)
    if not histories.start.numel():  # a fold of users may have no events
        return wanted
    for events in torch.split(histories.stop.argsort(stable=True), _BLOCK):
        start, stop, rate = histories.start[events], histories.stop[events], histories.user_rate[events]
        first, last = int(start.min()), int(stop.max())
        rows = vectors.index_select(0, histories.item[first:last])
        sums = torch.zeros(last - first + 1, 2 * k, dtype=torch.float64, device=vectors.device)
        sums[1:, :k] = rows
        torch.mul(rows, histories.label[first:last, None], out=sums[1:, k:])
        sums.cumsum_(0)
        own = sums.index_select(0, stop - first) - sums.index_select(0, start - first)
        residual = own[:, k:] - rate[:, None] * own[:, :k]
        wanted[events] = (residual / (5.0 + stop - start)[:, None]).to(vectors.dtype)
    return wanted


def history_cosines(coordinates: ItemCoordinates, histories: Histories) -> Float[Tensor, "E L"]:
    """Return the cosine of each event's target to each item of its history; NaN where either has no vector.

    Histories of neighbouring events overlap: events that end in the same stretch of history rows are taken together,
    as one product of their targets and all of their rows, of which each event reads its own range.

    Args:
        coordinates: Items in their frame.
        histories: The events; histories are right-padded with NaN.
    """
    vectors, center = coordinates.vectors, coordinates.axes.center
    inverse = torch.where(coordinates.present, coordinates.inverse, torch.nan)
    cosines = center.new_full((histories.start.numel(), histories.length), torch.nan)
    offsets = torch.arange(histories.length, device=cosines.device)
    for run in _runs(histories, vectors.shape[1]):
        items, targets = histories.item[run.rows], histories.target[run.events]
        # Centring one factor is enough, and rounds no more than the numbers that were given.
        products = torch.bmm(take(vectors, targets).sub_(center), take(vectors, items).mT)
        products.sub_(coordinates.drift[targets][:, :, None])
        products.mul_(inverse[targets][:, :, None]).mul_(inverse[items][:, None, :])
        start, stop = histories.start[run.events][:, :, None], histories.stop[run.events][:, :, None]
        own = start - run.rows[:, :1, None] + offsets
        found = products.gather(2, own.clamp_max_(run.rows.shape[1] - 1))
        cosines[run.events] = found.masked_fill_(offsets >= stop - start, torch.nan)
    return cosines


@dataclass(frozen=True)
class _Runs:
    """Runs of neighbouring events, padded to one size.

    Attributes:
        events: Events of each run, [runs, events]; the last is repeated.
        rows: History rows that hold all of theirs, [runs, rows], counting up from the first.
    """

    events: Int[Tensor, "runs events"]
    rows: Int[Tensor, "runs rows"]


def _runs(histories: Histories, dim: int) -> Iterator[_Runs]:
    """Yield all events in batches of runs: at most `_RUN` events each, whose histories end within `_RUN` rows."""
    order = histories.stop.argsort(stable=True)
    stop, index = histories.stop[order], torch.arange(order.numel(), device=order.device)
    _, sizes = torch.unique_consecutive(stop // _RUN, return_counts=True)
    position = index - (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    begin = (position % _RUN == 0).nonzero()[:, 0]
    size = torch.diff(begin, append=begin.new_tensor([order.numel()]))
    run = torch.arange(begin.numel(), device=order.device).repeat_interleave(size)
    low = stop.new_full(begin.shape, histories.item.numel()).scatter_reduce(0, run, histories.start[order], "amin")
    width = (stop[begin + size - 1] - low).clamp_min(1)
    # Runs of like sizes go together, so that little is padded.
    ranked = (size * (_RUN + histories.length + 1) + width).argsort()
    cost = ((size + width) * max(dim, histories.length))[ranked].cumsum(0)
    for batch in torch.split(ranked, torch.unique_consecutive(cost // _GATHER, return_counts=True)[1].tolist()):
        most, widest = int(size[batch].max()), int(width[batch].max())
        within = torch.minimum(index[:most], size[batch, None] - 1)
        rows = low[batch, None] + torch.arange(widest, device=order.device)
        yield _Runs(order[begin[batch, None] + within], rows.clamp_max_(histories.item.numel() - 1))


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
    features = cosines.new_zeros(cosines.shape[0], len(TEMPERATURES) + 1)
    mean, spread = _mean_and_spread(cosines, train)
    if not spread > (1e-9 if cosines.dtype == torch.float64 else 1e-6):
        return features
    rate, label = histories.user_rate.to(cosines.dtype), histories.label.to(cosines.dtype)
    for block, rows, valid in histories.padded():
        usable = ~cosines[block].isnan()
        # So far below zero that the exponential is exactly 0, yet finite: times a residual of 0 it stays 0.
        z = torch.where(usable, (cosines[block] - mean) / spread, -1e4)
        residual = (label[rows] - rate[block, None]).mul_(usable)
        weight = torch.exp((TEMPERATURES[0] * z).clamp_max_(8.0))
        for column, tau in enumerate(TEMPERATURES):
            if column:  # temperatures double: exp(min(2 t, 8)) is the square of exp(min(t, 8)), cut at e^8
                weight = weight.square().clamp_max_(math.exp(8.0))
            features[block, column] = vecdot(residual, weight) / (3.0 * math.exp(tau) + weight.sum(1))
        features[block, -1] = vecdot(residual, z) / valid.sum(1).clamp_min(1)
    return features


def _mean_and_spread(cosines: Tensor, train: Tensor) -> tuple[float, float]:
    """Return mean and standard deviation of the training events' cosines; zeros if there are none."""
    blocks = torch.split(train.nonzero()[:, 0], _BLOCK)
    count = max(1, sum(int((~cosines[block].isnan()).sum()) for block in blocks))
    mean = sum(float(cosines[block].nansum(dtype=torch.float64)) for block in blocks) / count
    square = sum(float((cosines[block] - mean).square_().nansum(dtype=torch.float64)) for block in blocks) / count
    return mean, math.sqrt(square)


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
