"""Chunks of items that are encoded together and can be split when they do not fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from torch import Tensor
from torch.utils.data import default_collate
from typing_extensions import override

from lis_lightning.errors import ConfigError, SnapshotError

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
        try:
            return self._collate(self._items)
        except (RuntimeError, TypeError, KeyError) as error:
            if self._collate is not default_collate:
                raise
            raise ConfigError(
                f"torch's default_collate cannot make a batch of {len(self)} items: {error}. Give "
                "LISMonitor(collate_fn=...), a function that makes a batch of a list of items."
            ) from error

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
        ConfigError: If the batch is not a dict or has no `item_key`.
    """
    if not isinstance(batch, Mapping):
        raise ConfigError(
            f"An item batch must be a dict with the key {item_key!r}, got {type(batch).__name__}. Let the dataset "
            "return dicts, or pass a `collate_fn` that makes one."
        )
    if item_key not in batch:
        raise ConfigError(
            f"An item batch has no key {item_key!r}, only {sorted(map(str, batch))}; name the key of the ids in "
            "LISMonitor(item_key=...)."
        )
    ids = batch[item_key]
    plain: list[Any] = ids.tolist() if isinstance(ids, Tensor | np.ndarray) else list(ids)
    return plain


def types_differ(wanted: Sequence[Any], offered: Sequence[Any]) -> str:
    """Return how the ids of a split and of its items differ in type, with the fix, in a sentence; empty if they agree.

    Example:
        >>> types_differ([1, 2], ["1", "2"])
        "The split's ids are int such as 1, those of `items` are str such as '1': give both the same type."
    """
    if not len(wanted) or not len(offered) or isinstance(wanted[0], str) == isinstance(offered[0], str):
        return ""
    kinds = [f"{type(ids[0]).__name__} such as {ids[0]!r}" for ids in (wanted, offered)]
    return f"The split's ids are {kinds[0]}, those of `items` are {kinds[1]}: give both the same type."


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
