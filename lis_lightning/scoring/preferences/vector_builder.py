"""A callable that builds item vectors from events, as preference data."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray
from typing_extensions import override

from lis_lightning.data.digest import digest
from lis_lightning.data.split import PreferenceSplit
from lis_lightning.errors import ConfigError, ShapeError
from lis_lightning.functional.item_vectors import ItemVectors
from lis_lightning.scoring.preferences.cross_fit import cross_fit_log
from lis_lightning.scoring.preferences.item_ids import checked_ids, checked_matrix, log_vectors
from lis_lightning.scoring.preferences.preference_data import MatchedPreference, PreferenceData, Rows

Builder: TypeAlias = Callable[[pl.DataFrame], "Mapping[Any, ArrayLike] | tuple[ArrayLike, ArrayLike]"]


@dataclass(frozen=True, eq=False)
class VectorBuilder(PreferenceData):
    """Preference data in the form of a function from events to item vectors.

    Attributes:
        build: Given a polars table of events (columns ``user``, ``item``, ``time``, ``label``) it returns a mapping of
            item ids to vectors, or item ids and a matrix. Its optional attribute ``cache_key`` is a text that changes
            whenever its vectors do.

    Example:
        >>> VectorBuilder(lambda events: {}).content_key is None
        True
    """

    build: Builder

    @property
    def name(self) -> str:
        """The callable's name, for messages."""
        return f"`{getattr(self.build, '__qualname__', type(self.build).__name__)}`"

    @property
    @override
    def handle(self) -> Hashable:
        try:
            hash(self.build)
        except TypeError:
            return _ByIdentity(self.build)
        return self.build

    @property
    @override
    def content_key(self) -> str | None:
        key = getattr(self.build, "cache_key", None)
        if key is not None and not isinstance(key, str):
            raise ConfigError(f"Expected the `cache_key` of {self.name} to be text, got {key!r}.")
        return None if key is None else digest("callable", key)

    @override
    def match(self, split: PreferenceSplit) -> MatchedPreference:
        return cross_fit_log(split, self._checked_build(split))

    def _checked_build(self, split: PreferenceSplit) -> Callable[[Rows], ItemVectors]:
        """Return a function that calls the callable on some events and validates the vectors it returns."""
        log, name = split.log, self.name
        events = pl.DataFrame(
            {
                "user": split.log_user_ids[log.user],
                "item": split.log_item_ids[log.item],
                "time": log.time,
                "label": log.label,
            }
        )
        widths: list[int] = []

        def checked(rows: Rows) -> ItemVectors:
            ids, matrix = _returned(self.build(events.filter(rows)), name)
            if widths and matrix.shape[1] != widths[0]:
                raise ShapeError(
                    f"Expected vectors of width {widths[0]} from {name}, as before, got {matrix.shape[1]}."
                )
            vectors = log_vectors(split, ids, matrix, f"the vectors of {name}", warn=not widths)
            widths.append(matrix.shape[1])
            return vectors

        return checked


@dataclass(frozen=True, eq=False)
class _ByIdentity:
    """An unhashable callable, hashed by identity; holds a reference so that its id is not reused."""

    build: Any

    def __hash__(self) -> int:
        return id(self.build)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ByIdentity) and other.build is self.build


def _returned(given: Any, name: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return ids and vectors from what a callable returned."""
    what = f"the vectors of {name}"
    if isinstance(given, Mapping):
        rows = [np.asarray(row) for row in given.values()]
        shapes = sorted({row.shape for row in rows})
        if len(shapes) != 1 or len(shapes[0]) != 1:
            raise ShapeError(f"Expected {what} to be one vector an item, all of one width, got shapes {shapes[:5]}.")
        ids = checked_ids(list(given), what)
        return ids, checked_matrix(np.stack(rows), ids, what)
    if isinstance(given, tuple) and len(given) == 2:
        ids = checked_ids(given[0], what)
        return ids, checked_matrix(given[1], ids, what)
    raise ConfigError(
        f"Expected {name} to return a mapping of item ids to vectors, or (item ids, matrix), got "
        f"{type(given).__name__}."
    )
