"""The base class of encoders: items are prepared once, collated to batches, and encoded to representations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from typing_extensions import override

from lis_lightning.align.data.item_table import ItemTable


class ItemEncoder(nn.Module):
    """An encoder from item batches to representations: the part that is trained and scored.

    Subclasses define `prepare`, `collate` and `forward`. For encoders over a model of transformers see
    :class:`~lis_lightning.align.models.PretrainedEncoder`.

    Attributes:
        output_dim: Dimension of the representations.
        unreached: Names of weights that are frozen because no gradient reaches them.
        backbone_learning_rate: That suits the pretrained weights; None if there are none, or they are random.

    Example:
        >>> class TextLength(ItemEncoder):
        ...     output_dim = 1
        ...     def prepare(self, items, cache_dir):
        ...         return [{"length": len(text)} for text in items.texts]
        ...     def collate(self, rows):
        ...         return {"length": torch.tensor([[float(row["length"])] for row in rows])}
        ...     def forward(self, batch):
        ...         return batch["length"]
        >>> items = ItemTable(torch.arange(2).numpy(), ("cup", "lamp"), (None, None))
        >>> encoder = TextLength()
        >>> [encoder(batch).tolist() for batch in encoder.loader(encoder.prepare(items, ""))]
        [[[3.0], [4.0]]]
    """

    output_dim: int
    unreached: Sequence[str] = ()
    backbone_learning_rate: float | None = None

    def prepare(self, items: ItemTable, cache_dir: Path | str) -> Dataset[dict[str, Any]]:
        """Return the items as this encoder reads them, in the order of the table, without padding.

        Args:
            items: The item table.
            cache_dir: Folder for processed items, which later runs reuse.
        """
        raise NotImplementedError

    def collate(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Return a batch of prepared items; ``item_id`` is an int64 tensor, or a list if ids are strings."""
        raise NotImplementedError

    @override
    def forward(self, batch: dict[str, Any]) -> Tensor:
        """Return the representations [B, output_dim] of a batch."""
        raise NotImplementedError

    def backbone_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of the model under the head; none by default."""
        return []

    def loader(self, items: Dataset[dict[str, Any]], *, batch_size: int = 128) -> DataLoader[dict[str, Any]]:
        """Return a loader of all prepared items in order, which draws nothing from the global random generator."""
        return DataLoader(items, batch_size=batch_size, collate_fn=self.collate, generator=torch.Generator())


def item_ids(rows: list[dict[str, Any]]) -> Tensor | list[str]:
    """Return the ids of prepared items, as `ItemEncoder.collate` returns them."""
    ids = [row["item_id"] for row in rows]
    return ids if isinstance(ids[0], str) else torch.tensor(ids, dtype=torch.int64)
