"""Regularizers against the collapse of representations: the VICReg terms and uniformity."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from lis_lightning.errors import ShapeError
from lis_lightning.functional.loss_inputs import check_above_zero, check_rows, full_precision


def variance_covariance(
    rows: Float[Tensor, "b d"], *, covariance_weight: float = 0.04, target: float = 1.0
) -> Float[Tensor, ""]:
    """Return the sum of the variance and covariance terms of VICReg (Bardes, Ponce and LeCun 2022, eq. 1 to 4).

    ``mean_d max(0, target - sd_d) + covariance_weight * sum_{c != d} cov_{cd}^2 / D``; the paper weighs variance 25 and
    covariance 1.

    Args:
        rows: Representations, two or more.
        covariance_weight: Weight of the covariance term, relative to the variance term.
        target: Standard deviation above which a dimension has no variance loss, above 0.

    Returns:
        A scalar of 0 or more; 0 for uncorrelated dimensions of at least the target deviation.

    Raises:
        ShapeError: If there are fewer than two rows.
        NonFiniteError: If a row is NaN or infinite.
        ConfigError: If `target` is 0 or less.

    Example:
        >>> import torch
        >>> round(variance_covariance(torch.zeros(4, 3)).item(), 2)
        0.99
    """
    _check_two_rows(rows)
    check_above_zero(target=target)
    with full_precision(rows) as (full,):
        centered = full - full.mean(dim=0)
        covariance = centered.T @ centered / (len(full) - 1)
        # 1e-4 because the square root has no derivative at 0, the variance of collapsed rows.
        spread = (covariance.diagonal() + 1e-4).sqrt()
        off_diagonal = covariance - torch.diag(covariance.diagonal())
        return F.relu(target - spread).mean() + covariance_weight * off_diagonal.square().sum() / full.shape[1]


def uniformity(rows: Float[Tensor, "b d"], *, t: float = 2.0) -> Float[Tensor, ""]:
    """Return the uniformity loss, ``log mean exp(-t |x - y|^2)`` over pairs of unit rows (Wang and Isola 2020, 4.1).

    Args:
        rows: Representations, two or more.
        t: Inverse width of the Gaussian kernel, above 0.

    Returns:
        A scalar of 0 (all rows equal) or less; lower is more uniform.

    Raises:
        ShapeError: If there are fewer than two rows.
        NonFiniteError: If a row is NaN or infinite.
        ConfigError: If `t` is 0 or less.

    Example:
        >>> import torch
        >>> uniformity(torch.ones(4, 3)).item()
        0.0
    """
    _check_two_rows(rows)
    check_above_zero(t=t)
    with full_precision(rows) as (full,):
        squared = torch.pdist(F.normalize(full, dim=-1)).square()
        return squared.mul(-t).exp().mean().log()


def _check_two_rows(rows: Tensor) -> None:
    check_rows(rows=rows)
    if len(rows) < 2:
        raise ShapeError("A spread needs two rows or more, but got 1.")
