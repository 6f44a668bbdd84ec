"""Table of exchange rates: what 1 % more of each watched metric was worth in AIS, and when that ended."""

from __future__ import annotations

from collections.abc import Sequence

from lis_lightning.functional.intervals import Estimate
from lis_lightning.report.tables import Table
from lis_lightning.results.exchange_rate import ExchangeRate, exchange_rates, rates_over_runs
from lis_lightning.results.format import render_plain
from lis_lightning.results.snapshot import Snapshot

TITLE = "What the metrics you watch were worth"
NOTE = (
    "AIS that went with 1 % more of a metric, with 95 % intervals clustered by user.\n"
    "An observation: whoever trains for a metric may change its worth; noise in a metric can look like a break."
)


def run_rates(results: Sequence[Snapshot]) -> Table | None:
    """Return the exchange rates over the snapshots of a run; None without one, if no metric was named to be watched.

    Args:
        results: The snapshots, by step.

    Example:
        >>> snapshots = [Snapshot(ais=0.001, ais_low=0, ais_high=0, ais_geometry=0, auc_base=0.7, auc=0.7, step=0,
        ...                       watched={"recall": 0.2})]
        >>> run_rates(snapshots).rows
        [['recall', '1 snapshots have a value, a rate needs 4', '1', '']]
    """
    rates = _worth_showing(exchange_rates(results), results)
    if not rates:
        return None
    rows = [[rate.key, _rate(rate), str(rate.num), _break(rate)] for rate in rates]
    return Table(TITLE, ["metric", "AIS per +1 %", "snapshots", "the rate broke"], rows)


def sweep_rates(best: Sequence[Snapshot]) -> Table | None:
    """Return the exchange rates over the runs of a sweep; None without one, if no metric was named to be watched.

    Args:
        best: The best snapshot of each run, on one split.
    """
    rates = _worth_showing(rates_over_runs(best), best)
    if not rates:
        return None
    rows = [[rate.key, _rate(rate), str(rate.num)] for rate in rates]
    return Table(f"{TITLE}, over the best snapshots of the runs", ["metric", "AIS per +1 %", "runs"], rows)


def rates_text(table: Table | None) -> str:
    """Return a table of exchange rates as plain text; empty if there is none.

    Args:
        table: From :func:`run_rates` or :func:`sweep_rates`.
    """
    from rich import box
    from rich.table import Table as RichTable

    if table is None:
        return ""
    text = RichTable(box=box.SIMPLE, header_style="bold")
    for heading in table.headings:
        text.add_column(heading, no_wrap=True)
    for row in table.rows:
        text.add_row(*row)
    return f"{table.title}\n{render_plain(text, width=200)}\n{NOTE}"


def _worth_showing(rates: Sequence[ExchangeRate], results: Sequence[Snapshot]) -> list[ExchangeRate]:
    """Return the rates of metrics that were named to be watched, and of the others those that are known."""
    watched = {key for result in results for key in result.watched}
    return [rate for rate in rates if rate.key in watched or not rate.reason]


def _rate(rate: ExchangeRate) -> str:
    return rate.reason or _estimate(rate.rate)


def _break(rate: ExchangeRate) -> str:
    if rate.broke_at is None:
        return "" if rate.reason else "not within this run"
    return f"at step {rate.broke_at}: {_estimate(rate.before)} before, {_estimate(rate.since)} since"


def _estimate(estimate: Estimate) -> str:
    # One decimal more than a gain: a rate is of 1 %.
    return f"{estimate.value:+.5f} [{estimate.low:+.5f}, {estimate.high:+.5f}]"
