"""Arguments of a monitor that follow from the split, the items and the training, where only one value is possible."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, default_collate, default_convert

from lis_lightning.errors import ConfigError, LisError
from lis_lightning.monitor.batches import Items, fetch
from lis_lightning.monitor.chunks import Collate, item_ids_of
from lis_lightning.monitor.generators import generators_restored
from lis_lightning.monitor.isolation import random_state, restore_random_state

ITEM_KEY = "item_id"
_TRY = "Trainer(fast_dev_run=True) tries them in seconds."
NUM_TRIED = 8  # items that a collate function is tried on


def infer_item_key(items: Items, column: str) -> str:
    """Return the key of the ids in the items: ``item_id``, or the column of the log if the items have that one alone.

    Args:
        items: Dicts of one item each, or a DataLoader of a dataset of these.
        column: Column of the items in the log.

    Example:
        >>> infer_item_key([{"movie": 7}], "movie"), infer_item_key([{"item_id": 7, "movie": 1}], "movie")
        ('movie', 'item_id')
    """
    if column == ITEM_KEY:  # nothing to find out, and no item is read
        return ITEM_KEY
    first = next(iter(_first(items, 1)), None)
    found = isinstance(first, Mapping) and column in first and ITEM_KEY not in first
    return column if found else ITEM_KEY


def infer_collate(items: Items, loaders: Sequence[Any], item_key: str) -> Collate | None:
    """Return the collate function of the training if the items need one and it fits them; None otherwise.

    It fits if the training has one only, and if it makes of the first items a batch with their ids, the same each time:
    one that augments or masks does not.

    Args:
        items: Dicts of one item each.
        loaders: Loaders of the training.
        item_key: Key of the ids.

    Example:
        >>> ragged = [{"item_id": 0, "x": torch.ones(1)}, {"item_id": 1, "x": torch.ones(2)}]
        >>> pad = lambda items: {"item_id": [item["item_id"] for item in items],
        ...                      "x": torch.nn.utils.rnn.pad_sequence([item["x"] for item in items])}
        >>> infer_collate(ragged, [DataLoader(ragged, collate_fn=pad)], "item_id") is pad
        True
    """
    functions = own_collates(loaders)
    if len(functions) != 1 or not uncollatable(items):
        return None
    (collate,), tried = functions, _first(items, NUM_TRIED)
    with contextlib.suppress(Exception), _same_random_state(items, *loaders):
        once, again = collate(tried), collate(tried)
        if item_ids_of(once, item_key) == [item[item_key] for item in tried] and _equal(once, again):
            found: Collate = collate
            return found
    return None


def own_collates(loaders: Sequence[Any]) -> list[Any]:
    """Return the different collate functions of loaders, without those of torch."""
    functions: list[Any] = []
    for loader in loaders:
        function = getattr(loader, "collate_fn", None)
        if function not in (None, default_collate, default_convert, *functions):
            functions.append(function)
    return functions


def uncollatable(items: Items) -> str:
    """Return why torch's default_collate makes no batch of the items, in a sentence; empty if it does."""
    tried = [] if isinstance(items, DataLoader) else _first(items, NUM_TRIED)
    try:
        if tried:
            default_collate(tried)
    except (RuntimeError, TypeError, KeyError) as error:
        return f"torch's default_collate cannot make a batch of the items ({error}): give `collate_fn`."
    return ""


def missing_key(items: Items, item_key: str) -> str:
    """Return that the items have no such key, in a sentence; empty if they have, or if they cannot be read here."""
    for item in [] if isinstance(items, DataLoader) else _first(items, 1):
        if isinstance(item, Mapping) and item_key not in item:
            return f"The items have no key {item_key!r}, only {sorted(map(str, item))}: give `item_key`."
    return ""


def joined(problems: Sequence[LisError]) -> LisError:
    """Return one error for all arguments that are missing or wrong, so that they can be mended at once.

    Example:
        >>> print(joined([ConfigError("One."), ConfigError("Two.")]))
        2 arguments of the monitor are missing or do not fit:
        - One.
        - Two.
        Trainer(fast_dev_run=True) tries them in seconds.
    """
    if len(problems) == 1:
        return problems[0]
    listed = "".join(f"\n- {problem}" for problem in problems)
    return ConfigError(f"{len(problems)} arguments of the monitor are missing or do not fit:{listed}\n{_TRY}")


def _first(items: Items, number: int) -> list[Any]:
    """Return the first items, uncollated; none if they are a stream or cannot be read, which later code reports."""
    dataset = items.dataset if isinstance(items, DataLoader) else items
    if isinstance(dataset, IterableDataset):
        return []
    with contextlib.suppress(Exception), _same_random_state(items):
        return fetch(dataset, list(range(min(number, len(dataset)))))  # type: ignore[arg-type]  # most have a length
    return []


@contextlib.contextmanager
def _same_random_state(*holders: Any) -> Iterator[None]:
    """Restore all random states after a block: the training must not notice that items were read."""
    state = random_state()
    try:
        with generators_restored(*holders):
            yield
    finally:
        restore_random_state(state)


def _equal(one: Any, other: Any) -> bool:
    """Return whether two batches hold the same values."""
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and torch.equal(one, other)
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other)
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(_equal(one[name], other[name]) for name in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    return bool(one == other)
