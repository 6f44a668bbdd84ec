"""The end of a run's output: files first, then what came out, and the report at last."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from lis_lightning.align.training.console import summary
from lis_lightning.align.training.run import Run
from tests._helpers.small_results import RESULTS


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Run(
        RESULTS, RESULTS[1], tmp_path / "best.ckpt", None, tmp_path / "out" / "report.html", revealed_gain=0.012,
        steps=30, paused=False, seconds=61.0,
    )  # fmt: skip


def test_it_ends_with_the_result_and_the_report(run):
    lines = summary(run, "lis-encode best.ckpt").splitlines()
    assert lines[0] == "vectors of these items, or of a table of others: lis-encode best.ckpt"
    assert lines[-4:] == [
        "best step 20: AIS +0.0060 [+0.0050, +0.0070]",
        f"verdict after 30 steps in 61 s: {RESULTS[-1].verdict}, {RESULTS[-1].message}",
        "known truth: the latents that content reveals gain +0.0120; the best snapshot reaches 50% of it "
        f"(raw: {RESULTS[0].ais / 0.012:.0%})",
        "report: out/report.html",
    ]


def test_a_run_on_real_data_has_no_truth_and_one_without_a_command_names_its_checkpoint(run):
    text = summary(replace(run, revealed_gain=math.nan))
    assert "known truth" not in text
    assert text.startswith("checkpoint: best.ckpt\n")
    elsewhere = replace(run, checkpoint=Path("/elsewhere/best.ckpt"), paused=True)
    assert summary(elsewhere).startswith("checkpoint: /elsewhere/best.ckpt\npaused at step 30\n")
