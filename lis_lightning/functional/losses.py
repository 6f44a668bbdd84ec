"""What all losses share: full precision under autocast, and a clear word about rows that cannot be used."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from lis_lightning.errors import ConfigError, NonFiniteError, ShapeError


@contextmanager
def full_precision(*tensors: Tensor) -> Iterator[list[Tensor]]:
    """Give floating-point tensors in their common type, float32 at least, with autocast off."""
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    with torch.autocast(device_type=tensors[0].device.type, enabled=False):
        yield [tensor.to(dtype) for tensor in tensors]


def check_rows(**matrices: Tensor) -> None:
    """Raise unless all are [rows, dim] with one number of rows, at least one, and finite.

    Raises:
        ShapeError: If shapes do not fit.
        NonFiniteError: If a row holds NaN or infinity.
    """
    shapes = {name: tuple(matrix.shape) for name, matrix in matrices.items()}
    sizes = {shape[0] if len(shape) == 2 else 0 for shape in shapes.values()}
    if len(sizes) != 1 or sizes == {0}:
        told = ", ".join(f"`{name}` {shape}" for name, shape in shapes.items())
        raise ShapeError(f"Expected [rows, dim] with one row or more, as many in each, but got {told}.")
    for name, matrix in matrices.items():
        finite = torch.isfinite(matrix.detach()).all(dim=-1)
        if not finite.all():
            first = int((~finite).nonzero()[0])
            raise NonFiniteError(
                f"`{name}` has NaN or infinity in {int((~finite).sum())} of {len(matrix)} rows, the first is row "
                f"{first}; lower the learning rate, clip gradients, or train in float32 or bfloat16 instead of float16."
            )


def check_same_shape(**matrices: Tensor) -> None:
    """Raise a ShapeError unless all have one shape."""
    if len({tuple(matrix.shape) for matrix in matrices.values()}) > 1:
        told = ", ".join(f"`{name}` {tuple(matrix.shape)}" for name, matrix in matrices.items())
        raise ShapeError(f"Expected one shape, but got {told}.")


def check_above_zero(**values: float | Tensor) -> None:
    """Raise a ConfigError for a number that is not finite and above 0; tensors are learned and not looked at."""
    for name, value in values.items():
        if not isinstance(value, Tensor) and not 0.0 < value < math.inf:
            raise ConfigError(f"`{name}` must be a finite number above 0, but got {value}.")
