"""Audit report as text, CSV and JSON.

Its chapters, one per task and one on the change over time, are shared with the HTML page.
"""

from __future__ import annotations

import io
import itertools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from lis_lightning.functional.intervals import Estimate, cluster_interval
from lis_lightning.functional.multiple_comparisons import Comparison
from lis_lightning.report.tables import Table
from lis_lightning.results.audit import Audit, Part
from lis_lightning.results.format import format_gain, format_share, plain_console
from lis_lightning.results.result import LISResult

_WIDTH = 130
LABELS = {"ceiling": "LIS of", "ais": "AIS of"}


@dataclass(frozen=True)
class Chapter:
    """Section of the report on one task, or on the change over time.

    Attributes:
        tables: The numbers.
        lines: The conclusions, one sentence each.
        parts: The parts of the audit they are about: one part, or all periods of the primary task.
    """

    tables: list[Table]
    lines: list[str]
    parts: tuple[Part, ...]


def chapters(audit: Audit) -> list[Chapter]:
    """Return a chapter for each task and, for rolling windows, one on the change over time."""
    newest = [part for part in audit.parts if part.period == 0]
    result = [Chapter(_tables(part, audit.aligned_to), _conclusions(part), (part,)) for part in newest]
    if audit.aging:
        result.append(Chapter([_timeline(audit)], _changes(audit), audit.periods))
    return result


def render(audit: Audit) -> str:
    """Return the audit as text for a terminal: tables, rankings and conclusions."""
    from rich import box
    from rich.table import Table as RichTable

    console = plain_console(output := io.StringIO(), _WIDTH)
    for chapter in chapters(audit):
        for table in chapter.tables:
            console.print(f"\n{table.title}", style="bold", soft_wrap=True)
            rich_table = RichTable(box=box.SIMPLE)
            for index, heading in enumerate(table.headings):
                rich_table.add_column(heading, justify="right" if index else "left", no_wrap=True)
            for row in table.rows:
                rich_table.add_row(*row)
            console.print(rich_table)
        for line in chapter.lines:
            console.print(line, soft_wrap=True)
    return output.getvalue().rstrip()


def write_numbers(audit: Audit, folder: str | Path) -> tuple[Path, Path]:
    """Write ``audit.csv``, one number per line, and ``audit.json``, which also holds the split and the conclusions.

    Args:
        audit: The audit.
        folder: The folder to write to; it is created.

    Returns:
        The paths of the two files.
    """
    csv_file, json_file = Path(folder) / "audit.csv", Path(folder) / "audit.json"
    csv_file.parent.mkdir(parents=True, exist_ok=True)
    rows = audit.rows()
    pl.DataFrame(rows).with_columns(pl.col(pl.Float64).fill_nan(None)).write_csv(csv_file)
    content = {
        "aligned_to": audit.aligned_to,
        "parts": list(map(_plain, audit.parts)),
        "numbers": list(map(_finite, rows)),
    }
    json_file.write_text(json.dumps(content, indent=1, allow_nan=False), encoding="utf-8")
    return csv_file, json_file


def _plain(part: Part) -> dict[str, Any]:
    """Return the facts and conclusions of a part in plain values."""
    return {
        "task": part.task,
        "period": part.period,
        "begins": part.begins,
        "split": _finite(dict(part.facts)),
        "findings": [vars(finding) for finding in part.findings],
        "conclusions": _conclusions(part),
    }


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """Replace NaN and infinity, which strict JSON does not have, by None."""

    def finite(value: Any) -> Any:
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return {name: finite(value) for name, value in values.items()}


def _tables(part: Part, aligned_to: str) -> list[Table]:
    where = f"{part.task}, test window from {part.begins}"
    tables = [_preferences(part, where)]
    if part.results:
        tables += [_representations(part, aligned_to, where), *_readings(part, where), *_weighted(part, where)]
    if part.ranking:
        tables.append(_differences(part, where))
    if part.results:
        tables.append(_slices(part, where))
    return tables


def _slices(part: Part, where: str) -> Table:
    by_representation = [result.slices for result in part.results.values()]
    rows: list[tuple[str, ...]] = []
    for name, first in by_representation[0].items():
        gains = [_interval(slices[name]) for slices in by_representation]
        rows.append((name, f"{first.num_events:,}", *gains))
    return Table(f"AIS by slice ({where})", ("slice", "events", *part.results), rows)


def _preferences(part: Part, where: str) -> Table:
    rows: list[tuple[str, ...]] = [
        (
            name, _cell(limit.value, limit.low, limit.high), format_gain(limit.past), _interval(limit.future),
            f"{limit.missing_positive:.1%} / {limit.missing_negative:.1%}",
        )
        for name, limit in part.ceilings.items()
    ]  # fmt: skip
    headings = ("preference data", "LIS, an estimate", "without future", "gain of the future", "no vector: + / -")
    return Table(
        f"Estimates of what preference data carries, over a base AUC of {part.facts['base_auc']:.4f} ({where})",
        headings,
        rows,
    )


def _differences(part: Part, where: str) -> Table:
    rows = [
        (pair.better, pair.worse, _interval(pair.difference), f"{pair.p:.2g}", "yes" if pair.significant else "no")
        for pair in part.ranking
    ]
    headings = ("representation", "compared with", "difference in AIS", "p, corrected", "significant")
    return Table(f"All pairs of representations, paired by user; p by Holm's correction ({where})", headings, rows)


def _representations(part: Part, aligned_to: str, where: str) -> Table:
    rows: list[tuple[str, ...]] = [
        (
            name, _cell(result.headroom, result.headroom_low, result.headroom_high),
            _cell(result.ais, result.ais_low, result.ais_high), format_gain(result.ais_geometry),
            _cell(result.realised, result.realised_low, result.realised_high, format_share),
        )
        for name, result in _best_first(part)
    ]  # fmt: skip
    headings = ("representation", f"{aligned_to} would still add", "AIS", "geometry only", "realised (AIS / LIS)")
    return Table(f"Gains of representations ({where})", headings, rows)


def _readings(part: Part, where: str) -> list[Table]:
    rows: list[tuple[str, ...]] = [
        (
            f"{name}: {read}", _cell(reading.ais, reading.ais_low, reading.ais_high),
            _cell(reading.retained, reading.retained_low, reading.retained_high, format_share),
            format_share(reading.facts.get("collision_rate", math.nan)),
        )
        for name, result in _best_first(part)
        for read, reading in result.reads.items()
    ]  # fmt: skip
    headings = ("representation: what is read of it", "AIS", "share of the vectors' AIS", "collision rate")
    return [Table(f"Gains of what rankers read ({where})", headings, rows)] if rows else []


def _weighted(part: Part, where: str) -> list[Table]:
    rows: list[tuple[str, ...]] = [
        (name, _cell(result.ais_weighted, result.ais_weighted_low, result.ais_weighted_high))
        for name, result in _best_first(part)
        if not math.isnan(result.ais_weighted)
    ]
    if not rows:
        return []
    return [Table(f"Gains in the AUC weighted by event weights ({where})", ("representation", "AIS"), rows)]


def _best_first(part: Part) -> list[tuple[str, LISResult]]:
    return sorted(part.results.items(), key=lambda pair: -pair[1].ais)


def _conclusions(part: Part) -> list[str]:
    """Return rankings and findings, one line each."""
    rankings = {"preference data by LIS": part.ceiling_ranking, "representations": part.ranking}
    lines = [f"{name}: {ranking_in_words(pairs)}" for name, pairs in rankings.items() if pairs]
    if _clear(part.placebo):
        lines.append(
            f"warning: random vectors gain {_interval(part.placebo)}: the base ranker lacks structure that any vector "
            "adds. Compare all gains with this one, not with 0."
        )
    return lines + [f"{finding.name}: {finding.verdict}: {finding.message}" for finding in part.findings]


def ranking_in_words(comparisons: Sequence[Comparison]) -> str:
    """Return the ranking as text: ``>`` between neighbours with a significant difference, ``~`` between others.

    A significant difference between names that are not neighbours is listed too, unless a step between them is
    significant.

    Args:
        comparisons: All pairs, as :func:`~lis_lightning.functional.multiple_comparisons.compare_all_pairs` returns
            them.

    Returns:
        One line; empty for no comparisons.

    Example:
        >>> zero = Estimate(value=0.0, se=0.0, low=0.0, high=0.0)
        >>> ranking_in_words([Comparison(better="a", worse="b", difference=zero, p=1.0)])
        'a ~ b: these cannot be told apart'
    """
    if not comparisons:
        return ""
    significant = {(pair.better, pair.worse): pair.significant for pair in comparisons}
    order = list(dict.fromkeys(itertools.chain.from_iterable(significant)))
    chain = order[0]
    for step in itertools.pairwise(order):
        sign = ">" if significant[step] else "~"
        chain += f" {sign} {step[1]}"
    if not any(significant.values()):
        return f"{chain}: these cannot be told apart"
    clauses = [chain]
    for low, high in itertools.combinations(range(len(order)), 2):
        steps = itertools.pairwise(order[low : high + 1])
        if significant[order[low], order[high]] and not any(significant[step] for step in steps):
            clauses.append(f"{order[low]} is above {order[high]}")
    if "~" in chain:
        clauses.append("~: cannot be told apart")
    return "; ".join(clauses)


def _timeline(audit: Audit) -> Table:
    """Return the gains in each test window and their change from the oldest to the newest."""
    periods = audit.periods
    base_aucs = [f"{part.facts['base_auc']:.4f}" for part in periods]
    rows: list[tuple[str, ...]] = [("AUC of the base", *base_aucs, "")]
    for (measure, name), change in audit.aging.items():
        gains = [cluster_interval(*part.gains[measure, name]) for part in periods]
        cells = [f"{format_gain(gain.value)} ±{gain.high - gain.value:.4f}" for gain in gains]
        rows.append((f"{LABELS[measure]} {name}", *cells, _interval(change)))
    headings = ("test window from", *(part.begins for part in periods), "newest less oldest")
    return Table(f"Change over time ({periods[0].task})", headings, rows)


def _changes(audit: Audit) -> list[str]:
    """Return the significant changes over time, one sentence each."""
    lines = []
    for (measure, name), change in audit.aging.items():
        if _clear(change):
            verb = "fell" if change.value < 0 else "rose"
            by = f"by {_interval(change)}"
            lines.append(f"{LABELS[measure]} {name} {verb} from the oldest to the newest window, {by}")
    return lines or ["no change over time is significant"]


def _clear(estimate: Estimate) -> bool:
    """Return whether the interval of an estimate leaves out 0."""
    return estimate.low > 0 or estimate.high < 0


def _interval(estimate: Estimate) -> str:
    return _cell(estimate.value, estimate.low, estimate.high)


def _cell(value: float, low: float, high: float, form: Callable[[float], str] = format_gain) -> str:
    """Return a value with its interval."""
    return form(value) if math.isnan(low) else f"{form(value)} [{form(low)}, {form(high)}]"
