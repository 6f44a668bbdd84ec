"""Leaderboard of the runs of a report."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lis_lightning.report.runs import RecordedRun, same_split
from lis_lightning.results.jobs import untrained
from lis_lightning.results.leaderboard import Runs, Standing, conclusion, rank_recipes


def standings_of(runs: Sequence[RecordedRun]) -> list[Standing]:
    """Return the leaderboard of the runs on one split, grouped by recipe; empty for fewer than two recipes."""
    by_name: dict[str, list[RecordedRun]] = {}
    for run in same_split(runs):
        by_name.setdefault(run.recipe, []).append(run)
    if len(by_name) < 2:
        return []
    return rank_recipes({name: _runs(members) for name, members in by_name.items()})


def _runs(members: Sequence[RecordedRun]) -> Runs:
    """Return the runs of one recipe for the leaderboard."""
    best = [run.best for run in members]
    corrected = [run.corrected.value for run in members]
    start = [first for run in members for first in untrained(run.results)]
    return Runs(best=best, start=start, corrected=corrected, seconds=sum(_seconds(run) for run in members))


def ranked(runs: Sequence[RecordedRun]) -> list[RecordedRun]:
    """Return the runs by falling AIS."""
    return sorted(runs, key=lambda run: -run.best.ais if math.isfinite(run.best.ais) else math.inf)


def conclusion_of(standings: Sequence[Standing]) -> str:
    """Return the conclusion of a leaderboard in a sentence."""
    if not standings:
        return "These runs cannot be compared by pairs: fewer than two have a record on one split."
    return conclusion(standings)


def _seconds(run: RecordedRun) -> float:
    """Return the duration of a run: that of its job or, outside a sweep, from its first snapshot to its last."""
    if run.job is not None:
        return run.job.seconds or math.nan  # unknown while the job is running
    written = sorted(run.times.values())
    return (written[-1] - written[0]).total_seconds() if written else math.nan
