"""Item batches of one process: its share of the items, sorted by length, in chunks that fit into memory.

All processes together cover every item. Rows of a dataset with an attribute ``lengths`` are batched by length, the
longest first: little padding, equal work for all processes, and a batch that does not fit into memory fails at once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler, IterableDataset, Subset, default_collate

from lis_lightning.errors import ConfigError, SnapshotError

SEED = 0  # random draws while encoding are equal at every snapshot, so that snapshots can be paired

Items = Dataset[Any] | DataLoader[Any] | Sequence[Any]
Collate = Callable[[list[Any]], Any]


class Chunk(Protocol):
    """Items that are encoded together."""

    def __len__(self) -> int:
        """Return the number of items."""

    def batch(self) -> Any:
        """Return the items as one batch."""

    def split(self, size: int) -> list[Chunk]:
        """Return chunks of at most `size` items; raises SnapshotError if the batch cannot be sliced."""


class Batches(Protocol):
    """One process's share of the items; iterating it gives batches.

    Attributes:
        limit: Most items known to fit into memory together; None until a batch did not fit.
    """

    limit: int | None

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the share as batches."""

    def chunks(self) -> Iterator[Chunk]:
        """Iterate over the share as chunks."""

    def first(self) -> Any:
        """Return a batch of one item; None if the items are a stream."""

    def spare(self) -> Chunk:
        """Return a chunk to encode and discard, for a process that has no more of its own."""

    def generators_kept(self) -> contextlib.AbstractContextManager[None]:
        """Return a context that restores the loader's own generators, from which training may draw too."""


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
            it has an attribute ``item_ids``, in the order of its rows, then only rows of `item_ids` are read; if it has
            ``lengths`` (tokens, characters, pixels: one number a row that grows with the cost), rows are batched by it.
        item_ids: Ids of the items that must be encoded.
        batch_size: Items per batch; a DataLoader keeps its own.
        collate_fn: Makes a batch of a list of items; a DataLoader keeps its own.
        item_key: Key of the ids in a batch.
        rank: Rank of this process.
        world_size: Number of processes. A DataLoader is shared out by batches, or not at all where a
            DistributedSampler does so already.

    Raises:
        SnapshotError: If ``items.item_ids`` shows that items are missing; the count and the first five are named. If
            ``item_ids`` or ``lengths`` are not one for each row.
        ConfigError: If `items` is neither a dataset nor a DataLoader, or `batch_size` is below 1.
    """
    if batch_size < 1:
        raise ConfigError(f"`batch_size` must be at least 1 item, got {batch_size}.")
    if isinstance(items, IterableDataset):
        generator = torch.Generator().manual_seed(SEED)  # even an unshuffled loader draws a number
        items = DataLoader(items, batch_size=batch_size, collate_fn=collate_fn, generator=generator)
    if isinstance(items, DataLoader):
        alone = isinstance(items.sampler, DistributedSampler)
        return Loaded(items, item_key, 0 if alone else rank, 1 if alone else world_size)
    if not (hasattr(items, "__getitem__") and hasattr(items, "__len__")):
        raise ConfigError(
            f"`items` must be a Dataset or DataLoader of dicts that hold an item id, got {type(items).__name__}."
        )
    rows = _by_length(items, _rows(items, item_ids))
    return _OfRows(items, rows[rank::world_size], rows[:1], batch_size, collate_fn or default_collate)


class Loaded:
    """Batches of a DataLoader, every n-th for several processes; all ranks see the same order, as the seed is fixed.

    Args:
        batches: A DataLoader, or any iterable of item batches.
        item_key: Key of the ids in a batch.
        rank: Rank of this process.
        world_size: Number of processes that share the batches.
    """

    def __init__(self, batches: Iterable[Any], item_key: str, rank: int = 0, world_size: int = 1) -> None:
        self.limit: int | None = None
        self._batches = batches
        self._item_key = item_key
        self._rank = rank
        self._world_size = world_size
        self._spare: Chunk | None = None

    def __iter__(self) -> Iterator[Any]:
        return islice(self._batches, self._rank, None, self._world_size)

    def chunks(self) -> Iterator[Chunk]:
        """Iterate over the share as chunks."""
        for number, batch in enumerate(self._batches):
            chunk = _Collated(batch, item_ids_of(batch, self._item_key))
            self._spare = self._spare or chunk
            if number % self._world_size == self._rank:
                yield from chunk.split(self.limit) if self.limit and len(chunk) > self.limit else [chunk]

    def first(self) -> Any:
        """Return a batch of one item; None for a stream."""
        loader = self._batches
        if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset) or not loader.batch_size:
            return None
        return loader.collate_fn(_fetch(loader.dataset, [0]))

    def spare(self) -> Chunk:
        """Return the first chunk of the loader."""
        if self._spare is None:
            raise SnapshotError("`items` gives no batches: there is nothing to encode.")
        return self._spare

    @contextlib.contextmanager
    def generators_kept(self) -> Iterator[None]:
        """Restore the loader's own generators afterwards."""
        owned = [
            getattr(owner, "generator", None) for owner in (self._batches, getattr(self._batches, "sampler", None))
        ]
        generators = [generator for generator in owned if isinstance(generator, torch.Generator)]
        states = [generator.get_state() for generator in generators]
        try:
            yield
        finally:
            for generator, state in zip(generators, states, strict=True):
                generator.set_state(state)


class _OfRows:
    """Batches of chosen rows of a dataset."""

    def __init__(self, items: Any, rows: list[int], spare: list[int], batch_size: int, collate: Collate) -> None:
        self.limit: int | None = None
        self._items = items
        self._rows = rows
        self._spare = spare
        self._batch_size = batch_size
        self._collate = collate

    def __iter__(self) -> Iterator[Any]:
        return (chunk.batch() for chunk in self.chunks())

    def chunks(self) -> Iterator[Chunk]:
        rows = iter(self._rows)
        while taken := list(islice(rows, min(self._batch_size, self.limit or self._batch_size))):
            yield _Uncollated(_fetch(self._items, taken), self._collate)

    def first(self) -> Any:
        return self.spare().batch()

    def spare(self) -> Chunk:
        return _Uncollated(_fetch(self._items, self._spare), self._collate)

    def generators_kept(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


class _Uncollated:
    """A chunk of items that are read but not collated: halves are padded anew, and nothing is read twice."""

    def __init__(self, items: list[Any], collate: Collate) -> None:
        self._items = items
        self._collate = collate

    def __len__(self) -> int:
        return len(self._items)

    def batch(self) -> Any:
        return self._collate(self._items)

    def split(self, size: int) -> list[Chunk]:
        return [_Uncollated(self._items[at : at + size], self._collate) for at in range(0, len(self), size)]


class _Collated:
    """A chunk that a DataLoader has collated; it is split by slicing its tensors."""

    def __init__(self, batch: Any, ids: list[Any]) -> None:
        self._batch = batch
        self._ids = ids

    def __len__(self) -> int:
        return len(self._ids)

    def batch(self) -> Any:
        return self._batch

    def split(self, size: int) -> list[Chunk]:
        starts = range(0, len(self), size)
        return [
            _Collated(_sliced(self._batch, slice(at, at + size), len(self), ""), self._ids[at : at + size])
            for at in starts
        ]


def item_ids_of(batch: Any, item_key: str) -> list[Any]:
    """Return the ids of a batch as plain values.

    Raises:
        SnapshotError: If the batch is no dict or has no `item_key`.
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
            f"A batch of {size} items does not fit into memory, and cannot be split since {name!r} has shape {shape}: "
            "its rows are not the items. Give the DataLoader a smaller `batch_size`, or pass its dataset and collate "
            "function instead."
        )
    return value


def _fetch(items: Any, rows: list[int]) -> list[Any]:
    """Read rows, in one call if the dataset has ``__getitems__``."""
    read_rows = getattr(items, "__getitems__", None)
    return list(read_rows(rows)) if callable(read_rows) else [items[row] for row in rows]


def _rows(items: Any, item_ids: Iterable[Any]) -> list[int]:
    """Return the rows to encode: those of `item_ids` if the dataset has an attribute ``item_ids``, else all."""
    offered = _column(items, "item_ids")
    if offered is None:
        return list(range(len(items)))
    wanted = np.asarray(item_ids).tolist()
    present = set(offered)
    missing = [item for item in wanted if item not in present]
    if missing:
        raise SnapshotError(
            f"{len(missing)} of the split's {len(wanted)} items are not among the {len(offered)} of `items`: "
            f"{missing[:5]}{' ...' if len(missing) > 5 else ''}. `items` starts with {offered[:5]}. Add the items, or "
            "leave their events out of the log."
        )
    split_items = set(wanted)
    return [row for row, item in enumerate(offered) if item in split_items]


def _by_length(items: Any, rows: list[int]) -> list[int]:
    """Return the rows, the longest first if the dataset has an attribute ``lengths``."""
    lengths = _column(items, "lengths")
    return rows if lengths is None else sorted(rows, key=lambda row: -lengths[row])


def _column(items: Any, name: str) -> list[Any] | None:
    """Return a per-row attribute of a dataset, None if it has none; a Subset takes the one of its dataset."""
    values = getattr(items, name, None)
    if values is None:
        whole = _column(items.dataset, name) if isinstance(items, Subset) else None
        return None if whole is None else [whole[row] for row in items.indices]
    column: list[Any] = np.asarray(values).tolist()
    if len(column) != len(items):
        raise SnapshotError(
            f"`items.{name}` holds {len(column)} values for {len(items)} rows; one is needed for each row, in order."
        )
    return column
