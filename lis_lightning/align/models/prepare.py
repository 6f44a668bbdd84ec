"""Items as a processor leaves them, on disk: epochs read what was processed once, and memory holds only a batch."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset
from typing_extensions import override

from lis_lightning.align.data.folders import build_once
from lis_lightning.errors import ItemError

_INDEX = "index.json"
_PATIENCE = 1.0  # seconds without a progress bar
_Element = TypeVar("_Element")


class PreparedItems(Dataset[dict[str, Any]]):
    """Map-style items: a dict of unpadded tensors and ``item_id``, in the order of the item table.

    Args:
        folder: Written by `prepare_items`.
        ids: [num_items] original ids.
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
        """Numbers that each item takes: [num_items], for batches of items alike."""
        lengths: NDArray[np.int64] = np.stack([shapes.prod(axis=1) for shapes in self._shapes.values()]).sum(axis=0)
        return lengths

    def __len__(self) -> int:
        return len(self.ids)

    @override
    def __getitem__(self, row: int) -> dict[str, Any]:
        if not 0 <= row < len(self):
            raise IndexError(f"Row {row} of {len(self)} items.")
        item: dict[str, Any] = {"item_id": self.ids[row].item()}
        for name, array in self._arrays.items():
            shape, end = self._shapes[name][row], self._ends[name][row]
            item[name] = as_tensor(np.array(array[end - shape.prod() : end]).reshape(shape))
        return item


def prepare_items(
    folder: Path, ids: NDArray[Any], processed: Iterable[Mapping[str, NDArray[Any]]], *, what: str = "Preparing items"
) -> PreparedItems:
    """Return the prepared items in `folder`, written now unless they lie there intact.

    Args:
        folder: Named after a hash of all that they depend on.
        ids: [num_items] original ids.
        processed: For each item the arrays that the processor gave; not touched where the folder is intact.
        what: What the progress bar says, shown once it takes more than a second.

    Raises:
        ItemError: If items do not all have the same fields, types and numbers of axes.
    """
    build_once(folder, lambda draft: _write(draft, _with_progress(processed, len(ids), what), ids))
    return PreparedItems(folder, ids)


def pad_and_stack(rows: list[Tensor], fill: float = 0) -> Tensor:
    """Return tensors joined along their first axis, the other axes padded at the end to the largest."""
    sizes = [max(row.shape[axis] for row in rows) for axis in range(1, rows[0].ndim)]
    if all(list(row.shape[1:]) == sizes for row in rows):
        return torch.cat(rows)
    out = rows[0].new_full((sum(len(row) for row in rows), *sizes), fill)
    start = 0
    for row in rows:
        out[(slice(start, start + len(row)), *(slice(0, size) for size in row.shape[1:]))] = row
        start += len(row)
    return out


def _write(folder: Path, processed: Iterable[Mapping[str, NDArray[Any]]], ids: NDArray[Any]) -> None:
    shapes: dict[str, list[tuple[int, ...]]] = {}
    dtypes: dict[str, str] = {}
    with ExitStack() as stack:
        files: dict[str, Any] = {}
        for row, item in enumerate(processed):
            arrays = {name: compact(array) for name, array in item.items()}
            kinds = {name: array.dtype.str for name, array in arrays.items()}
            if row == 0:
                dtypes, shapes = kinds, {name: [] for name in kinds}
                files = {name: stack.enter_context((folder / f"{name}.bin").open("wb")) for name in kinds}
            axes = {name: array.ndim for name, array in arrays.items()}
            if kinds != dtypes or (row and axes != {name: len(shapes[name][0]) for name in shapes}):
                raise ItemError(
                    f"The processor gave item {ids[row]!s} the fields {kinds} with {axes} axes, but the first item "
                    f"({ids[0]!s}) the fields {dtypes}; give every item one image and one text."
                )
            for name, array in arrays.items():
                array.tofile(files[name])
                shapes[name].append(array.shape)
    for name, of_items in shapes.items():
        np.save(folder / f"{name}.shapes.npy", np.array(of_items, dtype=np.int64))
    (folder / _INDEX).write_text(json.dumps(dtypes))


def compact(array: NDArray[Any]) -> NDArray[Any]:
    """Return the same numbers in fewer bytes: half of int64, and of the float64 that no model takes."""
    if array.dtype == np.int64 and np.abs(array).max(initial=0) < 2**31:
        return array.astype(np.int32)
    return np.ascontiguousarray(array, dtype=np.float32 if array.dtype == np.float64 else array.dtype)


def as_tensor(array: NDArray[Any]) -> Tensor:
    """Return a compact array as the tensor that a model takes."""
    return torch.from_numpy(array.astype(np.int64) if array.dtype == np.int32 else array)


def _with_progress(elements: Iterable[_Element], total: int, what: str) -> Iterator[_Element]:
    """Yield the elements, with a progress bar on the terminal once a second has passed."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress

    started = time.monotonic()
    with ExitStack() as stack:
        progress: Progress | None = None
        for done, element in enumerate(elements):
            yield element
            if progress is None and time.monotonic() - started > _PATIENCE:
                console = Console(stderr=True)
                columns = (*Progress.get_default_columns(), MofNCompleteColumn())
                progress = stack.enter_context(
                    Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
                )
                task = progress.add_task(what, total=total)
            if progress is not None:
                progress.update(task, completed=done + 1)
