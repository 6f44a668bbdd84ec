"""Precomputed item features: standardised, and joined to the vector that a pretrained model makes of an item."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset
from typing_extensions import override

from lis_lightning.align.data.item_table import ItemTable
from lis_lightning.errors import ItemError, ShapeError


class JoinedFeatures(nn.Module):
    """Concatenates the states of a model and precomputed features, so that both blocks have the same total variance.

    Every dimension is standardised: features by the statistics of all items, states by running statistics, since they
    change in training. Then the features are scaled as a whole to the total variance of the states.

    Args:
        state_dim: Dimension of the states.
        feature_dim: Dimension of the features.
        momentum: Of the running statistics of the states.

    Example:
        >>> joined = JoinedFeatures(4, 100, momentum=0.3)
        >>> joined.features.fit(torch.randn(50, 100))
        >>> states, features = joined(torch.randn(50, 4), torch.randn(50, 100)).split([4, 100], dim=1)
        >>> round(float(states.var(dim=0).sum() / 4), 1)
        1.0
    """

    def __init__(self, state_dim: int, feature_dim: int, *, momentum: float) -> None:
        super().__init__()
        self.states = nn.BatchNorm1d(state_dim, eps=1e-10, affine=False, momentum=momentum)
        self.features = Standardised(feature_dim)
        self.scale = math.sqrt(state_dim / feature_dim)

    @override
    def forward(self, states: Tensor, features: Tensor) -> Tensor:
        return torch.cat([self.states(states), self.scale * self.features(features)], dim=1)

    @torch.no_grad()
    def fit_states(self, states: Tensor) -> None:
        """Set the initial running statistics from states [n, state_dim], n of 2 or more."""
        self.states.running_mean.copy_(states.mean(dim=0))  # type: ignore[union-attr]  # tracked by default
        self.states.running_var.copy_(states.var(dim=0))  # type: ignore[union-attr]


class Standardised(nn.Module):
    """Subtracts the mean of features and divides by their standard deviation; the identity until it is fitted.

    Args:
        dim: Dimension of the features.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))

    @torch.no_grad()
    def fit(self, features: Tensor) -> None:
        """Set mean and scale from features [num_items, dim]; a constant dimension becomes 0."""
        self.mean.copy_(features.mean(dim=0))
        deviation = features.std(dim=0, correction=0)
        self.scale.copy_(deviation.clamp(min=1e-6 * float(deviation.max()) or 1.0))

    @override
    def forward(self, features: Tensor) -> Tensor:
        return (features - self.mean) / self.scale


class WithFeatures(Dataset[dict[str, Any]]):
    """Prepared items with their features, which stay in memory and are not written to disk.

    Args:
        items: The prepared items.
        features: Of the same items, [num_items, dim]; each item gets its own as [1, dim].
    """

    def __init__(self, items: Any, features: NDArray[np.float32]) -> None:
        self.items = items
        self.features = features
        self.num_workers = getattr(items, "num_workers", 0)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """How many numbers each item has besides its features, [num_items]."""
        lengths: NDArray[np.int64] = self.items.lengths
        return lengths

    def __len__(self) -> int:
        return len(self.items)

    @override
    def __getitem__(self, row: int) -> dict[str, Any]:
        return {**self.items[row], "features": torch.from_numpy(self.features[row : row + 1])}


def features_of(items: ItemTable, needed_by: str, dim: int | None = None) -> NDArray[np.float32]:
    """Return the precomputed features of the items, [num_items, dim].

    Args:
        items: The item table.
        needed_by: Setting that needs them, for the error message.
        dim: Expected dimension; None for any.

    Raises:
        ItemError: If the items have no features.
        ShapeError: If they have another dimension.
    """
    if items.features is None:
        raise ItemError(
            f"The {len(items)} items have no precomputed features, which {needed_by} needs. Give the data a feature "
            "matrix (data.features), or use a model that reads images or texts, without features."
        )
    if dim is not None and items.features.shape[1] != dim:
        raise ShapeError(f"The encoder reads {dim} features an item, but got {items.features.shape[1]}.")
    return np.ascontiguousarray(items.features, dtype=np.float32)
