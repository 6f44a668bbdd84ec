"""Matryoshka representation learning: a loss averaged over nested dimensions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from lis_lightning.errors import ConfigError


def matryoshka_loss(
    loss: Callable[[Tensor], Tensor], rows: Float[Tensor, "b d"], dims: Sequence[int]
) -> Float[Tensor, ""]:
    """Return the mean of a loss over the first dimensions of the representations (Kusupati et al. 2022, eq. 1).

    Args:
        loss: A loss of representations of any dimension.
        rows: Representations.
        dims: Number of leading dimensions in each term, 1 to D.

    Returns:
        A scalar.

    Raises:
        ConfigError: If `dims` is empty or not within 1 to D.

    Example:
        >>> import torch
        >>> matryoshka_loss(lambda rows: rows.sum(), torch.ones(2, 8), dims=[2, 8]).item()
        10.0
    """
    if not dims or not all(1 <= dim <= rows.shape[1] for dim in dims):
        raise ConfigError(f"Nested dimensions must lie in 1 to {rows.shape[1]}, but got {list(dims)}.")
    return torch.stack([loss(rows[:, :dim]) for dim in dims]).mean()
