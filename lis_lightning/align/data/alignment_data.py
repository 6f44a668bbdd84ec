"""What a fine-tuning run or an audit starts from: an interaction log and the table of its items."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lis_lightning.align.data.item_table import ItemTable
from lis_lightning.data.split import PreferenceSplit
from lis_lightning.data.split_folder import is_saved_split

if TYPE_CHECKING:
    from lis_lightning.align.world.world import World


@dataclass(frozen=True, eq=False)
class AlignmentData:
    """An interaction log, its items, and which columns of the log are which.

    Attributes:
        name: Of the data set, for display.
        log: As ``PreferenceSplit.from_log`` takes it, or the folder of a saved split.
        columns: Arguments of ``PreferenceSplit.from_log`` that name columns.
        items: A row for every item of the log; None if only the log is needed.
        truth: The generated world; None for real data.

    Example:
        >>> import polars as pl
        >>> log = pl.DataFrame({"user": [1, 1], "item": [7, 8], "time": [1, 2], "label": [0, 1]})
        >>> columns = {name: name for name in log.columns}
        >>> AlignmentData("my log", log, columns, items=None).log.height
        2
    """

    name: str
    log: Any
    columns: dict[str, Any]
    items: ItemTable | None
    truth: World | None = None


def cut_split(data: AlignmentData, options: Mapping[str, Any]) -> PreferenceSplit:
    """Return the preference split of a log; a saved split is loaded, with the options that it was cut with.

    Args:
        data: Log and items.
        options: Further arguments of :meth:`PreferenceSplit.from_log`.

    Raises:
        ItemError: If the item table lacks items of the log.
        LogError, ConfigError: As of ``PreferenceSplit.from_log`` and ``PreferenceSplit.load``.
    """
    if is_saved_split(data.log):
        split = PreferenceSplit.load(data.log)
    else:
        split = PreferenceSplit.from_log(data.log, **data.columns, **options)
    if data.items is not None:
        data.items.rows(split.log_item_ids)
    return split
