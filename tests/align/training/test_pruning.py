"""Who is pruned, who must not be, and how often luck would."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from lis_lightning.align.training.pruning import SIGNIFICANCE, Pruning, Rival, behind
from lis_lightning.errors import LisWarning
from lis_lightning.results.snapshot import Snapshot
from lis_lightning.results.stopping import StopRule

NUM_USERS = 300
EXACT = StopRule(min_gain=0.0, min_gain_share=0.0)  # no margin: the error is as large as it may be


def draw(truth, users, rng, step=10):
    """A job's test events: users that all jobs share, and what only its representation does to them."""
    influence = (users + 0.5 * rng.standard_normal(users.size)) * 1e-4
    shown = truth + influence.sum()
    return Snapshot(
        ais=shown, ais_low=shown - 0.003, ais_high=shown + 0.003, ais_geometry=0.0, auc_base=0.7, auc=0.7 + shown,
        step=step, split_hash="s", influence=influence - influence.mean(),
    )  # fmt: skip


def rival_of(*results, num_finished=1):
    return Rival(name="infonce-seed0", results=results, num_finished=num_finished)


def test_a_job_that_is_clearly_behind_is_told_apart_and_named():
    rng = np.random.default_rng(0)
    users = rng.standard_normal(NUM_USERS)
    said = behind(draw(0.0, users, rng), rival_of(draw(0.02, users, rng)), 1, StopRule())
    assert said.startswith("AIS 0.0")
    assert "behind infonce-seed0 at step 10 (p " in said


def test_an_equal_or_better_job_is_not():
    rng = np.random.default_rng(0)
    users = rng.standard_normal(NUM_USERS)
    for truth in (0.02, 0.03):
        assert behind(draw(truth, users, rng), rival_of(draw(0.02, users, rng)), 1, StopRule()) is None


def test_what_is_significant_but_too_little_to_matter_prunes_nobody():
    rng = np.random.default_rng(0)
    ours = draw(0.02, np.zeros(NUM_USERS), rng)
    ahead = replace(ours, ais=ours.ais + 0.0009, influence=ours.influence * 1.001)
    assert ours.compare(ahead).z < -100
    assert behind(ours, rival_of(ahead), 1, StopRule()) is None, "a twentieth of the best AIS counts as no change"
    assert behind(ours, rival_of(ahead), 1, EXACT) is not None


@pytest.mark.parametrize("change", [{"step": 20}, {"split_hash": "t"}, {"influence": np.zeros(3)}])
def test_only_the_same_step_of_the_same_split_is_compared(change):
    rng = np.random.default_rng(0)
    users = rng.standard_normal(NUM_USERS)
    other = replace(draw(0.9, users, rng), **change)
    assert behind(draw(0.0, users, rng), rival_of(other), 1, StopRule()) is None


def falsely_pruned(rng, num_jobs, num_looks):
    """Whether a job is pruned that is as good as each of `num_jobs` finished ones, at every look."""
    users = rng.standard_normal(NUM_USERS)
    finished = [[draw(0.02, users, rng, step) for step in range(num_looks)] for _ in range(num_jobs)]
    best = max(finished, key=lambda results: max(one.ais for one in results))
    rival = rival_of(*best, num_finished=num_jobs)
    return any(behind(draw(0.02, users, rng, step), rival, step + 1, EXACT) for step in range(num_looks))


@pytest.mark.parametrize(("num_jobs", "num_looks"), [(1, 1), (1, 12), (6, 1), (6, 12)])
def test_equals_are_pruned_no_more_often_than_stated(num_jobs, num_looks):
    number = 1000 if num_looks == 1 else 250
    hits = sum(falsely_pruned(np.random.default_rng(seed), num_jobs, num_looks) for seed in range(number))
    assert hits <= number * SIGNIFICANCE + 2 * np.sqrt(number * SIGNIFICANCE * (1 - SIGNIFICANCE)), (
        "5 % and two standard errors of counting"
    )


def test_without_correction_it_would_be_more_often():
    hits = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        users = rng.standard_normal(NUM_USERS)
        best = max((draw(0.02, users, rng) for _ in range(12)), key=lambda one: one.ais)
        hits += behind(draw(0.02, users, rng), rival_of(best, num_finished=1), 1, EXACT) is not None
    assert hits > 2 * SIGNIFICANCE * 300


class Strategy:
    def broadcast(self, value):
        return value


def look(results, rival, *, rule=None):
    """Judge the newest of some results as in a fit; return the callback and whether the fit is told to stop."""
    monitor = SimpleNamespace(results=results, rule=rule or StopRule(), listeners=[])
    trainer = SimpleNamespace(is_global_zero=True, strategy=Strategy(), should_stop=False)
    pruning = Pruning(monitor, rival)
    pruning.setup(trainer, None, "fit")
    for listener in monitor.listeners:
        listener(trainer, None)
    pruning.teardown(trainer, None, "fit")
    assert monitor.listeners == []
    return pruning, trainer.should_stop


def curves():
    rng = np.random.default_rng(0)
    users = rng.standard_normal(NUM_USERS)
    return ([draw(truth, users, rng, step) for step in range(5)] for truth in (0.0, 0.02))


def test_a_fit_is_ended_after_the_warm_up_and_not_in_it():
    bad, good = curves()
    rival = rival_of(*good)
    for number, stopped in ((1, False), (2, False), (3, False), (4, True)):
        pruning, told = look(bad[:number], lambda: rival)
        assert told is stopped
        assert bool(pruning.reason) is stopped
        assert pruning.looks == int(stopped), "the raw snapshot and two of warm-up are no looks"


def test_before_a_job_has_finished_nobody_is_ended():
    bad, _ = curves()
    pruning, told = look(bad, lambda: None)
    assert (told, pruning.looks) == (False, 0)


def test_files_of_other_jobs_that_cannot_be_read_end_no_training():
    bad, _ = curves()

    def broken():
        raise OSError("gone")

    with pytest.warns(LisWarning, match="cannot be read: OSError: gone"):
        _, told = look(bad, broken)
    assert not told


def test_looks_before_a_pause_count():
    pruning = Pruning(SimpleNamespace(), lambda: None)
    pruning.load_state_dict({"looks": 3})
    assert pruning.state_dict() == {"looks": 3}
