"""Training pairs from a table of item pairs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lis_lightning.align.data.events import AlignmentEvents
from lis_lightning.errors import ConfigError
from lis_lightning.scoring.preferences import PairTable


def table_pairs(table: PairTable, events: AlignmentEvents) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the pairs of a table that alignment may use, as rows of the item table, and their weights.

    Left out are pairs of an item with itself, of items without a row, of withheld items, and pairs later than the
    alignment window; the rows of a table without times are all used.

    Args:
        table: The table.
        events: The events of the alignment window.

    Returns:
        Pairs [num_pairs, 2] with the smaller row first, sorted, each once; and the summed weight of each [num_pairs].

    Raises:
        ConfigError: If no row is left, or the times of table and log have different units.
    """
    given = table.pairs
    first = _item_rows(events, given.item_ids)[given.item]
    second = _item_rows(events, given.other_ids)[given.other]
    usable = (first >= 0) & (second >= 0) & (first != second)
    if given.time is not None:
        if given.units_per_day != events.units_per_day:
            raise ConfigError(
                f"Times of the pair table (column {table.time!r}) are not in the unit of the log's; bring both to one."
            )
        usable &= given.time <= events.time.max()
    usable &= ~np.isin(first, events.withheld) & ~np.isin(second, events.withheld)
    if not usable.any():
        raise ConfigError(
            f"None of the {usable.size} rows of the pair table pairs two items that alignment may see, before the "
            "evaluation windows begin."
        )
    # Rows for one pair, in either order of the items, are summed.
    weight = np.ones(usable.size) if given.weight is None else given.weight
    low, high = np.minimum(first, second)[usable], np.maximum(first, second)[usable]
    pairs, pair = np.unique(np.stack([low, high], axis=1), axis=0, return_inverse=True)
    counts = np.bincount(pair.ravel(), weights=weight[usable]).astype(np.float64)
    return pairs[counts > 0].astype(np.int64), counts[counts > 0]


def _item_rows(events: AlignmentEvents, ids: NDArray[Any]) -> NDArray[np.int64]:
    """Return the row of each id in the item table; -1 for ids without a row."""
    row_of = {item: row for row, item in enumerate(events.items.ids.tolist())}
    return np.array([row_of.get(item, -1) for item in ids.tolist()])
