"""What keeps representations from collapsing, whatever else they are trained for; and nested dimensions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from lis_lightning.errors import ConfigError, ShapeError
from lis_lightning.functional.losses import check_above_zero, check_rows, full_precision


def variance_covariance(
    rows: Float[Tensor, "b d"], *, covariance_weight: float = 0.04, target: float = 1.0
) -> Float[Tensor, ""]:
    """Return the variance and the covariance term of VICReg (Bardes, Ponce and LeCun 2022, eq. 1 to 4).

    ``mean_d max(0, target - sd_d) + covariance_weight * sum_{c != d} cov_{cd}^2 / D``; the paper weighs variance 25 and
    covariance 1.

    Args:
        rows: Representations, two or more.
        covariance_weight: Of the covariance term, relative to the variance term.
        target: Standard deviation from which a dimension is spread enough.

    Returns:
        A scalar of 0 or more; 0 for dimensions that are spread and uncorrelated.

    Raises:
        ShapeError: If there are fewer than two rows.
        NonFiniteError: If a row is NaN or infinite.
        ConfigError: If `target` is 0 or less.

    Example:
        >>> import torch
        >>> round(variance_covariance(torch.zeros(4, 3)).item(), 2)
        0.99
    """
    _check_many(rows)
    check_above_zero(target=target)
    with full_precision(rows) as (full,):
        centered = full - full.mean(dim=0)
        covariance = centered.T @ centered / (len(full) - 1)
        # The root has no derivative at 0, where collapsed rows are.
        spread = (covariance.diagonal() + 1e-4).sqrt()
        off_diagonal = covariance - torch.diag(covariance.diagonal())
        return F.relu(target - spread).mean() + covariance_weight * off_diagonal.square().sum() / full.shape[1]


def uniformity(rows: Float[Tensor, "b d"], *, t: float = 2.0) -> Float[Tensor, ""]:
    """Return ``log mean exp(-t |x - y|^2)`` over pairs of unit rows (Wang and Isola 2020, section 4.1).

    Args:
        rows: Representations, two or more.
        t: Above 0.

    Returns:
        A scalar of 0 (all rows alike) or less, lower is more uniform.

    Raises:
        ShapeError: If there are fewer than two rows.
        NonFiniteError: If a row is NaN or infinite.
        ConfigError: If `t` is 0 or less.

    Example:
        >>> import torch
        >>> uniformity(torch.ones(4, 3)).item()
        0.0
    """
    _check_many(rows)
    check_above_zero(t=t)
    with full_precision(rows) as (full,):
        squared = torch.pdist(F.normalize(full, dim=-1)).square()
        return squared.mul(-t).exp().mean().log()


def matryoshka(loss: Callable[[Tensor], Tensor], rows: Float[Tensor, "b d"], dims: Sequence[int]) -> Float[Tensor, ""]:
    """Return the mean of a loss over the first dimensions of the representations (Kusupati et al. 2022, eq. 1).

    Args:
        loss: Of representations of any dimension.
        rows: Representations.
        dims: How many dimensions each term sees.

    Raises:
        ConfigError: If `dims` is empty or not within 1 to D.

    Example:
        >>> import torch
        >>> matryoshka(lambda rows: rows.sum(), torch.ones(2, 8), dims=[2, 8]).item()
        10.0
    """
    if not dims or not all(1 <= dim <= rows.shape[1] for dim in dims):
        raise ConfigError(f"Nested dimensions must lie in 1 to {rows.shape[1]}, but got {list(dims)}.")
    return torch.stack([loss(rows[:, :dim]) for dim in dims]).mean()


def _check_many(rows: Tensor) -> None:
    check_rows(rows=rows)
    if len(rows) < 2:
        raise ShapeError("A spread needs two rows or more, but got 1.")
