"""Preparation of loss inputs: full precision under autocast, and checks of shapes and values."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from lis_lightning.errors import ConfigError, NonFiniteError, ShapeError


@contextmanager
def full_precision(*tensors: Tensor) -> Iterator[list[Tensor]]:
    """Yield floating-point tensors in their common type, at least float32, with autocast off.

    Args:
        *tensors: One or more, all on one device.
    """
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    with torch.autocast(device_type=tensors[0].device.type, enabled=False):
        yield [tensor.to(dtype) for tensor in tensors]


def check_rows(**matrices: Tensor) -> None:
    """Raise unless all matrices are [rows, dim], finite, and have the same number of rows, at least one.

    Args:
        **matrices: Matrices by the name that messages use.

    Raises:
        ShapeError: If the shapes do not fit.
        NonFiniteError: If a row holds NaN or infinity.
    """
    shapes = {name: tuple(matrix.shape) for name, matrix in matrices.items()}
    sizes = {shape[:1] for shape in shapes.values()}
    if any(len(shape) != 2 for shape in shapes.values()) or len(sizes) > 1 or (0,) in sizes:
        described = ", ".join(f"`{name}` {shape}" for name, shape in shapes.items())
        raise ShapeError(
            f"Expected [rows, dim] with at least one row and the same number of rows in each, but got {described}."
        )
    for name, matrix in matrices.items():
        finite = torch.isfinite(matrix.detach()).all(dim=-1)
        if not finite.all():
            first = int((~finite).nonzero()[0])
            raise NonFiniteError(
                f"`{name}` has NaN or infinity in {int((~finite).sum())} of {len(matrix)} rows, the first is row "
                f"{first}; lower the learning rate, clip gradients, or train in float32 or bfloat16 instead of float16."
            )


def check_same_shape(**tensors: Tensor) -> None:
    """Raise a ShapeError unless all tensors have one shape.

    Args:
        **tensors: Tensors by the name that messages use.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if len(set(shapes.values())) > 1:
        described = ", ".join(f"`{name}` {shape}" for name, shape in shapes.items())
        raise ShapeError(f"Expected one shape, but got {described}.")


def check_above_zero(**values: float | Tensor) -> None:
    """Raise a ConfigError for a number that is not finite and above 0; tensors are learned and are not checked.

    Args:
        **values: Numbers by the name that messages use.
    """
    for name, value in values.items():
        if not isinstance(value, Tensor) and not 0.0 < value < math.inf:
            raise ConfigError(f"`{name}` must be a finite number above 0, but got {value}.")
