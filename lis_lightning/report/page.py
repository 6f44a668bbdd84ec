"""HTML report of one run, several runs, or a sweep."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lis_lightning.errors import ConfigError
from lis_lightning.report import figures, tables
from lis_lightning.report.answers import answers, headroom, mark, picked, tone
from lis_lightning.report.document import document, write
from lis_lightning.report.leaders import conclusion_of, ranked, standings_of
from lis_lightning.report.rates import run_rates, sweep_rates
from lis_lightning.report.runs import RecordedRun, by_split, same_split
from lis_lightning.report.tables import Table
from lis_lightning.report.thumbnails import data_url
from lis_lightning.results.format import format_interval
from lis_lightning.results.movers import Mover
from lis_lightning.results.snapshot import Snapshot

NUM_SHOWN = 4  # runs whose curves are shown initially: more bands would hide each other
NUM_MOVERS = 10  # items that rose, and items that fell


def write_report(
    runs: Sequence[RecordedRun],
    path: str | Path,
    *,
    title: str | None = None,
    references: Mapping[str, float] | None = None,
    reload_seconds: float | None = None,
) -> Path:
    """Write the report as a self-contained HTML page, which opens from disk without a network.

    Args:
        runs: The runs, as :func:`find_runs` returns them.
        path: The file to write; its folder is created.
        title: Heading of the page; default: the name of the run, or the number of runs.
        references: Gains to draw as dotted lines, by name (such as that of the true latents in the simulated world).
        reload_seconds: Seconds after which the page reloads itself, for runs in progress; None never reloads it.

    Returns:
        The path.

    Raises:
        ConfigError: If there is no run.

    Example:
        >>> import tempfile
        >>> from lis_lightning.report import recorded_run
        >>> from lis_lightning.results import LISResult, Snapshot
        >>> result = LISResult(ais=0.003, ais_low=0.001, ais_high=0.005, ais_geometry=0.002, auc_base=0.7, auc=0.703)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run = recorded_run(None, [Snapshot.of(result, step=200)])
        ...     page = write_report([run], Path(folder) / "report.html")
        ...     print(page.name, page.read_text().count("<html"))
        report.html 1
    """
    if not runs:
        raise ConfigError("Nothing to show: the list of runs is empty.")
    title = title or (f"Report of {runs[0].name}" if len(runs) == 1 else f"Report of {len(runs)} runs")
    return write(path, render_report(runs, title, references or {}, reload_seconds))


def render_report(
    runs: Sequence[RecordedRun], title: str, references: Mapping[str, float], reload_seconds: float | None = None
) -> str:
    """Return the page as text; see :func:`write_report`."""
    failures = [f"{run.name}: {failure}" for run in runs for failure in run.failures]
    failures += itertools.chain.from_iterable(run.unscored for run in runs)
    group, *other_groups = by_split(runs)
    runs = ranked(group)
    lead = runs[0]
    standings = standings_of(runs)
    companions = list(lead.best.companions)
    plots = {"curve": figures.curves(runs, references), "slices": figures.slices(lead), "cost": figures.cost(lead)}
    plots |= {f"companion-{index}": figures.companion(lead, name) for index, name in enumerate(companions)}
    if differences := figures.differences(runs):
        axis = "AUC gain less that of the best run (right is better)"
        plots["differences"] = figures.forest({"difference to the best": differences}, axis)
    scale = max(_end(run.best) for run in runs) or 1.0
    gauges = [_gauge(run, scale) for run in runs]
    correlations = {name: tables.correlation(lead, name) for name in companions}
    return document(
        title,
        figures=plots,
        template="report.html",
        reload_seconds=reload_seconds,
        footer=f"lis-lightning {version('lis-lightning')}. {tables.HOW_TO_READ}",
        runs=_listed(runs),
        hidden=max(len(runs) - NUM_SHOWN, 0),
        lead={
            "name": lead.name, "verdict": lead.judgement.verdict, "message": lead.judgement.message,
            "mark": mark(lead.judgement.verdict), "tone": tone(lead.judgement.verdict),
        },
        conclusion=conclusion_of(standings),
        answers=answers(lead),
        failures=failures,
        curve_label=_curve_label(lead),
        snapshots=tables.snapshots(runs),
        gauges=gauges,
        leaderboard=tables.leaderboard(standings),
        other_splits=tables.other_splits(other_groups),
        slices=tables.slices(lead),
        movers=_movers(lead),
        concentration=tables.concentration(lead),
        companions=correlations,
        readings=tables.readings(lead),
        rates=_rates(runs),
        cost=tables.cost(lead),
        parameters=tables.parameters(runs),
    )  # fmt: skip


def _listed(runs: Sequence[RecordedRun]) -> list[dict[str, Any]]:
    """Return the runs for the page's list, with their line styles; the first ones are shown initially."""
    rows = []
    for rank, (run, (colour, dash)) in enumerate(zip(runs, figures.colours(runs), strict=True)):
        rows.append({"name": run.name, "colour": colour, "dash": dash, "shown": rank < NUM_SHOWN})
    return rows


def _gauge(run: RecordedRun, scale: float) -> dict[str, Any]:
    """Return the values of a run's gauge: AIS and what the data would still add to it, in per cent of a scale."""
    best = run.best
    room = 0.0 if math.isnan(best.headroom) else max(best.headroom, 0.0)
    ais = 0.0 if math.isnan(best.ais) else max(best.ais, 0.0)
    low, high = (100 * min(max((ais + end) / scale, 0.0), 1.0) for end in (best.headroom_low, best.headroom_high))
    measured = math.isfinite(best.headroom)
    added = f"headroom {headroom(best)}" if measured else headroom(best)
    gain = format_interval(best.ais, best.ais_low, best.ais_high)
    return {
        "name": run.name, "measured": measured, "ais": 100 * ais / scale,
        "room": 100 * room / scale, "low": low, "width": high - low, "share": round(100 * ais / ((ais + room) or 1.0)),
        "text": added, "gain": f"AIS {gain}",
    }  # fmt: skip


def _end(best: Snapshot) -> float:
    """Return the upper end of AIS with the headroom on top: the length of the gauge."""
    return max(best.ais, 0.0) + (best.headroom_high if math.isfinite(best.headroom_high) else 0.0)


def _rates(runs: Sequence[RecordedRun]) -> list[Table]:
    """Return what watched metrics were worth over the snapshots of the best run, and over the runs of one split."""
    lead, comparable = runs[0], same_split(runs)
    found = [
        run_rates(lead.results) if lead.paired else None,
        sweep_rates([run.best for run in comparable]) if len(comparable) > 1 else None,
    ]
    return [table for table in found if table is not None]


def _movers(run: RecordedRun) -> dict[str, Any] | None:
    """Return the items whose gain clearly rose and fell most, and the number of others; None without a catalogue."""
    if not (moved := run.movers):
        return None
    rose = [mover for mover in moved if mover.change.low > 0]
    fell = [mover for mover in moved if mover.change.high < 0]
    shown = {"rose": list(map(_mover, rose[:NUM_MOVERS])), "fell": list(map(_mover, fell[:NUM_MOVERS]))}
    return {
        **shown,
        "images": any(row["image"] for rows in shown.values() for row in rows),
        "more": len(rose) + len(fell) - sum(map(len, shown.values())),
        "unclear": len(moved) - len(rose) - len(fell),
    }


def _mover(mover: Mover) -> dict[str, Any]:
    # In units of .0001: a single item moves the AUC by that much at most.
    change = f"{1e4 * mover.change.value:+.2f} [{1e4 * mover.change.low:+.2f}, {1e4 * mover.change.high:+.2f}]"
    return {"title": mover.title, "image": data_url(mover.image), "change": change}


def _curve_label(lead: RecordedRun) -> str:
    best = lead.best
    return (
        f"AIS over optimizer steps. {lead.name}: {len(lead.results)} snapshots, best at step {best.step} with "
        f"{format_interval(best.ais, best.ais_low, best.ais_high)}{picked(lead)}; verdict {lead.judgement.verdict}."
    )
