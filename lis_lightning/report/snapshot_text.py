"""Snapshots of a run as text for a terminal: a log line per snapshot, and a table of all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from lis_lightning.results.format import (
    format_bounds,
    format_estimate,
    format_gain,
    format_interval,
    format_path,
    format_share,
    render_plain,
)
from lis_lightning.results.reading import Reading
from lis_lightning.results.selection import corrected_best
from lis_lightning.results.snapshot import Snapshot


def summary(
    results: Sequence[Snapshot], best: Snapshot | None, record: Path | None, failures: str = "", hint: str | None = None
) -> str:
    """Return the summary printed at the end of a run: all snapshots, the verdict, and the paths of the output.

    Args:
        results: The snapshots, by step.
        best: The best of them, which is marked; None if there is none.
        record: The run's record; None if there is none.
        failures: How many snapshots failed, from :func:`failed_line`; empty if none did.
        hint: How to view what the loggers wrote, in a sentence.
    """
    lines = []
    if best is not None:
        last = results[-1]
        verdict = ", ".join(filter(None, [last.verdict, last.message]))
        lines += [
            snapshot_table(results, best),
            f"Best snapshot: step {best.step}{_corrected(results)}. Verdict: {verdict}",
            *(f"  {reading_line(name, reading)}" for name, reading in best.reads.items()),
        ]
    where = ""
    if record is not None:
        where = f"Record: {format_path(record)}; as a page: lis-report {format_path(record.parent)}"
    return "\n".join([*lines, *filter(None, [failures, where, hint])])


def reading_line(name: str, reading: Reading) -> str:
    """Return what a ranker gains that reads something else than the vectors, as one line.

    Args:
        name: Name of the reading.
        reading: Its score.

    Example:
        >>> facts = {"collision_rate": 0.02, "entropy": 0.9}
        >>> reading_line("codes", Reading(ais=0.004, ais_low=0.002, ais_high=0.006, retained=0.8, retained_low=0.6,
        ...                               retained_high=1.1, facts=facts))
        'codes: AIS +0.0040 [+0.0020, +0.0060], 80% [60%, 110%] of that of the vectors, collision rate 2%'
    """
    parts = [f"{name}: AIS {format_interval(reading.ais, reading.ais_low, reading.ais_high)}"]
    if not math.isnan(reading.retained):
        share = format_interval(reading.retained, reading.retained_low, reading.retained_high, percent=True)
        parts.append(f"{share} of that of the vectors")
    facts = reading.facts
    if "collision_rate" in facts:
        parts.append(f"collision rate {facts['collision_rate']:.0%}")
    if "churn" in facts:
        parts.append(f"{facts['churn']:.0%} of the first codes changed since the snapshot before")
    if "gain" in facts:
        gain = format_interval(facts["gain"], facts["gain_low"], facts["gain_high"])
        parts.append(f"{gain} over the last events")
    return ", ".join(parts)


def failed_line(name: str | None, scored: int, failed: int, error: str) -> str:
    """Return how many snapshots of a monitor were scored, and why the last one was not.

    Args:
        name: Name of the monitor; None if it has none.
        scored: Number of snapshots that were scored.
        failed: Number of snapshots that failed.
        error: The last error.

    Example:
        >>> failed_line("text", 0, 3, "OSError: gone")
        'text: 0 of 3 snapshots scored, last error OSError: gone'
    """
    return f"{name or 'LISMonitor'}: {scored} of {scored + failed} snapshots scored, last error {error}"


def _corrected(results: Sequence[Snapshot]) -> str:
    """Return the AIS of the best snapshot corrected for having been picked, in words; empty where it is unknown."""
    best = corrected_best(results)
    if math.isnan(best.value) or len(results) == 1:
        return ""
    return f", AIS {format_estimate(best)} corrected for being the best of {len(results)}"


def snapshot_table(results: Sequence[Snapshot], best: Snapshot | None = None) -> str:
    """Return the snapshots as a plain-text table, the best one marked by ``*``.

    ``headroom`` is what the preference data would still add to the snapshot; ``realised`` is AIS as a share of LIS, an
    estimate that may be exceeded.

    Args:
        results: The snapshots, by step; at least one.
        best: The best of them; None marks none.

    Example:
        >>> from lis_lightning.results import LISResult, Snapshot
        >>> result = LISResult(ais=0.003, ais_low=0.001, ais_high=0.005, ais_geometry=0.002, auc_base=0.7, auc=0.703)
        >>> snapshot_table([Snapshot.of(result, step=200)]).splitlines()[-1].split()[:4]
        ['200', '+0.0030', '[+0.0010,', '+0.0050]']
    """
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE)
    tasks = [f"AIS {name}" for name in results[-1].tasks]
    for heading in ("step", "AIS", "95 % interval", "headroom", "geometry", "realised", *tasks, "verdict"):
        table.add_column(heading, justify="left" if heading == "verdict" else "right", no_wrap=True)
    for result in results:
        star = "*" if best is not None and result.step == best.step else " "
        table.add_row(
            f"{result.step}{star}",
            format_gain(result.ais),
            format_bounds(result.ais_low, result.ais_high),
            format_gain(result.headroom),
            format_gain(result.ais_geometry),
            format_share(result.realised),
            *(format_gain(task.ais) for task in result.tasks.values()),
            result.verdict,
        )
    return render_plain(table, width=112)


def snapshot_line(result: Snapshot) -> str:
    """Return a snapshot as one line of a log."""
    interval = format_interval(result.ais, result.ais_low, result.ais_high)
    headroom = "" if math.isnan(result.headroom) else f", headroom {result.headroom:+.4f}"
    realised = "" if math.isnan(result.realised) else f", realised {format_share(result.realised)}"
    return (
        f"LIS step {result.step}: AIS {interval}{headroom}{realised}, "
        f"{result.verdict} ({result.encode_seconds:.1f} s to encode, {result.score_seconds:.1f} s to score)"
    )
