"""Prepared items: their inputs read from disk, or processed whenever they are read; and how inputs become a batch."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset
from typing_extensions import override

from lis_lightning.align.data.record_store import RecordStore

_MAX_PROCESSES = 8


class StoredItems(Dataset[dict[str, Any]]):
    """A map-style data set of items whose inputs are on disk: each is a dict of unpadded tensors and ``item_id``.

    Args:
        store: Their records.
        positions: Of their records, [num_items].
        ids: Original ids in the order of the item table, [num_items].
    """

    def __init__(self, store: RecordStore, positions: Sequence[int], ids: NDArray[Any]) -> None:
        self.store = store
        self.positions = np.asarray(positions, dtype=np.int64)
        self.ids = ids

    @property
    def lengths(self) -> NDArray[np.int64]:
        """How many numbers each item has, [num_items]; for batches of items of similar size."""
        return self.store.numbers(self.positions)

    def __len__(self) -> int:
        return len(self.ids)

    @override
    def __getitem__(self, row: int) -> dict[str, Any]:
        if not 0 <= row < len(self):
            raise IndexError(f"Row {row} of {len(self)} items.")
        return {"item_id": self.ids[row : row + 1].tolist()[0], **as_tensors(self._arrays(row))}

    def _arrays(self, row: int) -> Mapping[str, NDArray[Any]]:
        return self.store.read(int(self.positions[row]))


class LiveItems(StoredItems):
    """Items that are processed whenever they are read; only their sizes are on disk.

    Args:
        store: Records of the sizes.
        positions: Of their records, [num_items].
        ids: Original ids in the order of the item table, [num_items].
        process: Returns the inputs of the item in a row of the table.

    Attributes:
        num_workers: Number of processes that should read items side by side.
    """

    def __init__(
        self,
        store: RecordStore,
        positions: Sequence[int],
        ids: NDArray[Any],
        process: Callable[[int], Mapping[str, NDArray[Any]]],
    ) -> None:
        super().__init__(store, positions, ids)
        self.process = process
        self.num_workers = num_processes()

    @override
    def _arrays(self, row: int) -> Mapping[str, NDArray[Any]]:
        return self.process(row)


def num_processes() -> int:
    """Return how many processes should process items side by side; they may be forked after a tokenizer was used."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # else each warns that its threads cannot be forked
    return min(_MAX_PROCESSES, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1)


def pad_and_stack(rows: list[Tensor], fill: float = 0) -> Tensor:
    """Return tensors concatenated along the first axis, with the other axes padded at the end to the largest size."""
    shapes = [row.shape[1:] for row in rows]
    sizes = [max(lengths) for lengths in zip(*shapes, strict=True)]
    if all(list(shape) == sizes for shape in shapes):
        return torch.cat(rows)
    out = rows[0].new_full((sum(len(row) for row in rows), *sizes), fill)
    start = 0
    for row in rows:
        out[(slice(start, start + len(row)), *(slice(0, size) for size in row.shape[1:]))] = row
        start += len(row)
    return out


def compact(array: NDArray[Any]) -> NDArray[Any]:
    """Return the array with int64 as int32, where its numbers fit, and float64 as float32."""
    if array.dtype == np.int64 and np.abs(array).max(initial=0) < 2**31:
        return array.astype(np.int32)
    dtype = np.float32 if array.dtype == np.float64 else array.dtype
    return np.ascontiguousarray(array, dtype=dtype)


def as_tensors(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Tensor]:
    """Return compact arrays as the tensors that a model takes: integers as int64."""
    wide = {name: array.astype(np.int64) for name, array in arrays.items() if array.dtype == np.int32}
    return {name: torch.from_numpy(array) for name, array in {**arrays, **wide}.items()}
