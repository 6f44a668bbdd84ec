"""Prepare items for a model: process each once, decide what of it is stored, and say beforehand what that will take."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset
from typing_extensions import override

from lis_lightning.align.data.folders import one_at_a_time
from lis_lightning.align.data.progress import note, with_progress
from lis_lightning.align.data.record_store import KEY_BYTES, RecordStore
from lis_lightning.align.models.item_images import ReplacedImage
from lis_lightning.align.models.prepared_items import LiveItems, StoredItems, as_tensors, num_processes
from lis_lightning.errors import ConfigError, ItemError

Store = Literal["auto", "inputs", "images"]
Process = Callable[[int], Mapping[str, NDArray[Any]]]
"""Return the inputs of the item in a row of the table, in compact types."""

LARGEST_INPUTS = 2**30  # bytes of all inputs that "auto" writes: they stay in the page cache
SLOW = 20.0  # seconds of preparation that are worth several processes and a line about what is to come
_SAMPLE = 8  # items that are processed before it is decided what is stored
_FIRST = 64  # items after which that line is printed
_BATCH = 64  # items of the batch that it names


@dataclass(frozen=True)
class Processed:
    """What came out for one item.

    Attributes:
        arrays: Inputs of the model; empty where only their sizes are stored.
        fields: The name of each input, its type and number of axes.
        numbers: How many numbers the inputs are.
        tokens: How many of them are tokens of a text.
        nbytes: Of the inputs, as tensors.
        replaced: Whether its images were left out, since one of them cannot be used.
        error: Why there are no inputs; None if there are.
    """

    arrays: Mapping[str, NDArray[Any]]
    fields: Mapping[str, tuple[str, int]]
    numbers: int = 0
    tokens: int = 0
    nbytes: int = 0
    replaced: bool = False
    error: ItemError | None = None


@dataclass(frozen=True)
class Estimate:
    """What it takes to prepare items, estimated from the first of them.

    Attributes:
        items: How many are prepared.
        seconds: For all of them.
        disk: Bytes written for all of them.
        tokens: Mean of an item; 0 if no text is read.
        inputs: Mean bytes of the inputs of an item.
        live: Whether images are processed again for every batch.

    Example:
        >>> print(Estimate(items=9_000, seconds=600, disk=4e5, tokens=1230, inputs=23e6, live=False))
        preparing 9,000 items: about 600 s, 0.4 MB on disk, 1230 tokens and 23 MB of inputs an item, 1472 MB in 64 items
    """

    items: int
    seconds: float
    disk: float
    tokens: float
    inputs: float
    live: bool

    def __str__(self) -> str:
        tokens = f"{self.tokens:.0f} tokens and " if self.tokens else ""
        again = "; images are processed again for every batch" if self.live else ""
        item, batch = self.inputs / 1e6, _BATCH * self.inputs / 1e6
        return (
            f"preparing {self.items:,} items: about {self.seconds:.0f} s, {self.disk / 1e6:.3g} MB on disk, {tokens}"
            f"{item:.3g} MB of inputs an item, {batch:.0f} MB in {_BATCH} items{again}"
        )


def prepare_items(
    folder: Path,
    ids: NDArray[Any],
    keys: Sequence[Sequence[bytes]],
    process: Process,
    *,
    pictured: Sequence[bool],
    store: Store = "auto",
) -> StoredItems:
    """Return the items as inputs of a model; those that no earlier run has prepared are processed now.

    Each is processed once, so that one that cannot be is found before the training; what was prepared before it stays
    on disk. One process at a time prepares items in a folder, and the others wait for it.

    Args:
        folder: Named after a hash of the options that inputs depend on.
        ids: Original ids, [num_items].
        keys: Under which the inputs of each item may be found: the hash of its content, and perhaps the `replaced_key`.
        process: Makes the inputs of an item.
        pictured: Whether each item has an image.
        store: ``"inputs"`` keeps all inputs on disk; ``"images"`` keeps their sizes only, and inputs are made from the
            images for every batch; ``"auto"`` is the first where all inputs take a gigabyte at most, or nothing has an
            image, and else the second.

    Raises:
        ItemError: If an item cannot be processed, or has other fields, types or numbers of axes than the first of its
            kind.
        ConfigError: If the disk cannot hold what is stored.
    """
    choices: tuple[bool, ...] = {"auto": (False, True), "inputs": (False,), "images": (True,)}[store]
    live = _finished(folder, keys, choices)
    if live is None:
        with one_at_a_time(folder):
            live = _finished(folder, keys, choices)  # another process may just have prepared them
            if live is None:
                live = _Preparation(folder, ids, keys, process, pictured).run(choices)
    records = _records(folder, live)
    positions = [records.position(*own) for own in keys]
    return LiveItems(records, positions, ids, process) if live else StoredItems(records, positions, ids)


def replaced_key(key: bytes) -> bytes:
    """Return the key of an item that is processed without its images, one of which cannot be used."""
    return hashlib.sha256(key + b"grey").digest()[:KEY_BYTES]


def _records(folder: Path, live: bool) -> RecordStore:
    return RecordStore(folder.with_name(f"{folder.name}-{'sizes' if live else 'inputs'}"))


def _finished(folder: Path, keys: Sequence[Sequence[bytes]], choices: Sequence[bool]) -> bool | None:
    """Return how all of the items are stored; None if some are still to be prepared."""
    for live in choices:
        records = _records(folder, live)
        if all(records.position(*own) >= 0 for own in keys):
            return live
    return None


@dataclass(frozen=True)
class _Preparation:
    """Preparation of the items that are not stored yet; the arguments are those of `prepare_items`."""

    folder: Path
    ids: NDArray[Any]
    keys: Sequence[Sequence[bytes]]
    process: Process
    pictured: Sequence[bool]

    def run(self, choices: Sequence[bool]) -> bool:
        """Store the items, and return whether only their sizes are stored."""
        began = time.perf_counter()
        sample = {row: _processed(self.process, row) for row in _spread(self._missing(choices[0]), _SAMPLE)}
        seconds = (time.perf_counter() - began) / len(sample)
        size = float(np.mean([item.nbytes for item in sample.values()]))
        live = choices[-1]
        if len(choices) > 1:
            live = any(self.pictured) and size * len(self.ids) > LARGEST_INPUTS
        rows = self._missing(live)
        if not live:
            self._check_disk(size * len(rows))
        workers = num_processes() if seconds * len(rows) > SLOW else 0
        # Items from everywhere in the table first, so that they tell about all of them.
        spread = dict.fromkeys([*sample, *_spread(rows, 2 * _FIRST), *rows])
        others = [row for row in spread if row not in sample]
        outcomes = DataLoader(
            _Outcomes(self.process, live), batch_size=None, sampler=others, num_workers=workers,
            collate_fn=_unchanged, generator=torch.Generator(),
        )  # fmt: skip
        self._store(live, chain(sample.items(), outcomes), _Estimator(len(rows), live=live, workers=workers))
        return live

    def _missing(self, live: bool) -> list[int]:
        records = _records(self.folder, live)
        return [row for row, own in enumerate(self.keys) if records.position(*own) < 0]

    def _check_disk(self, needed: float) -> None:
        free = shutil.disk_usage(self.folder.parent).free
        if needed > free:
            raise ConfigError(
                f"The inputs of the items need {needed / 1e9:.1f} GB in {self.folder.parent}, where {free / 1e9:.1f} "
                "GB are free. Set model.store=images to make them for every batch instead, cache_dir to a folder on a "
                "larger disk, or model.processor to options that give smaller inputs."
            )

    def _store(self, live: bool, outcomes: Iterable[tuple[int, Processed]], estimator: _Estimator) -> None:
        """Write a record for each item, up to the first that cannot be processed."""
        firsts: dict[bool, tuple[int, Processed]] = {}
        with _records(self.folder, live).writer() as writer:
            for row, item in with_progress(outcomes, estimator.items, "Preparing items"):
                if item.error is not None:
                    raise item.error
                # Items with and without an image may differ in their fields.
                first, expected = firsts.setdefault(self.pictured[row] and not item.replaced, (row, item))
                if item.fields != expected.fields:
                    raise ItemError(
                        f"The processor gave item {self.ids[row]!s} the fields {item.fields} (type, number of axes), "
                        f"but item {self.ids[first]!s} the fields {expected.fields}. Items of a batch must agree in "
                        "these; use the processor that was saved with the model."
                    )
                key = self.keys[row][-1 if item.replaced else 0]
                arrays = {} if live else item.arrays
                estimator.add(item, writer.append(key, arrays, numbers=item.numbers, tokens=item.tokens))


class _Estimator:
    """Prints what the preparation takes, once enough items are done to tell.

    Args:
        items: Number of items to prepare.
        live: Whether images are processed again for every batch.
        workers: Number of processes, which work ahead at first.
    """

    def __init__(self, items: int, *, live: bool, workers: int) -> None:
        self.items = items
        self._live = live
        self._warm = _SAMPLE + 2 * workers
        self._done: list[tuple[int, int, int]] = []  # bytes on disk, tokens and bytes of inputs of each item
        self._began = self._steady = time.perf_counter()

    def add(self, item: Processed, written: int) -> None:
        """Count an item; print the estimate if it is the last of the first ones."""
        self._done.append((written, item.tokens, item.nbytes))
        if len(self._done) == self._warm:
            self._steady = time.perf_counter()
        if len(self._done) == self._warm + _FIRST:
            now = time.perf_counter()
            seconds = now - self._began + (now - self._steady) / _FIRST * (self.items - len(self._done))
            disk, tokens, inputs = np.mean(self._done, axis=0).tolist()
            if seconds > SLOW:
                note(str(Estimate(self.items, seconds, disk * self.items, tokens, inputs, self._live)))


class _Outcomes(Dataset[tuple[int, Processed]]):
    """What comes out for rows of the item table."""

    def __init__(self, process: Process, live: bool) -> None:
        self._process = process
        self._live = live

    @override
    def __getitem__(self, row: int) -> tuple[int, Processed]:
        item = _processed(self._process, row)
        # What is not stored need not travel to the process that writes.
        return row, replace(item, arrays={}) if self._live else item


def _processed(process: Process, row: int) -> Processed:
    """Process an item, and return an error instead of raising it, so that what is done before it can be stored."""
    try:
        arrays = process(row)
    except ItemError as error:
        return Processed({}, {}, error=error)
    sizes = [array.size for array in arrays.values()]
    return Processed(
        arrays,
        {name: (array.dtype.str, array.ndim) for name, array in arrays.items()},
        numbers=sum(sizes),
        tokens=arrays["input_ids"].size if "input_ids" in arrays else 0,
        nbytes=sum(tensor.nbytes for tensor in as_tensors(arrays).values()),
        replaced=isinstance(arrays, ReplacedImage),
    )


def _spread(rows: Sequence[int], count: int) -> list[int]:
    """Return at most `count` of the rows, evenly spread."""
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int))
    return [rows[position] for position in chosen]


def _unchanged(outcome: Any) -> Any:
    """Return what a data loader would otherwise convert to tensors."""
    return outcome
