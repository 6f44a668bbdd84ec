"""What a fine-tuning run or an audit starts from: an interaction log and the table of its items."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from lis_lightning.align.data.item_table import ItemTable
from lis_lightning.data.tables import id_codes

if TYPE_CHECKING:
    from lis_lightning.align.world.world import World


@dataclass(frozen=True, eq=False)
class AlignmentData:
    """An interaction log, its items, and which columns of the log are which.

    Attributes:
        name: Of the data set, for display.
        log: One row an event.
        columns: Arguments ``user``, ``item``, ``time`` and ``label`` of ``PreferenceSplit.from_log``.
        items: A row for every item of the log; None if only the log was read.
        truth: The generated world; None for real data.

    Example:
        >>> log = pl.DataFrame({"user": [1, 1], "item": [7, 8], "time": [1, 2], "label": [0, 1]})
        >>> columns = {name: name for name in log.columns}
        >>> AlignmentData("my log", log, columns, items=None).log.height
        2
    """

    name: str
    log: pl.DataFrame
    columns: dict[str, Any]
    items: ItemTable | None
    truth: World | None = None


def require_rows(log: pl.DataFrame, column: str, items: ItemTable) -> None:
    """Raise ItemError if the log has items that the item table lacks.

    Args:
        log: One row an event.
        column: Its column of item ids.
        items: The item table.
    """
    distinct, _ = id_codes(log, column)
    items.rows(distinct)
