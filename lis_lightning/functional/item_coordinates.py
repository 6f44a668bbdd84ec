"""Item vectors in a frame of principal axes: centred, scaled to unit length, and projected on the strongest axes.

Shapes: N items, D dimensions of their vectors, k principal axes. Precision follows the item vectors: float64 throughout
if they are float64, else float32 products with float64 sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lis_lightning.functional.threads import for_each_block, map_blocks

_CHUNK = 2**20  # floats of item vectors per block: 4 MB, which fits in the cache
_AXES_ITEMS = 4096  # at most this many items are used to fit principal axes
_ROUNDS = 4  # of subspace iteration


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the precision of products: float64 for float64, else float32 (half precision is converted in blocks).

    Args:
        dtype: Type of the item vectors.

    Example:
        >>> compute_dtype(torch.bfloat16)
        torch.float32
    """
    return torch.float64 if dtype == torch.float64 else torch.float32


def num_axes(num_items: int, most: int = 64) -> int:
    """Return how many principal axes of a representation the probe reads: one for ten items, at least 16.

    With more axes, random vectors of few items tell them apart as ids do, and gain.

    Args:
        num_items: Rows of the representation.
        most: Upper limit.

    Example:
        >>> num_axes(300), num_axes(100_000)
        (30, 64)
    """
    return min(most, max(16, num_items // 10))


def take(vectors: Float[Tensor, "N D"], rows: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape D"]:
    """Return some rows in compute precision; on the CPU twice as fast as indexing."""
    return vectors.index_select(0, rows.flatten()).view(*rows.shape, -1).to(compute_dtype(vectors.dtype))


@dataclass(frozen=True)
class PrincipalAxes:
    """A frame for item vectors: fitted on one matrix, applied to others of the same space.

    Attributes:
        center: Mean of the rows, [D].
        basis: The k strongest principal axes of the centred unit rows, [D, k].
        scale: Overall standard deviation of the coordinates on these axes.
    """

    center: Float[Tensor, " D"]
    basis: Float[Tensor, "D k"]
    scale: float


@dataclass(frozen=True)
class ItemCoordinates:
    """Item vectors and their principal coordinates.

    The vectors are not copied: centred unit rows are computed where they are needed.

    Attributes:
        vectors: One row per item, [N, D].
        axes: The frame.
        inverse_norm: One over the length of each centred row, in compute precision; 0 for a row that is absent or
            has no direction, [N].
        center_product: Inner product of each centred row with the center, [N].
        profile: Principal coordinates, scaled to an overall standard deviation of 1, [N, k].

    Example:
        >>> import torch
        >>> principal_coordinates(torch.tensor([[2.0, 0.0], [-1.0, 0.0], [5.0, 0.0]]), k=1).profile.shape
        torch.Size([3, 1])
    """

    vectors: Float[Tensor, "N D"]
    axes: PrincipalAxes
    inverse_norm: Float[Tensor, " N"]
    center_product: Float[Tensor, " N"]
    profile: Float[Tensor, "N k"]

    @property
    def present(self) -> Bool[Tensor, " N"]:
        """Rows that hold a vector with a direction, [N]."""
        return self.inverse_norm > 0

    @property
    def log_norm(self) -> Float[Tensor, "N 1"]:
        """Logarithm of the length of each centred row, less the mean of all; 0 for rows that are not present, [N, 1].

        Zeros if lengths vary by less than a thousandth, the rounding error of half precision.
        """
        length = -torch.where(self.present, self.inverse_norm, 1.0).double().log()
        length -= length.sum() / self.present.sum().clamp_min(1)
        length *= self.present
        varies = length.square().sum() > 1e-6 * self.present.sum()
        return (length * varies)[:, None]

    def unit(self, rows: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape D"]:
        """Return centred rows of length 1, whose inner products are cosines; zeros for rows that are not present."""
        return take(self.vectors, rows).sub_(self.axes.center).mul_(self.inverse_norm[rows][..., None])


def concatenate_items(items: Sequence[ItemCoordinates]) -> ItemCoordinates:
    """Return several matrices of one space as one, their rows below each other.

    Args:
        items: One or more, all in the frame of the first.
    """

    def stacked(attribute: str) -> Tensor:
        return torch.cat([getattr(item, attribute) for item in items])

    return ItemCoordinates(
        vectors=stacked("vectors"),
        axes=items[0].axes,
        inverse_norm=stacked("inverse_norm"),
        center_product=stacked("center_product"),
        profile=stacked("profile"),
    )


def principal_coordinates(
    vectors: Float[Tensor, "N D"],
    *,
    k: int = 64,
    axes: PrincipalAxes | None = None,
    present: Bool[Tensor, " N"] | None = None,
) -> ItemCoordinates:
    """Return item vectors in a frame of principal axes: centred, of unit length, on the k strongest axes.

    The axes are fitted on at most 4096 evenly spaced items. Rotating, scaling or shifting the vectors changes no
    coordinate; reordering more items than that changes them slightly. The vectors are not copied.

    Args:
        vectors: One row per item; products are computed in float64 if they are float64, else in float32.
        k: Number of axes for the profile; axes beyond D are zero.
        axes: The frame, if it was fitted on another matrix of the same space; None fits it.
        present: Rows that hold a vector; None means all.

    Returns:
        The coordinates; zeros for absent rows and for a matrix whose rows are all equal.

    Example:
        >>> import torch
        >>> vectors = torch.tensor([[2.0, 0.0], [-1.0, 0.0], [5.0, 0.0]])
        >>> items = principal_coordinates(vectors, k=1)
        >>> items.present, items.profile.abs().flatten()
        (tensor([False,  True,  True]), tensor([0.0000, 1.2247, 1.2247]))
    """
    present = torch.ones(vectors.shape[0], dtype=torch.bool, device=vectors.device) if present is None else present
    if axes is None:
        center = _center(vectors, present)
        basis = _basis(vectors, center, present, k)
    else:
        center, basis = axes.center, axes.basis
    # One pass over the vectors gives the lengths, the coordinates, and the products with the center.
    lengths, products = _project(vectors, center, torch.cat([basis, center[:, None]], dim=1))
    inverse_norm = _inverse_norm(lengths, center, present)
    coordinates = products[:, :-1] * inverse_norm[:, None]
    if axes is None:
        fitted = coordinates[present]
        axes = PrincipalAxes(center, basis, float(fitted.std(correction=0)) if fitted.numel() else 0.0)
    profile = coordinates / axes.scale if axes.scale > 0 else torch.zeros_like(coordinates)
    return ItemCoordinates(vectors, axes, inverse_norm, products[:, -1].contiguous(), profile)


def _chunk_rows(vectors: Tensor) -> int:
    return max(1, _CHUNK // vectors.shape[1])


def _center(vectors: Tensor, present: Tensor) -> Tensor:
    """Return the mean of the rows that are present."""
    dtype = compute_dtype(vectors.dtype)
    if present.all():
        blocks = torch.split(vectors, _chunk_rows(vectors))
        sums = map_blocks(lambda rows: rows.sum(0, dtype=dtype).double(), blocks, vectors.device)
        total = torch.stack(list(sums)).sum(0)
    else:
        total = vectors[present].sum(0, dtype=torch.float64)
    return (total / present.sum().clamp_min(1)).to(dtype)


def _inverse_norm(lengths: Tensor, center: Tensor, present: Tensor) -> Tensor:
    """Return one over the length of each centred row, 0 where it is absent or has no direction.

    A matrix whose rows differ by rounding error only (a collapsed representation) gives zeros throughout; normalising
    would scale the rounding error up to unit length.
    """
    lengths_present = torch.where(present, lengths, 0.0)
    typical = (lengths_present.double().square().sum() / present.sum().clamp_min(1)).sqrt()
    floor = typical
    if lengths_present.numel():
        floor = torch.maximum(1e-6 * (center.norm() + lengths_present.amax(0)), 1e-9 * typical)
    return torch.where(lengths_present > floor, 1.0 / lengths, 0.0)


def _basis(vectors: Tensor, center: Tensor, present: Tensor, k: int) -> Tensor:
    """Return the k strongest principal axes of the centred unit rows; zeros for axes without variance."""
    rows = present.nonzero()[:, 0]
    rows = rows[:: max(1, -(-rows.numel() // _AXES_ITEMS))]
    unit = vectors[rows].to(center.dtype) - center
    unit *= _inverse_norm(unit.norm(dim=1), center, torch.ones_like(rows, dtype=torch.bool))[:, None]
    strength, directions = _leading_eigenvectors(unit, k)
    # Axes without variance are noise of the solver: as zeros they keep the shape and carry nothing.
    noise = 1e-12 if center.dtype == torch.float64 else 1e-6
    real = strength > noise * unit.square().sum().clamp_min(1e-30)
    return torch.nn.functional.pad(directions * real, (0, k - strength.numel()))


def _leading_eigenvectors(rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the leading eigenvalues and eigenvectors of ``rows.T @ rows``, at most `k`, strongest first.

    Subspace iteration (Halko, Martinsson and Tropp 2011) with 2k columns: exact where D <= 2k. Otherwise, after four
    rounds, the AIS of text vectors equals that of exact axes to 2e-6. The start is a sum of rows with fixed random
    weights, so that rotating the rows rotates the result, to rounding.
    """
    generator = torch.Generator().manual_seed(0)
    columns = min(2 * k, rows.shape[1])
    span = rows.T @ torch.randn(rows.shape[0], columns, generator=generator, dtype=torch.float64).to(rows)
    blocks = torch.split(rows, _AXES_ITEMS // 8)

    def power_step(basis: Tensor) -> Tensor:
        products = map_blocks(lambda block: block.T @ (block @ basis), blocks, rows.device)
        return torch.stack(list(products)).sum(0)

    for _ in range(_ROUNDS):
        span = power_step(torch.linalg.qr(span).Q)
    span = torch.linalg.qr(span).Q
    # Rayleigh-Ritz: the eigenvectors within the span, from its small Gram matrix.
    projected = rows @ span
    strength, rotation = torch.linalg.eigh((projected.T @ projected).double())
    return strength.flip(0)[:k], (span @ rotation.to(span)).flip(1)[:, :k]


def _project(vectors: Tensor, center: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """Return the length of each centred row, and its inner products with the columns of `basis`."""
    lengths = center.new_empty(vectors.shape[0])
    products = center.new_empty(vectors.shape[0], basis.shape[1])
    size = _chunk_rows(vectors)
    blocks = zip(torch.split(vectors, size), torch.split(lengths, size), torch.split(products, size), strict=True)

    def fill(block: tuple[Tensor, Tensor, Tensor]) -> None:
        rows, length, product = block
        centered = rows.to(center.dtype) - center
        torch.linalg.vector_norm(centered, dim=1, out=length)
        torch.mm(centered, basis, out=product)

    for_each_block(fill, blocks, vectors.device)
    return lengths, products
