"""Tables and sentences of the report, with the numbers behind its figures."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scipy.stats import spearmanr

from lis_lightning.report.answers import mark
from lis_lightning.report.runs import RecordedRun
from lis_lightning.results.format import format_estimate, format_gain, format_interval, format_share
from lis_lightning.results.leaderboard import Standing
from lis_lightning.results.movers import concentration as gain_concentration
from lis_lightning.results.snapshot import Snapshot

HOW_TO_READ = (
    "AIS is the AUC gain of a ranker that gets the representation, on logged exposures. Headroom is what the "
    "preference data would add on top. LIS estimates what that data carries by itself: content can exceed it. "
    "Intervals are 95 %, clustered by user; they cover the sampling of users, not that of items."
)


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        title: What it shows.
        headings: One per column; the first column names the row.
        rows: Cells.
    """

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]


def snapshots(runs: Sequence[RecordedRun]) -> Table:
    """Return all snapshots of all runs."""
    headings = [
        "run", "step", "headroom", "AIS", "cosines only", "realised (AIS / LIS)", "z to the best before",
        "per-user AUC", "verdict",
    ]  # fmt: skip
    rows = [[run.name, *_snapshot(result, run.best)] for run in runs for result in run.results]
    if len(runs) == 1:
        return Table("Snapshots", headings[1:], [row[1:] for row in rows])
    return Table("Snapshots", headings, rows)


def readings(run: RecordedRun) -> Table | None:
    """Return what rankers gain that read something else than the vectors, at the best snapshot; None if not scored."""
    rows = []
    for name, reading in run.best.reads.items():
        share = format_interval(reading.retained, reading.retained_low, reading.retained_high, percent=True)
        facts = ", ".join(f"{fact.replace('_', ' ')} {value:.3g}" for fact, value in reading.facts.items())
        rows.append([name, format_interval(reading.ais, reading.ais_low, reading.ais_high), share, facts])
    title = f"What rankers read in place of the vectors, at step {run.best.step}"
    return Table(title, ["reading", "AIS", "share of the vectors' AIS", "facts"], rows) if rows else None


def _snapshot(result: Snapshot, best: Snapshot) -> list[str]:
    star = " ★" if result is best else ""
    return [
        f"{result.step}{star}",
        format_interval(result.headroom, result.headroom_low, result.headroom_high),
        format_interval(result.ais, result.ais_low, result.ais_high),
        format_gain(result.ais_geometry),
        format_interval(result.realised, result.realised_low, result.realised_high, percent=True),
        "-" if math.isnan(result.gain_z) else f"{result.gain_z:+.1f}",
        format_interval(result.gauc_gain, result.gauc_gain_low, result.gauc_gain_high),
        f"{mark(result.verdict)} {result.verdict}",
    ]


def leaderboard(standings: Sequence[Standing]) -> Table | None:
    """Return the leaderboard; None without standings."""
    if not standings:
        return None
    rows = [_standing(rank, standing) for rank, standing in enumerate(standings, start=1)]
    headings = [
        "recipe", "headroom", "best AIS", "corrected", "start", "by training", "realised", "step", "seeds", "minutes",
        "the leader gains more", "p", "verdict",
    ]  # fmt: skip
    return Table("Leaderboard", headings, rows)


def _standing(rank: int, standing: Standing) -> list[str]:
    tie = " =" if rank > 1 and standing.tied else ""
    step = "-" if standing.step is None else str(standing.step)
    minutes = "-" if math.isnan(standing.seconds) else f"{standing.seconds / 60:.1f}"
    behind, p = "", ""
    if not math.isnan(standing.p):
        behind, p = format_estimate(standing.behind), f"{standing.p:.2g}"
    return [
        f"{rank}{tie} {standing.recipe}", format_gain(standing.headroom), format_estimate(standing.ais),
        format_estimate(standing.corrected), format_estimate(standing.start), format_estimate(standing.trained),
        format_share(standing.realised), step, str(standing.seeds), minutes, behind, p, standing.verdict,
    ]  # fmt: skip


def other_splits(groups: Sequence[Sequence[RecordedRun]]) -> Table | None:
    """Return the runs on other splits than that of a report, without a rank; None if there are none."""
    if not groups:
        return None
    rows = []
    for run in itertools.chain.from_iterable(groups):
        gain = format_interval(run.best.ais, run.best.ais_low, run.best.ais_high)
        rows.append([run.name, *_split(run), gain, f"{mark(run.judgement.verdict)} {run.judgement.verdict}"])
    return Table("Runs on other splits", ["run", "split", "users", "test events", "best AIS", "verdict"], rows)


def _split(run: RecordedRun) -> list[str]:
    sizes = [run.split.get(name) for name in ("users", "test_events")]
    return [run.split_hash[:8] or "unknown", *("-" if size is None else f"{size:,}" for size in sizes)]


def slices(run: RecordedRun) -> Table:
    """Return the gain in each slice at the best snapshot."""
    rows = []
    for name, gain in run.best.slices.items():
        rows.append([name, f"{gain.num_events:,}" if gain.num_events else "-", format_estimate(gain)])
    return Table("Slices", ["test events", "number", f"AIS at step {run.best.step}"], rows)


def concentration(run: RecordedRun) -> str:
    """Return the share of items from which half of the gain comes, in a sentence; empty without item gains."""
    gains = run.best.item_gains
    share = gain_concentration(gains[gains != 0]) if gains.size else math.nan
    return "" if math.isnan(share) else f"Half of the gains come from {format_share(share)} of the items."


def correlation(run: RecordedRun, name: str) -> str:
    """Return Spearman's rank correlation of a companion metric with AIS over the snapshots, in a sentence."""
    pairs = [(result.companions.get(name, math.nan), result.ais) for result in run.results]
    finite = [pair for pair in pairs if all(map(math.isfinite, pair))]
    # Undefined if either variable is constant.
    if len(finite) < 4 or min(len(set(values)) for values in zip(*finite, strict=True)) < 2:
        return "Too few different values for a correlation with AIS."
    rho = float(spearmanr(*zip(*finite, strict=True)).statistic)
    return f"Rank correlation with AIS over {len(finite)} snapshots: {rho:+.2f}. No interval: snapshots are dependent."


def cost(run: RecordedRun) -> str:
    """Return the time spent on snapshots and its share of the duration of the run, in a sentence."""
    spent = [result.encode_seconds + result.score_seconds for result in run.results]
    timed = [seconds for seconds in spent if math.isfinite(seconds)]
    if not timed:
        return "No timings were recorded."
    cost_text = f"{len(timed)} snapshots took {sum(timed):.1f} s, {sum(timed) / len(timed):.1f} s each."
    written = sorted(run.times.values())
    if len(written) < 2:
        return cost_text
    duration = (written[-1] - written[0]).total_seconds() + timed[0]
    return f"{cost_text} That is {format_share(sum(timed) / duration)} of the {duration:.0f} s up to the last one."


def parameters(runs: Sequence[RecordedRun]) -> list[Table]:
    """Return the configuration of the runs: overrides, split, settings of the monitor, versions."""
    top = os.path.commonpath([run.path.absolute().parent.parent for run in runs])
    run_rows = [[run.name, " ".join(run.overrides) or "-", os.path.relpath(run.path, top)] for run in runs]
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
