"""An encoder of precomputed item features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset
from typing_extensions import override

from lis_lightning.align.data.item_table import ItemTable
from lis_lightning.align.models.item_encoder import ItemEncoder, item_ids
from lis_lightning.align.models.joined_features import Standardised, features_of
from lis_lightning.errors import ConfigError


class _FeatureRows(Dataset[dict[str, Any]]):
    def __init__(self, features: NDArray[np.float32], ids: NDArray[Any]) -> None:
        self.features = features
        self.ids = ids

    def __len__(self) -> int:
        return len(self.ids)

    @override
    def __getitem__(self, row: int) -> dict[str, Any]:
        return {"item_id": self.ids[row : row + 1].tolist()[0], "features": torch.from_numpy(self.features[row])}


class FeatureEncoder(ItemEncoder):
    r"""A head over precomputed item features: :math:`W z + V\,\mathrm{gelu}(U z)` of the standardised features z.

    W is initialised with the principal components of the items and V with zeros. So the first snapshot scores the
    features as they are, and training starts from there.

    Args:
        input_dim: Dimension of the features.
        output_dim: Dimension of the representation, at most `input_dim`.
        hidden_dim: Width of the non-linear branch; 0 leaves it out.

    Raises:
        ConfigError: If a dimension is out of range.

    Example:
        >>> items = ItemTable(np.arange(6), ("",) * 6, (None,) * 6, np.eye(6, 4, dtype=np.float32))
        >>> encoder = FeatureEncoder.from_items(items, output_dim=2)
        >>> next(iter(encoder.loader(encoder.prepare(items, "unused"))))["features"].shape
        torch.Size([6, 4])
    """

    def __init__(self, input_dim: int, *, output_dim: int = 64, hidden_dim: int = 256) -> None:
        super().__init__()
        if not 1 <= output_dim <= input_dim or hidden_dim < 0:
            raise ConfigError(
                f"`output_dim` must be from 1 to the {input_dim} dimensions of the features and `hidden_dim` 0 or "
                f"more, but got {output_dim} and {hidden_dim}."
            )
        self.input_dim = input_dim
        self.output_dim = output_dim
        self.standardised = Standardised(input_dim)
        self.linear = nn.Linear(input_dim, output_dim, bias=False)
        nn.init.orthogonal_(self.linear.weight)
        self.residual: nn.Sequential | None = None
        if hidden_dim:
            last = nn.Linear(hidden_dim, output_dim, bias=False)
            nn.init.zeros_(last.weight)
            self.residual = nn.Sequential(nn.Linear(input_dim, hidden_dim), nn.GELU(), last)

    @classmethod
    def from_items(cls, items: ItemTable, *, cache_dir: Path | str = "", **options: Any) -> FeatureEncoder:
        """Return an encoder with statistics and initial weights from the features of the items.

        Args:
            items: With features.
            cache_dir: Not used, since features need no processing.
            options: `output_dim` and `hidden_dim`.

        Raises:
            ItemError: If the items have no features.
        """
        features = features_of(items, "model=features")
        options["output_dim"] = min(options.get("output_dim", 64), features.shape[1])
        encoder = cls(features.shape[1], **options)
        encoder.fit_statistics(torch.from_numpy(features))
        return encoder

    @torch.no_grad()
    def fit_statistics(self, features: Tensor) -> None:
        """Set mean, scale and principal components from features [num_items, input_dim]."""
        self.standardised.fit(features)
        rows = self.standardised(features)
        # Eigenvectors of the covariance, largest eigenvalue first.
        axes = torch.linalg.eigh(rows.T.double() @ rows.double()).eigenvectors.flip(1).T[: self.output_dim]
        self.linear.weight.copy_(axes)

    @override
    def prepare(self, items: ItemTable, cache_dir: Path | str) -> Dataset[dict[str, Any]]:
        return _FeatureRows(features_of(items, "model=features", self.input_dim), items.ids)

    @override
    def collate(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        return {"item_id": item_ids(rows), "features": torch.stack([row["features"] for row in rows])}

    @override
    def forward(self, batch: dict[str, Any]) -> Tensor:
        rows = self.standardised(batch["features"])
        out: Tensor = self.linear(rows)
        return out if self.residual is None else out + self.residual(rows)
