"""What every encoder offers: items prepared once, batches of them, and one representation an item."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from typing_extensions import override

from lis_lightning.align.data.items import ItemTable


class ItemEncoder(nn.Module):
    """From item batches to representations; the part of the module that is trained and scored.

    Attributes:
        output_dim: Dimension of the representation.
    """

    output_dim: int

    def prepare(self, items: ItemTable, cache_dir: Path | str) -> Dataset[dict[str, Any]]:
        """Return the items as this encoder reads them, in the table's order, without padding.

        Args:
            items: The item table.
            cache_dir: Where processed items are kept from one run to the next.
        """
        raise NotImplementedError

    def collate(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Return a batch of prepared items; ``item_id`` is an int64 tensor, or a list where ids are text."""
        raise NotImplementedError

    @override
    def forward(self, batch: dict[str, Any]) -> Tensor:
        """Return the representations [B, output_dim] of a batch."""
        raise NotImplementedError

    def loader(self, items: Dataset[dict[str, Any]], *, batch_size: int = 128) -> DataLoader[dict[str, Any]]:
        """Return a loader of all prepared items in their order, which draws no global random number."""
        return DataLoader(items, batch_size=batch_size, collate_fn=self.collate, generator=torch.Generator())


def item_ids(rows: list[dict[str, Any]]) -> Tensor | list[str]:
    """Return the ids of prepared items, as `ItemEncoder.collate` gives them."""
    ids = [row["item_id"] for row in rows]
    return ids if isinstance(ids[0], str) else torch.tensor(ids, dtype=torch.int64)
