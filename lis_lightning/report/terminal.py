"""Report of runs as text for a terminal: a row with a sparkline per run, then the verdict."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Sequence

from lis_lightning.report.answers import answers, mark
from lis_lightning.report.leaders import conclusion_of, ranked, standings_of
from lis_lightning.report.rates import rates_text, run_rates, sweep_rates
from lis_lightning.report.runs import RecordedRun, by_split, same_split
from lis_lightning.results.format import format_gain, format_interval, format_share, plain_console
from lis_lightning.results.leaderboard import render_standings

_BARS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], low: float, high: float) -> str:
    """Return values as bars between `low` and `high`; NaN is a gap.

    Example:
        >>> sparkline([0.0, 0.5, float("nan"), 1.0], 0.0, 1.0)
        '▁▅ █'
    """
    span = (high - low) or 1.0

    def bar(value: float) -> str:
        if math.isnan(value):
            return " "
        share = min(max((value - low) / span, 0.0), 1.0)
        return _BARS[min(int(share * len(_BARS)), len(_BARS) - 1)]

    return "".join(map(bar, values))


def render_text(runs: Sequence[RecordedRun]) -> str:
    """Return the runs as text of at most about 140 columns.

    Args:
        runs: The runs, as :func:`find_runs` returns them; at least one.
    """
    groups = by_split(runs)
    texts = [_render_group(group) for group in groups]
    if len(groups) > 1:
        texts = [f"{_split(group[0])}\n{text}" for group, text in zip(groups, texts, strict=True)]
        texts.append(f"These are {len(groups)} splits: scores on one cannot be compared with scores on another.")
    failures = [f"{run.name}: a failure was tolerated: {failure}" for run in runs for failure in run.failures]
    failures += itertools.chain.from_iterable(run.unscored for run in runs)
    return "\n".join([*texts, *failures]).rstrip()


def _split(run: RecordedRun) -> str:
    """Return what a split is, in a line."""
    sizes = (run.split.get(name) for name in ("users", "test_events"))
    users, events = ("?" if size is None else f"{size:,}" for size in sizes)
    return f"split {run.split_hash[:8] or 'unknown'}: {users} users, {events} test events"


def _render_group(runs: Sequence[RecordedRun]) -> str:
    """Return the runs on one split as text."""
    from rich import box
    from rich.table import Table

    values = [result.ais for run in runs for result in run.results if math.isfinite(result.ais)]
    low, high = min([0.0, *values]), max([0.0, *values])
    table = Table(box=box.SIMPLE, header_style="bold")
    curve = f"AIS {format_gain(low)} to {format_gain(high)}"
    for heading in ("run", curve, "headroom", "best AIS", "corrected", "step", "realised", "verdict"):
        table.add_column(heading, no_wrap=heading != "run", overflow="fold")
    for run in ranked(runs):
        best = run.best
        table.add_row(
            run.name,
            sparkline([result.ais for result in run.results], low, high),
            format_gain(best.headroom),
            format_interval(best.ais, best.ais_low, best.ais_high),
            format_gain(run.corrected.value),
            f"{best.step}/{run.results[-1].step}",
            format_share(best.realised),
            f"{mark(run.judgement.verdict)} {run.judgement.verdict}",
        )
    console = plain_console(output := io.StringIO(), 132)
    console.print(table)
    rates = None
    if len(runs) == 1:
        console.print(f"{runs[0].judgement.verdict}: {runs[0].judgement.message}\n", soft_wrap=True)
        for answer in answers(runs[0]):
            console.print(f"{answer.question:<32}{answer.answer}; {answer.evidence}", soft_wrap=True)
        rates = run_rates(runs[0].results) if runs[0].paired else None
    elif standings := standings_of(runs):
        console.print(render_standings(standings), soft_wrap=True)
        console.print(conclusion_of(standings), soft_wrap=True)
        rates = sweep_rates([run.best for run in same_split(runs)])
    if rates is not None:
        console.print(f"\n{rates_text(rates)}", soft_wrap=True)
    return output.getvalue().rstrip()
