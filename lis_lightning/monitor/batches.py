"""Item batches of one process: its share of the items, sorted by length.

All processes together cover every item. Rows of a dataset with an attribute ``lengths`` are batched by length, the
longest first. This reduces padding and balances the processes, and if batches do not fit into memory, the first fails.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import (
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    Subset,
    default_collate,
)
from typing_extensions import override

from lis_lightning.errors import ConfigError, SnapshotError
from lis_lightning.monitor.chunks import Chunk, Collate, CollatedChunk, UncollatedChunk, item_ids_of, types_differ
from lis_lightning.monitor.isolation import SEED

Items = Dataset[Any] | DataLoader[Any] | Sequence[Any]


class Batches(ABC):
    """One process's share of the items.

    Attributes:
        limit: Largest number of items to encode together; None until a batch did not fit into memory.
    """

    limit: int | None = None

    @abstractmethod
    def chunks(self) -> Iterator[Chunk]:
        """Iterate over the share as chunks."""

    @abstractmethod
    def first(self) -> Any:
        """Return a batch of one item; None if the items are a stream."""

    @abstractmethod
    def spare(self) -> Chunk:
        """Return a chunk to encode and discard, for a process that has no more of its own."""


def make_batches(
    items: Items,
    item_ids: Iterable[Any],
    *,
    batch_size: int = 64,
    collate_fn: Collate | None = None,
    item_key: str = "item_id",
    rank: int = 0,
    world_size: int = 1,
) -> Batches:
    """Return batches of this rank's share of the items; all ranks together give every item.

    Args:
        items: Dicts of one item each (a map-style or iterable dataset, or a list), or a DataLoader of item batches. If
            it has an attribute ``item_ids``, in the order of its rows, only the rows of `item_ids` are read. If it has
            an attribute ``lengths`` (a cost per row, such as tokens or pixels), rows are batched by length. If it has
            an attribute ``num_workers`` above 0, that many processes read them.
        item_ids: Ids of the items that must be encoded.
        batch_size: Items per batch; a DataLoader keeps its own.
        collate_fn: Makes a batch of a list of items; a DataLoader keeps its own.
        item_key: Key of the ids in a batch.
        rank: Rank of this process.
        world_size: Number of processes. A DataLoader is divided by batches, unless it has a DistributedSampler.

    Raises:
        SnapshotError: If ``items.item_ids`` lacks items (the message has their number and the first five), or
            ``item_ids`` or ``lengths`` does not have one value per row.
        ConfigError: If `items` is neither a dataset nor a DataLoader, or `batch_size` is below 1.
    """
    if batch_size < 1:
        raise ConfigError(f"`batch_size` must be at least 1 item, got {batch_size}.")
    if isinstance(items, IterableDataset):
        generator = torch.Generator().manual_seed(SEED)  # even an unshuffled loader draws a number
        items = DataLoader(items, batch_size=batch_size, collate_fn=collate_fn, generator=generator)
    if isinstance(items, DataLoader):
        if isinstance(items.sampler, DistributedSampler):  # the loader already gives each process its share
            rank, world_size = 0, 1
        return LoaderBatches(items, item_key, rank, world_size)
    if not (hasattr(items, "__getitem__") and hasattr(items, "__len__")):
        raise ConfigError(
            f"`items` must be a Dataset or DataLoader of dicts that hold an item id, got {type(items).__name__}."
        )
    rows = _by_length(items, _rows(items, item_ids))
    return DatasetBatches(items, rows[rank::world_size], rows[:1], batch_size, collate_fn or default_collate)


class LoaderBatches(Batches):
    """Batches of a DataLoader; with n processes each takes every n-th batch.

    The seed is fixed while encoding, so all processes iterate in the same order.

    Args:
        batches: A DataLoader, or any iterable of item batches.
        item_key: Key of the ids in a batch.
        rank: Rank of this process.
        world_size: Number of processes that share the batches.
    """

    def __init__(self, batches: Iterable[Any], item_key: str, rank: int = 0, world_size: int = 1) -> None:
        self._batches = batches
        self._item_key = item_key
        self._rank = rank
        self._world_size = world_size
        self._spare: Chunk | None = None

    @override
    def chunks(self) -> Iterator[Chunk]:
        for number, batch in enumerate(self._batches):
            chunk = CollatedChunk(batch, item_ids_of(batch, self._item_key))
            self._spare = self._spare or chunk
            if number % self._world_size == self._rank:
                yield from chunk.split(self.limit) if self.limit and len(chunk) > self.limit else [chunk]

    @override
    def first(self) -> Any:
        loader = self._batches
        if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset) or not loader.batch_size:
            return None
        return loader.collate_fn(fetch(loader.dataset, [0]))

    @override
    def spare(self) -> Chunk:
        if self._spare is None:
            raise SnapshotError("`items` gives no batches: there is nothing to encode.")
        return self._spare


class DatasetBatches(Batches):
    """Batches of chosen rows of a dataset."""

    def __init__(self, items: Any, rows: list[int], spare: list[int], batch_size: int, collate: Collate) -> None:
        self._items = items
        self._rows = rows
        self._spare = spare
        self._batch_size = batch_size
        self._collate = collate

    @override
    def chunks(self) -> Iterator[Chunk]:
        workers = _num_workers(self._items)
        ahead = None if workers == 0 else iter(_item_stream(self._items, self._rows, workers))
        rows = iter(self._rows)
        # The limit may fall while the caller iterates.
        while next_rows := list(islice(rows, min(self._batch_size, self.limit or self._batch_size))):
            items = fetch(self._items, next_rows) if ahead is None else list(islice(ahead, len(next_rows)))
            yield UncollatedChunk(items, self._collate)

    @override
    def first(self) -> Any:
        return self.spare().batch()

    @override
    def spare(self) -> Chunk:
        return UncollatedChunk(fetch(self._items, self._spare), self._collate)


def _num_workers(items: Any) -> int:
    """Return how many processes a dataset, or the one that a Subset refers to, should be read by; 0 for this one."""
    if isinstance(items, Subset):
        return _num_workers(items.dataset)
    return int(getattr(items, "num_workers", 0))


def _item_stream(items: Any, rows: list[int], workers: int) -> DataLoader[Any]:
    """Return a loader of single items, uncollated, that other processes read ahead."""
    return DataLoader(
        items, batch_size=None, sampler=rows, num_workers=workers, collate_fn=_uncollated, generator=torch.Generator()
    )


def _uncollated(item: Any) -> Any:
    return item


def fetch(items: Any, rows: list[int]) -> list[Any]:
    """Read rows, in one call if the dataset has ``__getitems__``."""
    read_rows = getattr(items, "__getitems__", None)
    if callable(read_rows):
        return list(read_rows(rows))
    return [items[row] for row in rows]


def _rows(items: Any, item_ids: Iterable[Any]) -> list[int]:
    """Return the rows to encode: those of `item_ids` if the dataset has an attribute ``item_ids``, else all."""
    offered = _column(items, "item_ids")
    if offered is None:
        return list(range(len(items)))
    wanted = np.asarray(item_ids).tolist()
    available = set(offered)
    missing = [item for item in wanted if item not in available]
    if missing:
        more = " ..." if len(missing) > 5 else ""
        advice = types_differ(wanted, offered) or "Add the items, or leave their events out of the log."
        raise SnapshotError(
            f"{len(missing)} of the split's {len(wanted)} items are not among the {len(offered)} of `items`: "
            f"{missing[:5]}{more}. `items` starts with {offered[:5]}. {advice}"
        )
    split_items = set(wanted)
    return [row for row, item in enumerate(offered) if item in split_items]


def _by_length(items: Any, rows: list[int]) -> list[int]:
    """Return the rows, the longest first if the dataset has an attribute ``lengths``."""
    lengths = _column(items, "lengths")
    return rows if lengths is None else sorted(rows, key=lambda row: -lengths[row])


def _column(items: Any, name: str) -> list[Any] | None:
    """Return a per-row attribute of a dataset, or of the dataset that a Subset refers to; None if there is none."""
    values = getattr(items, name, None)
    if values is None and isinstance(items, Subset) and (whole := _column(items.dataset, name)) is not None:
        values = [whole[row] for row in items.indices]
    if values is None:
        return None
    column: list[Any] = np.asarray(values).tolist()
    if len(column) != len(items):
        raise SnapshotError(
            f"`items.{name}` has {len(column)} values for {len(items)} rows, expected one per row, in order."
        )
    return column
