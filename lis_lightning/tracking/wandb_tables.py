"""W&B tables and panels: snapshots, slices, movers with thumbnails, and the curve with its bands.

Nothing here contacts the server.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lis_lightning.report.curve import curve_figure
from lis_lightning.report.thumbnails import thumbnail
from lis_lightning.results.frame import snapshots_frame
from lis_lightning.results.movers import Mover
from lis_lightning.results.snapshot import Snapshot

if TYPE_CHECKING:
    import polars as pl
    import wandb

SLICE_COLUMNS = ("snapshot", "step", "slice", "events", "ais", "ais_low", "ais_high")
MOVER_COLUMNS = (
    "item", "title", "image", "change", "change_low", "change_high", "gain", "gain_low", "gain_high",
)  # fmt: skip
MAX_POINTS = 300  # snapshots drawn by the panel: about 50 kB
ALWAYS = 20  # number of first snapshots that each redraw the panel


def snapshots_table(results: Sequence[Snapshot]) -> wandb.Table:
    """Return a row for each snapshot, with all of its numbers."""
    return _frame_table(snapshots_frame(results))


def slices_table(best: Snapshot, last: Snapshot) -> wandb.Table:
    """Return AIS with its interval and the number of events, for each slice of the best and the last snapshot."""
    rows = [
        [label, result.step, name, gain.num_events, gain.value, gain.low, gain.high]
        for label, result in (("best", best), ("last", last))
        for name, gain in result.slices.items()
    ]
    return _table(SLICE_COLUMNS, rows)


def movers_table(movers: Sequence[Mover]) -> wandb.Table:
    """Return a row for each item, with a thumbnail if its image can be read."""
    rows = [
        [
            str(mover.item_id), mover.title, _image(mover.image),
            mover.change.value, mover.change.low, mover.change.high, mover.gain.value, mover.gain.low, mover.gain.high,
        ]
        for mover in movers
    ]  # fmt: skip
    return _table(MOVER_COLUMNS, rows)


def leaderboard_table(table: pl.DataFrame) -> wandb.Table:
    """Return a leaderboard, a polars table with one row per recipe, as a W&B table."""
    return _frame_table(table)


def _image(path: Path | None) -> wandb.Image | None:
    import wandb

    small = thumbnail(path)
    return None if small is None else wandb.Image(small, file_type="jpg")


def curve_panel(results: Sequence[Snapshot]) -> wandb.Plotly:
    """Return the curve of a run as a panel with at most MAX_POINTS snapshots, including the best."""
    import wandb

    return wandb.Plotly(curve_figure(thinned(results)))


def thinned(results: Sequence[Snapshot], most: int = MAX_POINTS) -> Sequence[Snapshot]:
    """Return results evenly spread from the first to the last, and the best one.

    Example:
        >>> made = [Snapshot(ais=i == 7, ais_low=0, ais_high=0, ais_geometry=0, auc_base=0, auc=0, step=i)
        ...         for i in range(21)]
        >>> [result.step for result in thinned(made, 4)]
        [0, 7, 10, 20]
    """
    if len(results) <= most:
        return results
    scored = [index for index, result in enumerate(results) if math.isfinite(result.ais)]
    best = max(scored or [0], key=lambda index: results[index].ais)
    spread = {round(index * (len(results) - 1) / (most - 2)) for index in range(most - 1)}
    return [results[index] for index in sorted(spread | {best})]


def redrawn(num_snapshots: int) -> bool:
    """Return whether the panel is redrawn at a snapshot: always at the first ones, later after each growth by 10 %.

    The number of panels of a long run therefore grows with the logarithm of its length.

    Example:
        >>> [sum(redrawn(number) for number in range(1, last + 1)) for last in (20, 100, 1000)]
        [20, 37, 61]
    """
    return num_snapshots <= ALWAYS or _tenths(num_snapshots) > _tenths(num_snapshots - 1)


def _tenths(number: int) -> int:
    """Return how often 1 can grow by 10 % without exceeding a number."""
    return int(math.log(number) / math.log(1.1))


def _frame_table(frame: pl.DataFrame) -> wandb.Table:
    return _table(frame.columns, [list(row) for row in frame.rows()])


def _table(columns: Sequence[str], rows: list[list[Any]]) -> wandb.Table:
    import wandb

    return wandb.Table(columns=list(columns), data=[list(map(_cell, row)) for row in rows])


def _cell(value: Any) -> Any:
    """Replace NaN and infinity, which are not valid JSON, by None; otherwise a browser cannot read the table."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
