"""The leaderboard of the runs of a page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from lis_lightning.report.runs import RecordedRun, same_split
from lis_lightning.results.jobs import Job, by_recipe
from lis_lightning.results.leaderboard import Runs, Standing, conclusion, rank_recipes


def standings_of(runs: Sequence[RecordedRun]) -> list[Standing]:
    """Return the standings of the runs that can be paired, seeds of one recipe together; none of fewer than two."""
    able = same_split(runs)
    named: dict[str, list[RecordedRun]] = {}
    jobs: dict[Path, Job] = {run.path: run.job for run in able if run.job is not None}
    together = {path: name for name, members in by_recipe(jobs).items() for path in members}
    for run in able:
        named.setdefault(together.get(run.path, run.name), []).append(run)
    if len(named) < 2:
        return []
    return rank_recipes(
        {
            name: Runs(best=[run.best for run in members], seconds=sum(_seconds(run) for run in members))
            for name, members in named.items()
        }
    )


def ranked(runs: Sequence[RecordedRun]) -> list[RecordedRun]:
    """Return the runs, those with the highest AIS first."""
    return sorted(runs, key=lambda run: -run.best.ais if math.isfinite(run.best.ais) else math.inf)


def conclusion_of(standings: Sequence[Standing]) -> str:
    """Say in a sentence which one to take."""
    return (
        conclusion(standings)
        if standings
        else "These runs cannot be compared by pairs: fewer than two have a record on one split."
    )


def _seconds(run: RecordedRun) -> float:
    """Return what a run took: as its job says, or from its first snapshot to its last."""
    if run.job is not None:
        return run.job.seconds or math.nan  # of a job that goes on nobody knows
    written = sorted(run.times.values())
    return (written[-1] - written[0]).total_seconds() if written else math.nan
