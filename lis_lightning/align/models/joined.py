"""Precomputed item features: their statistics, and how they are joined to what a pretrained model makes of an item."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset
from typing_extensions import override

from lis_lightning.align.data.items import ItemTable
from lis_lightning.errors import ItemError, ShapeError


class JoinedFeatures(nn.Module):
    """Puts features beside the states of a model, so that neither drowns the other.

    Every dimension is standardised, features by statistics of all items and states, which move in training, by running
    ones. Then the features are scaled as a whole: whatever the numbers of dimensions, both blocks vary equally much.

    Args:
        state_dim: Dimension of the states.
        feature_dim: Dimension of the features.
        momentum: Of the running statistics.

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
        self.share = math.sqrt(state_dim / feature_dim)

    @override
    def forward(self, states: Tensor, features: Tensor) -> Tensor:
        return torch.cat([self.states(states), self.share * self.features(features)], dim=1)

    @torch.no_grad()
    def fit_states(self, states: Tensor) -> None:
        """Take the first running statistics from states [n, state_dim], n of at least 2."""
        self.states.running_mean.copy_(states.mean(dim=0))  # type: ignore[union-attr]  # tracked by default
        self.states.running_var.copy_(states.var(dim=0))  # type: ignore[union-attr]


class Standardised(nn.Module):
    """Features less their mean, in units of their standard deviation; as they come until it is fitted.

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
        """Take mean and scale from features [num_items, dim]; a constant one becomes 0."""
        self.mean.copy_(features.mean(dim=0))
        deviation = features.std(dim=0, correction=0)
        self.scale.copy_(deviation.clamp(min=1e-6 * float(deviation.max()) or 1.0))

    @override
    def forward(self, features: Tensor) -> Tensor:
        return (features - self.mean) / self.scale


class WithFeatures(Dataset[dict[str, Any]]):
    """Prepared items with their features, which stay in memory: they are no part of what is kept on disk.

    Args:
        items: A row an item.
        features: [num_items, dim].
    """

    def __init__(self, items: Any, features: NDArray[np.float32]) -> None:
        self.items = items
        self.features = features

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Numbers that each item takes besides its features, [num_items]."""
        lengths: NDArray[np.int64] = self.items.lengths
        return lengths

    def __len__(self) -> int:
        return len(self.items)

    @override
    def __getitem__(self, row: int) -> dict[str, Any]:
        return {**self.items[row], "features": torch.from_numpy(self.features[row])}


def features_of(items: ItemTable, who: str, dim: int | None = None) -> NDArray[np.float32]:
    """Return the features of items, [num_items, dim].

    Args:
        items: The item table.
        who: What needs them, for messages.
        dim: How many there must be; None for any number.

    Raises:
        ItemError: If the items have no features.
        ShapeError: If there are more or fewer.
    """
    if items.features is None:
        raise ItemError(
            f"The {len(items)} items have no precomputed features, which {who} needs. Give the data a feature matrix "
            "(data.features), or use model=vlm, dual, text or vision alone, which read images and texts."
        )
    if dim is not None and items.features.shape[1] != dim:
        raise ShapeError(f"The encoder reads {dim} features an item, but got {items.features.shape[1]}.")
    return np.ascontiguousarray(items.features, dtype=np.float32)
