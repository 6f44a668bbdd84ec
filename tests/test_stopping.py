from dataclasses import replace

import numpy as np
import pytest

from lis_lightning.errors import ConfigError
from lis_lightning.functional.intervals import Estimate, cluster_interval
from lis_lightning.result import Ceiling, LISResult, Placebo
from lis_lightning.stopping import VERDICTS, StopRule, judge

USERS = 200


def influence(se, seed):
    values = np.random.default_rng(seed).standard_normal(USERS)
    values -= values.mean()
    return values * se / np.sqrt(USERS / (USERS - 1) * (values @ values))


def make(ais, step, *, limit=0.02, limit_se=0.001, se=0.001, seen=None, unseen=None, rank=30.0, **kwargs):
    """A result whose noise is mostly shared with the others of its run, as that of snapshots is."""
    own = influence(se, 0) + influence(se / 5, step + 1)
    gain = cluster_interval(ais, own)
    base = influence(limit_se, 99)
    edge = cluster_interval(limit, base)
    return LISResult(
        ais=ais,
        ais_low=gain.low,
        ais_high=gain.high,
        ais_geometry=ais,
        auc_base=0.7,
        auc=0.7 + ais,
        ais_seen=ais if seen is None else seen,
        ais_unseen=ais if unseen is None else unseen,
        realised=ais / limit,
        realised_high=kwargs.pop("realised_high", ais / limit + 0.1),
        ceilings={"pairs": Ceiling(value=limit, low=edge.low, high=edge.high, influence=base)},
        companions={"rankme": rank},
        num_events=10_000,
        step=step,
        influence=own,
        **kwargs,
    )


def run(*gains, **kwargs):
    return [make(gain, 100 * index, **kwargs) for index, gain in enumerate(gains)]


def test_a_dip_during_warm_up_does_not_stop():
    results = run(0.004, 0.001, 0.001, 0.006, 0.009)
    assert not any(judge(results[: n + 1]).stop for n in range(len(results)))
    assert judge(results).verdict == "improving"


def test_two_successive_falls_stop_and_one_does_not():
    falling = run(0.004, 0.005, 0.006, 0.010, 0.004, 0.003)
    assert not judge(falling[:5]).stop
    judgement = judge(falling)
    assert judgement.stop
    assert judgement.verdict == "overfitting"
    assert judgement.best == 3
    assert "step 300" in judgement.message


def test_memorising_items_is_told_from_overfitting():
    results = [
        *run(0.004, 0.005, 0.006, 0.010),
        make(0.004, 400, seen=0.009, unseen=0.0),
        make(0.003, 500, seen=0.009, unseen=-0.002),
    ]
    assert judge(results).verdict == "overfitting-items"
    assert "+0.0110" in judge(results).message


def test_a_plateau_stops_after_three_flat_evaluations():
    results = run(0.001, 0.005, 0.012, 0.015, 0.0149, 0.0149, 0.0149, se=0.0005)
    assert not judge(results[:6]).stop
    judgement = judge(results)
    assert judgement.stop
    assert judgement.verdict == "plateau"


def test_a_plateau_far_below_the_ceiling_is_model_bound():
    results = run(0.001, 0.004, 0.005, 0.006, 0.0059, 0.0059, 0.0059, se=0.0005)
    judgement = judge(results)
    assert judgement.verdict == "model-bound"
    assert "the model or its training is the bottleneck" in judgement.message


def test_the_ceiling_stops():
    results = run(0.001, 0.010, 0.015, 0.0199)
    assert judge(results).verdict == "at-ceiling"
    assert judge(results).stop


def test_a_ceiling_that_does_not_bind_is_said_and_does_not_stop():
    judgement = judge(run(0.001, 0.010, 0.015, 0.0400))
    assert judgement.verdict == "ceiling-not-binding"
    assert not judgement.stop


def test_a_ceiling_around_zero_is_data_bound():
    judgement = judge(run(0.0, 0.0, limit=0.0003, limit_se=0.0003, se=0.0003))
    assert judgement.verdict == "data-bound"
    assert "+0.0003" in judgement.message
    assert "more training will not help" in judgement.message


def test_a_split_too_small_is_underpowered_and_names_the_events_needed():
    judgement = judge(run(0.0, limit=0.001, limit_se=0.02, se=0.02))
    assert judgement.verdict == "underpowered"
    assert "10000 test events show gains from 0.056 only. About 78" in judgement.message


def test_collapse_and_failed_placebo_override():
    assert judge(run(0.004, rank=1.0)).verdict == "collapsed"
    off = Estimate(value=0.004, se=0.001, low=0.002, high=0.006)
    fine = Estimate(value=0.0, se=0.0, low=0.0, high=0.0)
    results = run(0.004, 0.005)
    marked = [replace(results[0], placebo=Placebo(permuted=off, random=fine)), results[1]]
    assert judge(marked).verdict == "placebo-failed"
    assert "+0.0040 (rows permuted)" in judge(marked).message


def test_gain_z_is_paired_against_the_best_before():
    results = run(0.004, 0.006, 0.005)
    expected = results[2].compare(results[1])
    assert judge(results).gain_z == expected.z
    assert abs(expected.z) > 2 * abs((0.005 - 0.006) / np.hypot(results[2].se, results[1].se))
    assert np.isnan(judge(results[:1]).gain_z)


def test_every_verdict_is_known():
    assert judge(run(0.001)).verdict in VERDICTS
    assert len(set(VERDICTS)) == len(VERDICTS) == 12


def test_bad_rules_and_no_results_are_refused():
    with pytest.raises(ConfigError, match="`falling_patience` of at least 1, got 0"):
        StopRule(falling_patience=0)
    with pytest.raises(ConfigError, match="`warmup` of at least 0, got -1"):
        StopRule(warmup=-1)
    with pytest.raises(ConfigError, match="list of results is empty"):
        judge([])
