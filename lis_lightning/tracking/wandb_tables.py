"""What W&B shows beside curves: tables, thumbnails and the curve with its bands. The server is not asked here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lis_lightning.report.curve import curve_figure
from lis_lightning.report.thumbnails import thumbnail
from lis_lightning.results.movers import Mover
from lis_lightning.results.snapshot import Snapshot

if TYPE_CHECKING:
    import wandb

SNAPSHOT_COLUMNS = (
    "step", "ais", "ais_low", "ais_high", "ais_geometry", "realised", "realised_low", "realised_high", "headroom",
    "headroom_low", "headroom_high", "gain_z", "ais_seen", "ais_unseen", "verdict", "message",
)  # fmt: skip
SLICE_COLUMNS = ("snapshot", "step", "slice", "events", "ais", "ais_low", "ais_high")
MOVER_COLUMNS = (
    "item", "title", "image", "change", "change_low", "change_high", "gain", "gain_low", "gain_high",
)  # fmt: skip
MAX_POINTS = 300  # snapshots that the panel draws: about 50 kB
ALWAYS = 20  # first snapshots that all get a new panel


def snapshots_table(results: Sequence[Snapshot]) -> wandb.Table:
    """Return a row for each snapshot."""
    return _table(SNAPSHOT_COLUMNS, [[getattr(result, column) for column in SNAPSHOT_COLUMNS] for result in results])


def slices_table(best: Snapshot, last: Snapshot) -> wandb.Table:
    """Return AIS with its interval and the number of events, for each slice of the best and the last snapshot."""
    return _table(
        SLICE_COLUMNS,
        [
            [which, result.step, name, part.num_events, part.value, part.low, part.high]
            for which, result in (("best", best), ("last", last))
            for name, part in result.slices.items()
        ],
    )


def movers_table(movers: Sequence[Mover]) -> wandb.Table:
    """Return a row for each item, with its thumbnail where it has an image that can be read."""
    return _table(
        MOVER_COLUMNS,
        [
            [
                str(mover.item_id), mover.title, _picture(mover.image),
                mover.change.value, mover.change.low, mover.change.high,
                mover.gain.value, mover.gain.low, mover.gain.high,
            ]
            for mover in movers
        ],
    )  # fmt: skip


def leaderboard_table(table: Any) -> wandb.Table:
    """Return a polars table, a row a recipe."""
    return _table(table.columns, [list(row) for row in table.rows()])


def _picture(path: Path | None) -> wandb.Image | None:
    import wandb

    small = thumbnail(path)
    return None if small is None else wandb.Image(small, file_type="jpg")


def curve_panel(results: Sequence[Snapshot]) -> wandb.Plotly:
    """Return the curve of a run as a panel; of a long run MAX_POINTS snapshots at most, the best among them.

    Raises:
        ConfigError: If plotly is not installed.
    """
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
    spread = {round(place * (len(results) - 1) / (most - 2)) for place in range(most - 1)}
    return [results[index] for index in sorted(spread | {best})]


def redrawn(num_snapshots: int) -> bool:
    """Whether the panel is drawn again at a snapshot: at the first ones always, later whenever a tenth has been added.

    What the panels of a long run cost grows with the logarithm of its length.

    Example:
        >>> [sum(redrawn(number) for number in range(1, last + 1)) for last in (20, 100, 1000)]
        [20, 37, 61]
    """
    return num_snapshots <= ALWAYS or _tenths(num_snapshots) > _tenths(num_snapshots - 1)


def _tenths(number: int) -> int:
    """Return how often a tenth was added to 1 on the way to a number."""
    return int(math.log(number) / math.log(1.1))


def _table(columns: Sequence[str], rows: list[list[Any]]) -> wandb.Table:
    import wandb

    return wandb.Table(columns=list(columns), data=[[_cell(value) for value in row] for row in rows])


def _cell(value: Any) -> Any:
    """Return nothing in place of NaN and infinity, which JSON cannot say: a browser would read none of the table."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
