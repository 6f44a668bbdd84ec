"""The curve as a figure: what is drawn, where, and from which numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lis_lightning.errors import ConfigError
from lis_lightning.report.curve import curve_figure
from lis_lightning.results.result import Ceiling
from lis_lightning.results.snapshot import Snapshot


def result(step, ais):
    ceilings = {"pairs": Ceiling(value=0.02, low=0.018, high=0.022), "ids": Ceiling(value=0.01, low=-math.inf, high=1)}
    return Snapshot(
        ais=ais, ais_low=ais - 0.001, ais_high=ais + 0.002, ais_geometry=ais / 2, auc_base=0.7, auc=0.7 + ais,
        step=step, ceilings=ceilings, influence=np.zeros(3), verdict="improving",
    )  # fmt: skip


RESULTS = [result(0, 0.001), result(50, 0.012), result(100, 0.008)]


def traces(figure):
    return {trace.name: trace for trace in figure.data}


def test_the_band_runs_along_the_upper_ends_and_back_along_the_lower_ones():
    band = traces(curve_figure(RESULTS))["AIS, 95 %"]
    assert list(band.x) == [0, 50, 100, 100, 50, 0]
    assert list(band.y) == pytest.approx([0.003, 0.014, 0.010, 0.007, 0.011, 0.0])


def test_a_ceiling_is_a_line_with_its_band_from_end_to_end():
    drawn = traces(curve_figure(RESULTS))
    assert (list(drawn["LIS of pairs (estimate)"].x), list(drawn["LIS of pairs (estimate)"].y)) == (
        [0, 100],
        [0.02, 0.02],
    )
    assert list(drawn["LIS of pairs, 95 %"].y) == [0.022, 0.022, 0.018, 0.018]
    assert "LIS of ids (estimate)" in drawn
    assert "LIS of ids, 95 %" not in drawn  # an interval without an end has no band


def test_the_best_snapshot_is_marked():
    marks = [trace for trace in curve_figure(RESULTS).data if trace.name.startswith("best")]
    assert [(trace.name, list(trace.x), list(trace.y)) for trace in marks] == [("best: step 50", [50], [0.012])]


def test_a_snapshot_without_a_score_is_never_the_best():
    drawn = traces(curve_figure([result(0, math.nan), result(10, 0.001)]))
    assert "best: step 10" in drawn
    assert not any(name.startswith("best") for name in traces(curve_figure([result(0, math.nan)])))


def test_references_are_lines_with_their_names():
    assert list(traces(curve_figure(RESULTS, {"known truth": 0.015}))["known truth"].y) == [0.015, 0.015]


def test_nothing_to_draw_is_said():
    with pytest.raises(ConfigError, match="list of results is empty"):
        curve_figure([])
