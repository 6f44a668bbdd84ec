"""A table of semantic IDs that a team has already: its item ids and the codes of each item."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from lis_lightning.data import tables
from lis_lightning.data.item_rows import first_ids, rows_of
from lis_lightning.data.split import PreferenceSplit
from lis_lightning.errors import ConfigError, ItemError
from lis_lightning.functional.semantic_ids import prefix_numbers
from lis_lightning.results.reading import Reading
from lis_lightning.scoring.reads.read import Read, ScoredItems, check_whole
from lis_lightning.scoring.reads.semantic_ids import score_codes

_DIMS = 256  # of the vector of a prefix: unit vectors as far as they go, else random ones with cosines of 0 +- 1/16


@dataclass(frozen=True, eq=False)
class CodeTable(Read):
    """A table of semantic IDs, scored as codes of the representation that it is given with.

    Args:
        table: Parquet or CSV path or glob, or a polars, pandas or Arrow table, with a row for each item of the split.
        item: Column of item ids, as in the interaction log.
        levels: Columns of codes, the coarsest first, integers or text; None takes all columns but `item`.
        sizes: Number of codes that each level has; None takes the number of those in the table.

    Raises:
        ConfigError: If there is no column of codes, or `sizes` does not fit them.
        ItemError: If an item occurs twice, or, when scored, an item of the split has no row.
        LogError: If the table cannot be read, lacks a column, or has missing values.

    Example:
        >>> import polars as pl
        >>> CodeTable(pl.DataFrame({"item_id": [7, 8], "c1": [0, 1], "c2": ["a", "a"]})).codes.tolist()
        [[0, 0], [1, 0]]
    """

    table: Any = field(repr=False)
    item: str = "item_id"
    levels: Sequence[str] | None = None
    sizes: Sequence[int] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.levels, str):
            raise ConfigError(f"Expected `levels` as a list of columns, got text; write [{self.levels!r}].")
        for size in self.sizes or ():
            check_whole("sizes", size, 1)
        distinct = self.codes.max(axis=0) + 1
        if self.sizes is not None and (len(self.sizes) != len(distinct) or (np.array(self.sizes) < distinct).any()):
            raise ConfigError(
                f"Expected `sizes` for each of the {len(distinct)} levels of codes, of at least {distinct.tolist()}, "
                f"the codes that the table has; got {list(self.sizes)}."
            )

    @property
    def codes(self) -> NDArray[np.int32]:
        """Codes of each row of the table, numbered from 0 at each level, [rows, L]."""
        return self._rows[1]

    @cached_property
    def _rows(self) -> tuple[NDArray[Any], NDArray[np.int32]]:
        """The item ids and codes of all rows."""
        columns = None if self.levels is None else [self.item, *self.levels]
        table = tables.read_table(self.table, "table of codes", columns, ids=columns or [self.item])
        tables.require_columns(table, [self.item], "table of codes")
        levels = [column for column in table.columns if column != self.item] if self.levels is None else self.levels
        if not levels or not table.height:
            raise ConfigError(
                f"The table of codes needs rows, and columns of codes beside {self.item!r}; it has {table.height} rows "
                f"and the columns {table.columns}."
            )
        distinct, index = tables.id_codes(table, self.item)
        repeated = distinct[np.bincount(index) > 1]
        if repeated.size:
            raise ItemError(f"The table of codes has more than one row for the items {first_ids(repeated)}.")
        codes = [tables.id_codes(table, level)[1] for level in levels]
        return distinct[index], np.stack(codes, axis=1).astype(np.int32)

    def codes_of(self, item_ids: NDArray[Any]) -> NDArray[np.int32]:
        """Return the codes of some items, [num_items, L]."""
        ids, codes = self._rows
        return codes[rows_of(item_ids, ids, "table of codes", "Add the codes of these items.")]

    def vectors(self, item_ids: NDArray[Any], seed: int = 0) -> NDArray[np.float32]:
        """Return vectors whose cosines are the shares of common prefixes, to score codes without a representation.

        An item has the vectors of its prefixes side by side. They are orthogonal at a level of up to 256 prefixes, else
        random ones of as many dimensions. Names of codes do not matter, since prefixes are numbered as they occur.

        Args:
            item_ids: The items, [num_items].
            seed: Seed of the random vectors.

        Returns:
            [num_items, at most 256 L] float32.
        """
        rng = np.random.default_rng(seed)
        levels = []
        for level in prefix_numbers(self.codes_of(item_ids)).T:
            _, first, number = np.unique(level, return_index=True, return_inverse=True)
            vectors = np.eye(first.size, dtype=np.float32)
            if first.size > _DIMS:
                vectors = rng.standard_normal((first.size, _DIMS), np.float32) / math.sqrt(_DIMS)
            levels.append(vectors[np.argsort(np.argsort(first))[number]])
        return np.concatenate(levels, axis=1)

    @override
    def check(self, split: PreferenceSplit) -> None:
        self.codes_of(split.item_ids)

    @override
    def readings(self, name: str, scored: ScoredItems) -> dict[str, Reading]:
        codes = scored.cache.value(  # the same at every snapshot
            ("codes of a table", self), lambda: self.codes_of(scored.split.item_ids), content=lambda: None
        )
        sizes = self.codes.max(axis=0) + 1 if self.sizes is None else np.array(self.sizes)
        return {name: score_codes(scored, codes, sizes)}
