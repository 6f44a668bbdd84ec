"""Numbers as text, and tables, which are text in a notebook too, where rich would display them instead."""

import math

import pytest

from lis_lightning.report.audit_report import render as render_audit
from lis_lightning.report.snapshot_text import snapshot_table
from lis_lightning.results.format import format_interval
from lis_lightning.results.leaderboard import Runs, rank_recipes, render_standings
from lis_lightning.results.snapshot import Snapshot
from lis_lightning.scoring.auditing import audit


@pytest.fixture
def _in_a_notebook(monkeypatch):
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")  # as ipykernel does


@pytest.fixture(scope="module")
def result(split, latents):
    return Snapshot.of(split.score(latents, ceilings=("pairs",)), step=0)


@pytest.mark.usefixtures("_in_a_notebook")
@pytest.mark.parametrize(
    ("table", "word"),
    [
        (lambda split, result: str(split), "smallest detectable gain"),
        (lambda split, result: str(result), "LIS of pairs, an estimate"),
        (lambda split, result: snapshot_table([result]), "warming-up|model-bound|at-ceiling|ceiling-not-binding"),
        (lambda split, result: render_standings(rank_recipes({"mine": Runs(best=[result])})), "mine"),
        (lambda split, result: render_audit(audit(split, ["pairs"])), "LIS of pairs"),
    ],
    ids=["split", "result", "snapshots", "leaderboard", "audit"],
)
def test_a_table_is_text(split, result, capsys, table, word):
    text = table(split, result)
    assert any(one in text for one in word.split("|"))
    assert "─" in text
    assert "\x1b" not in text
    assert capsys.readouterr().out == ""


def test_an_interval_without_a_value_is_a_dash():
    assert format_interval(0.01, 0.005, 0.015) == "+0.0100 [+0.0050, +0.0150]"
    assert format_interval(math.nan, 0.0, 0.0) == "-"
