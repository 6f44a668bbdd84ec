"""The stop rule on simulated runs of known truth: decisions depend on training progress, not on the number of looks."""

import importlib
import math
import sys
from dataclasses import replace

import numpy as np
import pytest

from lis_lightning.cli import resource_dir
from lis_lightning.errors import ConfigError
from lis_lightning.functional.simultaneous import largest_fall_critical_value
from lis_lightning.results.stopping import StopRule, recent_trend, stop_reason
from lis_lightning.results.verdict import judge

SEEDS = range(3)  # of each noise level
MODULES = ("stop_rule", "simulated_runs")


@pytest.fixture(scope="module")
def study():
    """The study of the stop rule, with the simulator."""
    folder = str(resource_dir("recipes") / "stop_rule")
    sys.path.insert(0, folder)
    yield importlib.import_module("stop_rule")
    sys.path.remove(folder)
    for name in MODULES:
        sys.modules.pop(name)


def run(study, curve, number, *, seed=0, **noise):
    steps = study.snapshot_steps(number, "even")
    return study.simulated_run(steps, study.CURVES[curve](steps / study.NUM_STEPS), seed=seed, **noise)


@pytest.mark.parametrize("number", [10, 20, 50, 100, 200])
def test_a_linear_rise_is_hardly_cut_short_however_often_it_is_scored(study, number):
    lost, _ = study.lost_and_saved("linear", number, "even", SEEDS if number < 100 else SEEDS[:1])
    assert lost <= 0.05


@pytest.mark.parametrize("number", [10, 20, 50, 100, 200])
def test_a_curve_that_is_flat_after_a_third_saves_a_third_of_the_steps(study, number):
    lost, saved = study.lost_and_saved("flat after .3", number, "even", SEEDS if number < 100 else SEEDS[:1])
    assert lost <= 0.02
    assert saved >= 0.35


@pytest.mark.parametrize("curve", ["tau .1", "tau .2", "tau .4", "falls after .4"])
@pytest.mark.parametrize(("number", "spacing"), [(10, "even"), (50, "even"), (10, "geometric"), (50, "geometric")])
def test_a_curve_that_flattens_or_falls_loses_little(study, curve, number, spacing):
    lost, _ = study.lost_and_saved(curve, number, spacing, SEEDS)
    assert lost <= 0.05


def test_the_critical_fall_does_not_grow_without_end_with_the_number_of_looks(study):
    few, many = (np.array([result.influence for result in run(study, "flat", number)]) for number in (10, 100))
    assert largest_fall_critical_value(many) < largest_fall_critical_value(few) + 1.5


def test_the_same_run_scored_every_2_4_8_or_25_steps_keeps_nearly_the_same_best(study):
    """A run of 200 steps whose noise is that of its weights, as of the first notebook; often or seldom looked at."""
    steps = np.arange(0, 201, 1)
    truth = study.CURVES["tau .4"](steps / 200)
    for seed in range(4):
        noisy = study.simulated_run(steps * 5, truth, seed=seed, paired_se=0.0008, memory=0.1)
        fine = [replace(result, step=result.step // 5) for result in noisy]
        best = []
        for every in (2, 4, 8, 25):
            results = fine[::every]
            best.append(max(result.ais for result in results[: study.stopped_at(results, max_steps=200) + 1]))
        assert min(best) > 0.95 * max(best)


def test_jitter_of_training_that_users_do_not_explain_widens_the_bound(study):
    smooth = run(study, "flat", 50)
    jitter = np.random.default_rng(0).normal(0, 0.003, len(smooth))
    rough = [replace(result, ais=result.ais + extra) for result, extra in zip(smooth, jitter, strict=True)]
    assert recent_trend(rough, StopRule()).slope.se > 2 * recent_trend(smooth, StopRule()).slope.se


def test_the_slope_is_that_of_least_squares_and_its_error_is_honest(study):
    errors = []
    for seed in range(200):
        results = run(study, "linear", 20, seed=seed)
        trend = recent_trend(results, StopRule())
        errors.append((1000 * trend.slope.value - 0.03) / (1000 * trend.slope.se))
    chosen = [result for result in results if result.step >= trend.first_step]
    slope = np.polyfit([result.step for result in chosen], [result.ais for result in chosen], 1)[0]
    assert trend.slope.value == pytest.approx(slope)
    assert 0.85 < np.std(errors) < 1.1


def test_a_flat_run_is_seldom_called_improving_or_past_its_best_at_any_of_fifty_looks(study):
    """Seeds that neither the thresholds nor the correction were chosen on."""
    shares = study.verdict_counts("flat", 50, range(7000, 7007))
    assert shares.get("improving", 0.0) <= 0.05
    assert shares.get("past-its-best", 0.0) <= 0.05


@pytest.mark.parametrize("number", [10, 50])
def test_a_fall_by_a_fifth_is_found(study, number):
    verdicts = [judge(run(study, "falls after .4", number, seed=seed), max_steps=1000).verdict for seed in range(20)]
    assert verdicts.count("past-its-best") >= 16


@pytest.mark.parametrize("number", [10, 50])
def test_a_fall_by_a_fifth_is_overfitting_where_the_training_loss_still_falls(study, number):
    found = 0
    for seed in range(8000, 8020):
        results = run(study, "falls after .4", number, seed=seed)
        learning = [replace(result, train_loss=1.0 / (1 + result.step)) for result in results]
        found += judge(learning, max_steps=1000).verdict == "overfitting"
    assert found >= 16


def test_a_run_without_a_plan_is_asked_for_half_as_many_steps_again(study):
    results = run(study, "flat", 20, paired_se=0.0002)
    assert "the next 500 steps add at most" in stop_reason(results)
    assert stop_reason(run(study, "linear", 20)) == ""


def test_a_relevant_pace_per_1000_steps_replaces_the_share_of_the_best(study):
    results = run(study, "tau .2", 50)
    slow, fast = (StopRule(min_gain_per_1000_steps=pace) for pace in (0.0001, 0.02))
    assert study.stopped_at(results, fast) < study.stopped_at(results, slow)
    reason = stop_reason(results[: study.stopped_at(results, fast) + 1], fast, 1000)
    assert "AUC per 1,000 steps" in reason


def test_a_surer_rule_stops_later(study):
    results = run(study, "flat after .3", 50)
    stops = [study.stopped_at(results, StopRule(confidence=confidence)) for confidence in (0.5, 0.85, 0.999)]
    assert stops == sorted(stops)
    assert stops[0] < stops[2]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("min_gain", -0.1, "a number of at least 0, got -0.1"),
        ("min_gain_share", 5, r"a number in \[0, 1\], got 5"),
        ("min_gain_per_1000_steps", "fast", "a number of at least 0, got 'fast'"),
        ("confidence", 0.3, r"a number in \[0.5, 0.9999\], got 0.3"),
        ("window", 0, r"a number in \[0.05, 1\], got 0"),
        ("min_progress", True, r"a number in \[0, 1\], got True"),
        ("significance", 0.9, r"a number in \[1e-06, 0.5\], got 0.9"),
        ("relevant_gain", 0.0, r"a number in \[1e-06, 1\], got 0.0"),
        ("model_bound_below", math.nan, "a number of at least 0, got nan"),
        ("collapsed_below", None, "a number of at least 0, got None"),
    ],
)
def test_bad_thresholds_are_refused(name, value, message):
    with pytest.raises(ConfigError, match=f"Expected `{name}` of the stop rule to be {message}"):
        StopRule(**{name: value})
