"""Regularisers that keep representations from collapsing."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from lis_lightning.align.objectives.base import Regulariser
from lis_lightning.functional.regularizers import uniformity, variance_covariance


class VarianceCovariance(Regulariser):
    """Every dimension is to vary, and no two together (VICReg).

    Args:
        weight: Of its loss in the sum.
        covariance_weight: Of the covariance term, relative to the variance term.
    """

    def __init__(self, *, weight: float = 1.0, covariance_weight: float = 0.04) -> None:
        super().__init__(weight=weight)
        self.covariance_weight = covariance_weight

    @override
    def loss(self, rows: Tensor) -> Tensor:
        return variance_covariance(rows, covariance_weight=self.covariance_weight)


class Uniformity(Regulariser):
    """Items are to cover the sphere evenly."""

    @override
    def loss(self, rows: Tensor) -> Tensor:
        return uniformity(rows)
