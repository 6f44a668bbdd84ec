"""Random generators that a training may draw from besides the global ones, found by a walk over objects.

A module may hold a ``torch.Generator`` for its augmentation, a dataset an ``np.random.Generator``. The walk enters the
attributes of objects, small containers and what functions have bound, a few levels deep.
"""

from __future__ import annotations

import contextlib
import functools
import random
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

MAX_DEPTH = 8  # of attributes in attributes, each submodule counting as the module itself
MAX_ENTRIES = 100  # of a container that is entered: a longer one holds data
_KINDS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
_DATA = (str, bytes, int, float, complex, Tensor, np.ndarray, type, types.ModuleType, types.BuiltinFunctionType)
# References to the whole training, and what holds tensors only.
_SKIPPED = {"_trainer", "_fabric", "trainer", "_modules", "_parameters", "_buffers"}


@contextlib.contextmanager
def generators_restored(*holders: Any) -> Iterator[None]:
    """Restore afterwards the states of all generators that can be reached from some objects.

    Args:
        holders: Modules, datasets, loaders, functions.

    Example:
        >>> dataset = types.SimpleNamespace(noise=np.random.default_rng(0))
        >>> with generators_restored(dataset):
        ...     first = dataset.noise.random()
        >>> dataset.noise.random() == first
        True
    """
    restore = [_restorer(generator) for generator in reachable_generators(*holders)]
    try:
        yield
    finally:
        for action in restore:
            action()


def reachable_generators(*holders: Any) -> list[Any]:
    """Return the random generators of torch, NumPy and Python that can be reached from some objects."""
    seen: dict[int, Any] = {}  # keeps what it has seen alive, so that no id is given twice
    generators = []
    pending = [(holder, 0) for holder in holders]
    while pending:
        value, depth = pending.pop()
        if value is None or isinstance(value, _DATA) or id(value) in seen:
            continue
        seen[id(value)] = value
        if isinstance(value, _KINDS):
            generators.append(value)
        elif depth < MAX_DEPTH:
            pending += [(part, depth + 1) for part in _parts(value)]
    return generators


def _parts(value: Any) -> Iterator[Any]:
    """Iterate over what an object holds."""
    if isinstance(value, Mapping):
        yield from value.values() if len(value) <= MAX_ENTRIES else ()
    elif isinstance(value, list | tuple | set | frozenset):
        yield from value if len(value) <= MAX_ENTRIES else ()
    elif isinstance(value, nn.Module):
        for child in value.modules():
            yield from _attributes(child)
    elif isinstance(value, functools.partial):
        yield from (value.func, value.args, value.keywords)
    elif isinstance(value, types.MethodType):
        yield value.__self__
    elif isinstance(value, types.FunctionType):
        for cell in value.__closure__ or ():
            with contextlib.suppress(ValueError):  # an empty cell
                yield cell.cell_contents
    else:
        yield from _attributes(value)


def _attributes(value: Any) -> Iterator[Any]:
    attributes = getattr(value, "__dict__", {})
    yield from (part for name, part in list(attributes.items()) if name not in _SKIPPED)


def _restorer(generator: Any) -> Callable[[], Any]:
    """Return a function that sets a generator back to its present state."""
    if isinstance(generator, np.random.Generator):
        return functools.partial(setattr, generator.bit_generator, "state", generator.bit_generator.state)
    if isinstance(generator, random.Random):
        return functools.partial(generator.setstate, generator.getstate())
    return functools.partial(generator.set_state, generator.get_state())
