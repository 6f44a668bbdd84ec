"""Check of training data against a split: no item or event of the evaluation may be in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lis_lightning.data.tables import InputTable, Table, id_codes
from lis_lightning.data.times import Time, time_column, timestamps
from lis_lightning.errors import ConfigError, LogError
from lis_lightning.functional.sampling import is_withheld

if TYPE_CHECKING:
    from lis_lightning.data.split import PreferenceSplit


def check_alignment(
    split: PreferenceSplit, pairs: str | Path | Table, items: Sequence[str] | None, time: Time | None
) -> None:
    """Raise a LogError if training data has withheld or future items, or later events.

    Arguments as for ``PreferenceSplit.check_alignment``.
    """
    table = InputTable(pairs, "table of training data")
    time_names = [] if time is None else [time_column(time)]
    names = [name for name in table.columns if name not in time_names] if items is None else list(items)
    if not names:
        raise ConfigError("Expected `items` to name at least one column of item ids.")
    rows = table.read([*names, *time_names], ids=names)
    future, is_in_log = _items_of_the_evaluation(split)
    hits = {"withheld": np.zeros(rows.height, bool), "future": np.zeros(rows.height, bool)}
    is_in_any = False
    for name in names:
        ids, codes = id_codes(rows, name)
        is_in_any = is_in_any or bool(_among(ids, is_in_log).any())
        hits["withheld"] |= is_withheld(ids, float(split.settings["unseen_items"]), split.settings["seed"])[codes]
        hits["future"] |= _among(ids, future)[codes]
    if rows.height and not is_in_any:
        raise LogError(
            f"No id in the columns {names} is an item of the log, whose ids are such as "
            f"{split.item_ids.tolist()[0]!r}, got {rows[names[0]][0]!r}; name the columns of item ids with "
            "`items`, and use the ids of the log."
        )
    reasons = {
        "withheld": "have items that are withheld from alignment, in order to detect memorisation",
        "future": "have items that first occur in w1 or w2",
    }
    for kind, reason in reasons.items():
        if hits[kind].any():
            first = int(np.argmax(hits[kind]))
            raise LogError(
                f"{int(hits[kind].sum())} of {rows.height} rows {reason}, the first in row {first} "
                f"{rows[names].row(first)}; train on the items of `split.alignment`."
            )
    if time is not None:
        _check_times(split, timestamps(rows, time))


def _items_of_the_evaluation(split: PreferenceSplit) -> tuple[set[Any], set[Any]]:
    """Return the ids that first occur in w1 or w2, and all of the log."""
    log = split.periods[-1].log if split.periods else split.log
    start = split.log.time[split.log.window > 0].min()
    early = set(split.log_item_ids[np.unique(log.item[log.time < start])].tolist())
    in_log = set(split.log_item_ids.tolist())
    return in_log - early, in_log


def _among(ids: NDArray[Any], others: set[Any]) -> NDArray[np.bool_]:
    return np.array([item_id in others for item_id in ids.tolist()], bool)


def _check_times(split: PreferenceSplit, given: tuple[NDArray[Any], int | None]) -> None:
    """Raise a LogError if timestamps are of another unit than those of the log, or of w1 or later."""
    times, units_per_day = given
    own = split.settings["units_per_day"]
    if times.size and units_per_day != own:
        raise LogError(
            f"Timestamps of the training data ({times.min()} to {times.max()}) are not in the unit of the log's "
            f"({split.log.time.min()} to {split.log.time.max()}); bring both to one unit."
        )
    start = split.log.time[split.log.window > 0].min()
    late = int((times >= start).sum())
    if late:
        raise LogError(f"{late} of {times.size} rows are of w1 or w2, which begin at {start}; train on what is before.")
