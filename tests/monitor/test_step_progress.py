"""Lines about work in steps that takes long, and those of the ceilings at the first snapshot."""

from functools import partial

import numpy as np

from lis_lightning.monitor import snapshot_scorer
from lis_lightning.monitor.snapshot_scorer import SnapshotScorer
from lis_lightning.monitor.step_progress import StepProgress
from lis_lightning.scoring.options import ScoreOptions
from tests._helpers.small_run import make_split


def lines(seconds, **options):
    clock, told = iter([0.0, *seconds]), []
    progress = StepProgress("lis-audit", told.append, clock=lambda: next(clock), **options)
    for number in range(len(seconds)):
        progress(f"step {number}", number, len(seconds))
    return told


def test_quick_work_reports_nothing_and_long_work_at_intervals():
    assert lines([0, 3, 6, 9], patience=10, interval=10) == []
    assert lines([0, 30, 35, 60], patience=10, interval=10) == [
        "lis-audit: step 1 (2 of 4), about 90 s left",
        "lis-audit: step 3 (4 of 4), about 20 s left",
    ]


def test_the_first_score_reports_its_ceilings_if_they_take_long_and_measures_them_once(monkeypatch):
    split, told, seconds = make_split(), [], iter([0.0, 0.0, 30.0])
    monkeypatch.setattr(snapshot_scorer, "rank_zero_info", told.append)
    monkeypatch.setattr(snapshot_scorer, "StepProgress", partial(StepProgress, clock=lambda: next(seconds)))
    scorer = SnapshotScorer(split, ScoreOptions(placebo=False), "off", progress=True)
    scorer._measure_ceilings()
    assert told == ["LISMonitor: LIS of ids (2 of 2), about 30 s left"]
    measured = scorer.scorer.ceiling("ids")
    result = scorer.scorer.score(np.random.default_rng(0).standard_normal((split.num_items, 4)), scorer.options)
    assert result.ceilings["ids"] is measured
