"""The page of one run, several, or a sweep."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lis_lightning.errors import ConfigError
from lis_lightning.report import figures, tables
from lis_lightning.report.answers import answers, mark, tone
from lis_lightning.report.document import document, write
from lis_lightning.report.leaders import conclusion_of, ranked, standings_of
from lis_lightning.report.pictures import shown_movers
from lis_lightning.report.runs import RecordedRun
from lis_lightning.results.format import format_interval

NUM_SHOWN = 4  # runs whose curves are drawn at first: more bands than these hide each other


def write_report(
    runs: Sequence[RecordedRun],
    path: str | Path,
    *,
    title: str | None = None,
    references: Mapping[str, float] | None = None,
    reload_seconds: float | None = None,
) -> Path:
    """Write a self-contained HTML page: it opens from disk, without a network.

    Args:
        runs: As :func:`find_runs` finds them.
        path: The file to write; its folder is made.
        title: Heading of the page; default: the names of the runs.
        references: Known gains to draw as dotted lines, by name (in the generated world, that of the revealed latents).
        reload_seconds: The page loads itself anew so often, for runs that go on; None for never.

    Returns:
        The path.

    Raises:
        ConfigError: If there is no run, or plotly or jinja2 is not installed.

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
    title = title or (runs[0].name if len(runs) == 1 else f"{len(runs)} runs")
    return write(path, render_report(runs, title, references or {}, reload_seconds))


def render_report(
    runs: Sequence[RecordedRun], title: str, references: Mapping[str, float], reload_seconds: float | None = None
) -> str:
    """Return the page as text; see :func:`write_report`."""
    runs = ranked(runs)
    lead = runs[0]
    standings = standings_of(runs)
    companions = list(lead.best.companions)
    drawn = {"curve": figures.curves(runs, references), "slices": figures.slices(lead), "cost": figures.cost(lead)}
    drawn |= {f"companion-{index}": figures.companion(lead, name) for index, name in enumerate(companions)}
    if behind := figures.differences(runs):
        title = "AUC gain less that of the best run (right is better)"
        drawn["differences"] = figures.forest({"behind the best": behind}, title)
    return document(
        title,
        figures=drawn,
        template="report.html",
        reload_seconds=reload_seconds,
        footer=f"lis-lightning {version('lis-lightning')}. {tables.HOW_TO_READ}",
        runs=_listed(runs),
        lead={
            "name": lead.name, "verdict": lead.judgement.verdict, "message": lead.judgement.message,
            "mark": mark(lead.judgement.verdict), "tone": tone(lead.judgement.verdict),
        },
        conclusion=conclusion_of(standings),
        answers=answers(lead),
        failures=[f"{run.name}: {failure}" for run in runs for failure in run.failures],
        curve_label=_curve_label(lead),
        snapshots=tables.snapshots(runs),
        gauges=[_gauge(run, number if len(runs) > 1 else None) for number, run in enumerate(runs)],
        leaderboard=tables.board(standings) if len(runs) > 1 else None,
        slices=tables.slices(lead),
        movers=shown_movers(lead),
        concentration=tables.concentrated(lead),
        companions={name: tables.agreement(lead, name) for name in companions},
        cost=tables.cost(lead),
        parameters=tables.parameters(runs),
    )  # fmt: skip


def _listed(runs: Sequence[RecordedRun]) -> list[dict[str, Any]]:
    """Return the runs as the page lists them; the first of them are shown at first."""
    return [
        {"name": run.name, "colour": colour, "dash": dash, "shown": standing < NUM_SHOWN}
        for standing, (run, (colour, dash)) in enumerate(zip(runs, figures.colours(runs), strict=True))
    ]


def _gauge(run: RecordedRun, number: int | None) -> dict[str, Any]:
    """Return what the gauge of a run shows, in per cent, cut to 0 to 100."""
    best = run.best

    def cut(share: float) -> float:
        return 100 * min(max(share, 0.0), 1.0) if not math.isnan(share) else 0.0

    known = not math.isnan(best.realised)
    low, high = cut(best.realised_low), cut(best.realised_high)
    return {
        "run": number, "name": run.name, "known": known, "value": cut(best.realised), "low": low, "width": high - low,
        "text": format_interval(best.realised, best.realised_low, best.realised_high, percent=True)
        if known else answers(run)[1].answer,
    }  # fmt: skip


def _curve_label(lead: RecordedRun) -> str:
    best = lead.best
    return (
        f"AIS over optimizer steps. {lead.name}: {len(lead.results)} snapshots, best at step {best.step} with "
        f"{format_interval(best.ais, best.ais_low, best.ais_high)}; verdict {lead.judgement.verdict}."
    )
