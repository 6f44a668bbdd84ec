"""Processed items on disk: they are processed once, read in every epoch, and only one batch is in memory."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset
from typing_extensions import override

from lis_lightning.align.data.folders import build_once
from lis_lightning.align.data.progress import with_progress
from lis_lightning.errors import ItemError

_INDEX = "index.json"


class PreparedItems(Dataset[dict[str, Any]]):
    """A map-style data set of items: each is a dict of unpadded tensors and ``item_id``.

    Args:
        folder: Written by `prepare_items`.
        ids: Original ids in the order of the item table, [num_items].
    """

    def __init__(self, folder: Path, ids: NDArray[Any]) -> None:
        self.folder = folder
        self.ids = ids
        self._open()

    def _open(self) -> None:
        self._arrays: dict[str, NDArray[Any]] = {}
        self._shapes: dict[str, NDArray[np.int64]] = {}
        self._ends: dict[str, NDArray[np.int64]] = {}
        for name, dtype in json.loads((self.folder / _INDEX).read_text()).items():
            shapes = np.load(self.folder / f"{name}.shapes.npy")
            self._shapes[name] = shapes
            self._ends[name] = np.cumsum(shapes.prod(axis=1))
            self._arrays[name] = np.memmap(self.folder / f"{name}.bin", dtype=dtype, mode="r")

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "ids": self.ids}  # a pickled memory map would carry the whole file

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    @property
    def lengths(self) -> NDArray[np.int64]:
        """How many numbers each item has, [num_items]; for batches of items of similar size."""
        lengths: NDArray[np.int64] = np.stack([shapes.prod(axis=1) for shapes in self._shapes.values()]).sum(axis=0)
        return lengths

    def __len__(self) -> int:
        return len(self.ids)

    @override
    def __getitem__(self, row: int) -> dict[str, Any]:
        if not 0 <= row < len(self):
            raise IndexError(f"Row {row} of {len(self)} items.")
        item: dict[str, Any] = {"item_id": self.ids[row : row + 1].tolist()[0]}
        for name, array in self._arrays.items():
            # Items are concatenated in one file; a copy, since a memory map is read-only.
            shape, end = self._shapes[name][row], self._ends[name][row]
            item[name] = as_tensor(np.array(array[end - shape.prod() : end]).reshape(shape))
        return item


def prepare_items(
    folder: Path,
    ids: NDArray[Any],
    processed: Iterable[Mapping[str, NDArray[Any]]],
    *,
    description: str = "Preparing items",
) -> PreparedItems:
    """Return the prepared items in `folder`, which are written now unless the folder is intact.

    Args:
        folder: Named after a hash of everything that they depend on.
        ids: Original ids, [num_items].
        processed: The arrays of each item from the processor; not consumed if the folder is intact.
        description: Of the progress bar.

    Raises:
        ItemError: If items do not all have the same fields, types and numbers of axes.
    """
    build_once(folder, lambda draft: _write(draft, with_progress(processed, len(ids), description), ids))
    return PreparedItems(folder, ids)


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


def _write(folder: Path, processed: Iterable[Mapping[str, NDArray[Any]]], ids: NDArray[Any]) -> None:
    """Write the arrays of all items, one file for each field, and their shapes."""
    shapes: dict[str, list[tuple[int, ...]]] = {}
    dtypes: dict[str, str] = {}
    axes: dict[str, int] = {}
    with ExitStack() as stack:
        files: dict[str, Any] = {}
        for row, item in enumerate(processed):
            arrays = {name: compact(array) for name, array in item.items()}
            own_dtypes = {name: array.dtype.str for name, array in arrays.items()}
            own_axes = {name: array.ndim for name, array in arrays.items()}
            if row == 0:
                dtypes, axes = own_dtypes, own_axes
                shapes = {name: [] for name in dtypes}
                files = {name: stack.enter_context((folder / f"{name}.bin").open("wb")) for name in dtypes}
            if own_dtypes != dtypes or own_axes != axes:
                raise ItemError(
                    f"The processor gave item {ids[row]!s} the fields {own_dtypes} with {own_axes} axes, but the first "
                    f"item ({ids[0]!s}) the fields {dtypes}; give every item one image and one text."
                )
            for name, array in arrays.items():
                array.tofile(files[name])
                shapes[name].append(array.shape)
    for name, item_shapes in shapes.items():
        np.save(folder / f"{name}.shapes.npy", np.array(item_shapes, dtype=np.int64))
    (folder / _INDEX).write_text(json.dumps(dtypes))


def compact(array: NDArray[Any]) -> NDArray[Any]:
    """Return the array with int64 as int32, where its numbers fit, and float64 as float32."""
    if array.dtype == np.int64 and np.abs(array).max(initial=0) < 2**31:
        return array.astype(np.int32)
    dtype = np.float32 if array.dtype == np.float64 else array.dtype
    return np.ascontiguousarray(array, dtype=dtype)


def as_tensor(array: NDArray[Any]) -> Tensor:
    """Return a compact array as the tensor that a model takes: integers as int64."""
    return torch.from_numpy(array.astype(np.int64) if array.dtype == np.int32 else array)
