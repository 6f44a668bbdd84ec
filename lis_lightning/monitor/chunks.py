"""Chunks of items that are encoded together and can be split when they do not fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from torch import Tensor
from typing_extensions import override

from lis_lightning.errors import SnapshotError

Collate = Callable[[list[Any]], Any]


class Chunk(Protocol):
    """Items that are encoded together."""

    def __len__(self) -> int:
        """Return the number of items."""

    def batch(self) -> Any:
        """Return the items as one collated batch."""

    def split(self, size: int) -> list[Chunk]:
        """Return chunks of at most `size` items; raises SnapshotError if the batch cannot be sliced."""


class UncollatedChunk(Chunk):
    """Items that have been read but not collated: halves are padded separately, and no item is read twice."""

    def __init__(self, items: list[Any], collate: Collate) -> None:
        self._items = items
        self._collate = collate

    @override
    def __len__(self) -> int:
        return len(self._items)

    @override
    def batch(self) -> Any:
        return self._collate(self._items)

    @override
    def split(self, size: int) -> list[Chunk]:
        starts = range(0, len(self), size)
        return [UncollatedChunk(self._items[start : start + size], self._collate) for start in starts]


class CollatedChunk(Chunk):
    """A batch collated by a DataLoader; it is split by slicing its tensors."""

    def __init__(self, batch: Any, ids: list[Any]) -> None:
        self._batch = batch
        self._ids = ids

    @override
    def __len__(self) -> int:
        return len(self._ids)

    @override
    def batch(self) -> Any:
        return self._batch

    @override
    def split(self, size: int) -> list[Chunk]:
        slices = [slice(start, start + size) for start in range(0, len(self), size)]
        return [CollatedChunk(_sliced(self._batch, rows, len(self), ""), self._ids[rows]) for rows in slices]


def item_ids_of(batch: Any, item_key: str) -> list[Any]:
    """Return the ids of a batch as plain values.

    Raises:
        SnapshotError: If the batch is not a dict or has no `item_key`.
    """
    if not isinstance(batch, Mapping):
        raise SnapshotError(
            f"An item batch must be a dict with the key {item_key!r}, got {type(batch).__name__}. Let the dataset "
            "return dicts, or pass a `collate_fn` that makes one."
        )
    if item_key not in batch:
        raise SnapshotError(f"An item batch has no key {item_key!r}, only {sorted(map(str, batch))}; set `item_key`.")
    ids = batch[item_key]
    plain: list[Any] = ids.tolist() if isinstance(ids, Tensor | np.ndarray) else list(ids)
    return plain


def _sliced(value: Any, rows: slice, size: int, name: str) -> Any:
    """Return some rows of a batch of `size` items: of every tensor, array and list in it."""
    if isinstance(value, Mapping):
        return {key: _sliced(column, rows, size, str(key)) for key, column in value.items()}
    if isinstance(value, Tensor | np.ndarray | list | tuple):
        if getattr(value, "ndim", 1) == 0:
            return value
        if len(value) == size:
            return value[rows]
        shape = list(value.shape) if isinstance(value, Tensor | np.ndarray) else [len(value)]
        raise SnapshotError(
            f"A batch of {size} items does not fit into memory and cannot be split because {name!r} has shape {shape}: "
            "its rows are not the items. Give the DataLoader a smaller `batch_size`, or pass its dataset and collate "
            "function instead."
        )
    return value
