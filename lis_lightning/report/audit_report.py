"""An audit as text, CSV and JSON; what it says is in chapters, one a task and one on time, which the page shows too."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from lis_lightning.functional.intervals import Z95, Estimate, cluster_interval
from lis_lightning.functional.multiple_comparisons import ranking_in_words
from lis_lightning.report.tables import Table
from lis_lightning.results.audit import Audit, Part
from lis_lightning.results.format import format_gain, format_share, plain_console
from lis_lightning.results.result import LISResult

_WIDTH = 130
_LABELS = {"ceiling": "ceiling of", "ais": "AIS of"}


@dataclass(frozen=True)
class Chapter:
    """What an audit says of one task, or of time.

    Attributes:
        tables: The numbers.
        lines: What they say.
        parts: What they are of: one part, or all periods of the primary task.
    """

    tables: list[Table]
    lines: list[str]
    parts: tuple[Part, ...]


def chapters(audit: Audit) -> list[Chapter]:
    """Return a chapter for each task and, where windows are rolling, one on time."""
    first = [part for part in audit.parts if part.period == 0]
    told = [Chapter(_tables(part, audit.aligned_to), _conclusions(part), (part,)) for part in first]
    return [*told, Chapter([_timeline(audit)], _changes(audit), audit.periods)] if audit.aging else told


def render(audit: Audit) -> str:
    """Return the audit as text for a terminal: tables, rankings, and what to conclude."""
    from rich import box
    from rich.table import Table as RichTable

    console = plain_console(output := io.StringIO(), _WIDTH)
    for chapter in chapters(audit):
        for table in chapter.tables:
            console.print(f"\n{table.title}", style="bold", soft_wrap=True)
            shown = RichTable(box=box.SIMPLE)
            for index, heading in enumerate(table.headings):
                shown.add_column(heading, justify="right" if index else "left", no_wrap=True)
            for row in table.rows:
                shown.add_row(*row)
            console.print(shown)
        for line in chapter.lines:
            console.print(line, soft_wrap=True)
    return output.getvalue().rstrip()


def write_numbers(audit: Audit, folder: str | Path) -> tuple[Path, Path]:
    """Write ``audit.csv``, one number a line, and ``audit.json``, which also holds the split and the conclusions.

    Args:
        audit: What to write.
        folder: Where to; it is made.

    Returns:
        The two files.
    """
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    rows = audit.rows()
    pl.DataFrame(rows).with_columns(pl.col(pl.Float64).fill_nan(None)).write_csv(place / "audit.csv")
    content = {
        "aligned_to": audit.aligned_to,
        "parts": [_plain(part) for part in audit.parts],
        "numbers": [_finite(row) for row in rows],
    }
    (place / "audit.json").write_text(json.dumps(content, indent=1, allow_nan=False), encoding="utf-8")
    return place / "audit.csv", place / "audit.json"


def _plain(part: Part) -> dict[str, Any]:
    """Return what a part says beside its numbers."""
    return {
        "task": part.task,
        "period": part.period,
        "begins": part.begins,
        "split": _finite(dict(part.facts)),
        "findings": [vars(finding) for finding in part.findings],
        "conclusions": _conclusions(part),
    }


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """Put None in place of numbers that strict JSON does not have."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in values.items()
    }


def _tables(part: Part, aligned_to: str) -> list[Table]:
    where = f"{part.task}, test window from {part.begins}"
    tables = [_preferences(part, where)]
    if part.results:
        tables += [_representations(part, aligned_to, where), *_weighted(part, where)]
    if part.ranking:
        tables.append(_differences(part, where))
    slices = [result.slices for result in part.results.values()]
    if slices:
        rows: list[tuple[str, ...]] = [
            (name, f"{one.num_events:,}", *(_of(estimates[name]) for estimates in slices))
            for name, one in slices[0].items()
        ]
        tables.append(Table(f"AIS by slice ({where})", ("slice", "events", *part.results), rows))
    return tables


def _preferences(part: Part, where: str) -> Table:
    rows: list[tuple[str, ...]] = [
        (
            name, _cell(limit.value, limit.low, limit.high), format_gain(limit.past), _of(limit.future),
            f"{limit.missing_positive:.1%} / {limit.missing_negative:.1%}",
        )
        for name, limit in part.ceilings.items()
    ]  # fmt: skip
    headings = ("preference data", "ceiling", "without future", "the future adds", "no vector: + / -")
    return Table(
        f"What preference data can bring at best, over AUC {part.facts['base_auc']:.4f} ({where})", headings, rows
    )


def _differences(part: Part, where: str) -> Table:
    best = part.ranking[0].better
    rows: list[tuple[str, ...]] = [
        (pair.worse, _of(pair.difference), "yes" if pair.significant else "no")
        for pair in part.ranking
        if pair.better == best
    ]
    return Table(f"What {best} brings beyond the others ({where})", ("than", "difference", "told apart"), rows)


def _representations(part: Part, aligned_to: str, where: str) -> Table:
    rows: list[tuple[str, ...]] = [
        (
            name, _cell(result.ais, result.ais_low, result.ais_high), format_gain(result.ais_geometry),
            _cell(result.realised, result.realised_low, result.realised_high, format_share),
            _cell(result.headroom, result.headroom_low, result.headroom_high),
        )
        for name, result in _best_first(part)
    ]  # fmt: skip
    headings = ("representation", "AIS", "geometry only", f"realised of {aligned_to}", f"{aligned_to} would still add")
    return Table(f"What representations bring today ({where})", headings, rows)


def _weighted(part: Part, where: str) -> list[Table]:
    rows: list[tuple[str, ...]] = [
        (name, _cell(result.ais_weighted, result.ais_weighted_low, result.ais_weighted_high))
        for name, result in _best_first(part)
        if not math.isnan(result.ais_weighted)
    ]
    return (
        [Table(f"The same, of the AUC weighted by what events are worth ({where})", ("", "AIS"), rows)] if rows else []
    )


def _best_first(part: Part) -> list[tuple[str, LISResult]]:
    return sorted(part.results.items(), key=lambda pair: -pair[1].ais)


def _conclusions(part: Part) -> list[str]:
    """Return rankings and findings, a line each."""
    rankings = {"ceilings": part.ceiling_ranking, "representations": part.ranking}
    lines = [f"{what}: {ranking_in_words(pairs)}" for what, pairs in rankings.items() if pairs]
    if abs(part.placebo.z) >= Z95:
        lines.append(
            f"warning: random vectors gain {_of(part.placebo)}: the base lacks structure that any vector brings. Read "
            "all gains against this one, not against 0."
        )
    return lines + [f"{finding.name}: {finding.verdict}: {finding.message}" for finding in part.findings]


def _timeline(audit: Audit) -> Table:
    """Return how gains change from one pair of windows to the next."""
    periods = audit.periods
    rows: list[tuple[str, ...]] = [("AUC of the base", *(f"{part.facts['base_auc']:.4f}" for part in periods), "")]
    for (measure, name), change in audit.aging.items():
        gains = [cluster_interval(*part.gains[measure, name]) for part in periods]
        spans = [f"{format_gain(one.value)} ±{one.high - one.value:.4f}" for one in gains]
        rows.append((f"{_LABELS[measure]} {name}", *spans, _of(change)))
    headings = ("test window from", *(part.begins for part in periods), "newest less oldest")
    return Table(f"How fast they age ({periods[0].task})", headings, rows)


def _changes(audit: Audit) -> list[str]:
    """Return in words what got better or worse with time."""
    lines = [
        f"{_LABELS[measure]} {name} {'fell' if change.value < 0 else 'rose'} from the oldest to the newest window, "
        f"by {_of(change)}"
        for (measure, name), change in audit.aging.items()
        if abs(change.z) >= Z95
    ]
    return lines or ["no change over time can be told from chance"]


def _of(estimate: Estimate) -> str:
    return _cell(estimate.value, estimate.low, estimate.high)


def _cell(value: float, low: float, high: float, form: Callable[[float], str] = format_gain) -> str:
    """Return a value with its interval."""
    return form(value) if math.isnan(low) else f"{form(value)} [{form(low)}, {form(high)}]"
