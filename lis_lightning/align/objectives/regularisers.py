"""Regularisers that keep representations from collapsing to one point."""

from __future__ import annotations

from torch import Tensor, nn
from typing_extensions import override

from lis_lightning.align.objectives.objective import check_weight
from lis_lightning.functional.regularizers import uniformity, variance_covariance


class Regulariser(nn.Module):
    """A loss of all representations of a batch, whatever they are trained for; subclasses define `loss`.

    Args:
        weight: Of its loss in the sum, above 0.

    Raises:
        ConfigError: If the weight is not above 0.

    Example:
        >>> class SmallMean(Regulariser):
        ...     def loss(self, rows):
        ...         return rows.mean(dim=0).square().sum()
        >>> import torch
        >>> SmallMean(weight=0.1).loss(torch.ones(4, 3))
        tensor(3.)
    """

    def __init__(self, *, weight: float = 1.0) -> None:
        super().__init__()
        check_weight(self, weight)
        self.weight = weight

    def loss(self, rows: Tensor) -> Tensor:
        """Return the loss of representations [U, D], a scalar."""
        raise NotImplementedError


class VarianceCovariance(Regulariser):
    """VICReg without its invariance term (Bardes et al. 2022): every dimension varies, and no two are correlated.

    Args:
        weight: Of its loss in the sum, above 0.
        covariance_weight: Of the covariance term, relative to the variance term.

    Example:
        >>> import torch
        >>> VarianceCovariance().loss(torch.zeros(4, 3)) > VarianceCovariance().loss(2 * torch.eye(4, 3))
        tensor(True)
    """

    def __init__(self, *, weight: float = 1.0, covariance_weight: float = 0.04) -> None:
        super().__init__(weight=weight)
        self.covariance_weight = covariance_weight

    @override
    def loss(self, rows: Tensor) -> Tensor:
        return variance_covariance(rows, covariance_weight=self.covariance_weight)


class Uniformity(Regulariser):
    """The uniformity loss of Wang and Isola (2020): items spread evenly over the unit sphere.

    Example:
        >>> import torch
        >>> Uniformity().loss(torch.ones(4, 3)) > Uniformity().loss(torch.eye(4))
        tensor(True)
    """

    @override
    def loss(self, rows: Tensor) -> Tensor:
        return uniformity(rows)
