"""The numbers of the page as tables and sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scipy.stats import spearmanr

from lis_lightning.report.answers import mark
from lis_lightning.report.runs import RecordedRun
from lis_lightning.results.format import format_estimate, format_gain, format_interval, format_share
from lis_lightning.results.leaderboard import Standing
from lis_lightning.results.movers import concentration

HOW_TO_READ = (
    "AIS is the AUC gain of a ranker that gets the representation, on logged exposures. Ceilings are estimates. "
    "Intervals are 95 %, clustered by user; they hold the sampling of users, not that of items."
)


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        title: What it shows.
        headings: One a column; the first column names the row.
        rows: Cells.
    """

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]


def snapshots(runs: Sequence[RecordedRun]) -> Table:
    """Return all snapshots of all runs."""
    several = len(runs) > 1
    rows = [
        [
            *([run.name] if several else []),
            f"{one.step}{' ★' if one is run.best else ''}",
            format_interval(one.ais, one.ais_low, one.ais_high),
            format_gain(one.ais_geometry),
            format_interval(one.realised, one.realised_low, one.realised_high, percent=True),
            format_interval(one.headroom, one.headroom_low, one.headroom_high),
            "-" if math.isnan(one.gain_z) else f"{one.gain_z:+.1f}",
            format_interval(one.gauc_gain, one.gauc_gain_low, one.gauc_gain_high),
            f"{mark(one.verdict)} {one.verdict}",
        ]
        for run in runs
        for one in run.results
    ]
    headings = [
        "step",
        "AIS",
        "cosines only",
        "realised",
        "headroom",
        "z to the best before",
        "per-user AUC",
        "verdict",
    ]
    return Table("Snapshots", [*(["run"] if several else []), *headings], rows)


def board(standings: Sequence[Standing]) -> Table | None:
    """Return the leaderboard; None without standings."""
    if not standings:
        return None
    rows = [
        [
            f"{number}{' =' if number > 1 and standing.tied else ''} {standing.recipe}",
            format_estimate(standing.ais),
            format_share(standing.realised),
            "-" if standing.step is None else str(standing.step),
            str(standing.seeds),
            "-" if math.isnan(standing.seconds) else f"{standing.seconds / 60:.1f}",
            "" if math.isnan(standing.p) else format_estimate(standing.behind),
            "" if math.isnan(standing.p) else f"{standing.p:.2g}",
            standing.verdict,
        ]
        for number, standing in enumerate(standings, start=1)
    ]
    headings = ["recipe", "best AIS", "realised", "step", "seeds", "minutes", "the leader gains more", "p", "verdict"]
    return Table("Leaderboard", headings, rows)


def slices(run: RecordedRun) -> Table:
    """Return the gain in each slice at the best snapshot."""
    rows = [
        [name, f"{part.num_events:,}" if part.num_events else "-", format_estimate(part)]
        for name, part in run.best.slices.items()
    ]
    return Table("Slices", ["test events", "number", f"AIS at step {run.best.step}"], rows)


def concentrated(run: RecordedRun) -> str:
    """Return which share of the items makes half of the gain."""
    gains = run.best.item_gains
    share = concentration(gains[gains != 0]) if gains.size else math.nan
    return "" if math.isnan(share) else f"Half of all that items gain comes from {format_share(share)} of the items."


def agreement(run: RecordedRun, name: str) -> str:
    """Return the rank correlation of a companion metric with AIS over the snapshots."""
    pairs = [(one.companions.get(name, math.nan), one.ais) for one in run.results]
    known = [pair for pair in pairs if all(map(math.isfinite, pair))]
    if len(known) < 4 or any(len({pair[side] for pair in known}) < 2 for side in (0, 1)):
        return "Too few different values to say whether it goes along with AIS."
    rho = float(spearmanr(*zip(*known, strict=True)).statistic)
    return f"Rank correlation with AIS over {len(known)} snapshots: {rho:+.2f}. No interval: they follow each other."


def cost(run: RecordedRun) -> str:
    """Return the time spent on snapshots, and its share of the duration of the run."""
    spent = [one.encode_seconds + one.score_seconds for one in run.results]
    known = [seconds for seconds in spent if math.isfinite(seconds)]
    if not known:
        return "No timings were recorded."
    duration = f"{len(known)} snapshots took {sum(known):.1f} s, {sum(known) / len(known):.1f} s each."
    written = sorted(run.times.values())
    whole = (written[-1] - written[0]).total_seconds() + known[0] if len(written) > 1 else 0.0
    if not whole:
        return duration
    return f"{duration} That is {format_share(sum(known) / whole)} of the {whole:.0f} s up to the last one."


def parameters(runs: Sequence[RecordedRun]) -> list[Table]:
    """Return the configuration of the runs: overrides, split, settings of the monitor, versions."""
    run_rows = [[run.name, " ".join(run.overrides) or "-", str(run.path)] for run in runs]
    tables = [Table("Runs", ["run", "overrides", "record"], run_rows)]
    for title, attribute in (("Split", "split"), ("Monitor", "settings"), ("Versions", "versions")):
        if values := dict(getattr(runs[0], attribute)):
            rows = [[key, _plain(value)] for key, value in values.items()]
            tables.append(Table(title, ["name", "value"], rows))
    return tables


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    return str(value)
