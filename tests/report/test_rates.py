"""The table of what watched metrics were worth, on the page and in the terminal."""

import dataclasses

import pytest

from lis_lightning.report.page import render_report
from lis_lightning.report.rates import TITLE, rates_text, run_rates, sweep_rates
from lis_lightning.report.runs import recorded_run
from lis_lightning.report.terminal import render_text


@pytest.fixture(scope="module")
def results(scored):
    """The snapshots of a run that also logged a recall, and a loss that went through zero."""
    watched = [{"val/recall": 0.1 + result.ais, "val/loss": 1.0 - index} for index, result in enumerate(scored(0))]
    return [dataclasses.replace(one, watched=values) for one, values in zip(scored(0), watched, strict=True)]


def test_watched_metrics_come_first_with_a_rate_or_the_reason_for_none(results):
    rows = {row[0]: row[1:] for row in run_rates(results).rows}
    assert list(rows) == ["val/recall", "val/loss", "pair_auc", "rankme", "cka"]
    rate, number, broke = rows["val/recall"]
    assert rate.startswith("+0.001")
    assert (number, broke) == ("7", "not within this run")
    assert rows["val/loss"][0].startswith("it changes its sign (-5 to 1)")
    assert rows["val/loss"][2] == ""


def test_metrics_that_nobody_named_are_left_out_without_a_rate(results):
    unnamed = [dataclasses.replace(result, watched={}) for result in results[:3]]
    assert run_rates(unnamed) is None
    assert sweep_rates(unnamed) is None
    assert rates_text(None) == ""
    assert [row[0] for row in sweep_rates(results[:3]).rows] == ["val/recall", "val/loss"]


def test_a_break_is_told_with_the_rates_on_both_sides(results):
    stalled = [
        dataclasses.replace(
            one, ais=0.001 * min(index, 3), influence=1e-7 * one.influence, watched={"recall": 1.1**index}
        )
        for index, one in enumerate(results)
    ]
    row = run_rates(stalled).rows[0]
    assert row[3].startswith("at step 75: +0.00010 [+0.00010, +0.00010] before, ")
    assert row[3].endswith("0.00000] since")


def test_page_and_terminal_show_the_table(results):
    run = recorded_run(None, results)
    page = render_report([run], "a run", {})
    assert f"<h2>{TITLE}</h2>" in page
    assert "val/recall" in page
    assert TITLE in render_text([run])
