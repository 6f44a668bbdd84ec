"""Races whose truth is known: who is dropped, who must not be, and what it costs."""

import re

import numpy as np
import pytest

from lis_lightning.cli.race_sweeper import RaceConf
from lis_lightning.errors import ConfigError
from lis_lightning.results.jobs import Job, jobs_in
from lis_lightning.results.leaderboard import Runs
from lis_lightning.results.race import cut, describe_cut, rung_steps
from lis_lightning.results.record import Record
from lis_lightning.results.snapshot import Snapshot

NUM_USERS, MAX_STEPS, RUNGS = 300, 200, [25, 50, 100]


def draw(truth, users, rng):
    """One recipe's test events: users that all recipes share, and what only its representation does to them."""
    influence = (users + 0.5 * rng.standard_normal(NUM_USERS)) * 1e-4
    shown = truth + influence.sum()
    return Snapshot(
        ais=shown, ais_low=shown - 0.003, ais_high=shown + 0.003, ais_geometry=0.0, auc_base=0.7, auc=0.7 + shown,
        step=5, split_hash="s", verdict="plateau", influence=influence - influence.mean(),
    )  # fmt: skip


def race(truths, rng):
    """Return the recipes dropped, the steps spent, and the recipe that is first at the end, and in the whole grid."""
    going, dropped, spent, before = list(truths), [], 0, 0
    users = rng.standard_normal(NUM_USERS)
    whole = {name: draw(truth, users, rng) for name, truth in truths.items()}
    for step in RUNGS:
        spent += (step - before) * len(going)
        before = step
        reached = 1 - 0.5 ** (step / 25)
        runs = {name: Runs(best=[draw(truths[name] * reached, users, rng)]) for name in going}
        decision = cut(runs, len(RUNGS))
        going, dropped = list(decision.survivors), [*dropped, *(standing.recipe for standing in decision.dropped)]
    spent += (MAX_STEPS - before) * len(going)
    return dropped, spent, max(going, key=lambda name: whole[name].ais), max(truths, key=lambda name: whole[name].ais)


def test_the_winner_of_the_grid_is_found_at_half_its_cost():
    truths = {"best": 0.03, "good": 0.02, "fair": 0.01, "weak": 0.005, "shuffled": 0.0, "collapsed": -0.002}
    races = [race(truths, np.random.default_rng(seed)) for seed in range(100)]
    assert all(first == grid == "best" for _, _, first, grid in races)
    assert max(spent for _, spent, _, _ in races) <= 0.5 * MAX_STEPS * len(truths)


def test_equals_are_kept():
    races = [race(dict.fromkeys("abcde", 0.02), np.random.default_rng(seed)) for seed in range(200)]
    assert sum(bool(dropped) for dropped, *_ in races) <= 0.08 * 200


def test_the_decision_names_who_goes_on_and_why_others_do_not():
    rng = np.random.default_rng(0)
    users = rng.standard_normal(NUM_USERS)
    runs = {name: Runs(best=[draw(truth, users, rng)]) for name, truth in {"a": 0.03, "b": 0.03, "c": 0.0}.items()}
    decision = cut({**runs, "broken": Runs(best=[], failed=1)}, 3)
    assert set(decision.survivors) == {"a", "b"}
    assert decision.leader == decision.survivors[0]
    assert [standing.recipe for standing in decision.dropped] == ["c"]
    assert decision.failed == ["broken"]
    lines = describe_cut(decision, 50)
    assert lines.startswith(f"race, step 50: 2 go on, {', '.join(decision.survivors)}\n  dropped c: AIS 0.03")
    assert lines.endswith("dropped broken: failed")


def test_more_rungs_ask_for_more_evidence():
    rng, users = np.random.default_rng(1), np.zeros(NUM_USERS)
    base = draw(0.0, users, rng)
    for gap in np.linspace(0.001, 0.004, 100):
        ahead = Snapshot(**{**vars(draw(0.0, users, np.random.default_rng(2))), "ais": base.ais + gap})
        once, often = (cut({"a": Runs(best=[ahead]), "b": Runs(best=[base])}, number) for number in (1, 10))
        if once.dropped and not often.dropped:
            return
    pytest.fail("no gap told one decision from ten")


def test_where_all_fail_nobody_goes_on():
    decision = cut({"a": Runs(best=[], failed=1)}, 1)
    assert (decision.leader, decision.survivors) == (None, [])
    assert describe_cut(decision, 4) == "race, step 4: 0 go on, none\n  dropped a: failed"


def test_rungs_fall_on_snapshots():
    assert rung_steps(200, 50, RaceConf().rungs) == [50, 100]
    assert rung_steps(1000, 50, RaceConf().rungs) == [100, 250, 500]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((200, 50, [0.5, 1.0]), r"above 0 and below 1, got \[0.5, 1.0\]"),
        ((200, 50, []), r"got \[\]"),
        ((200, 0, [0.5]), "lis.every_n_steps must be at least 1 optimizer step, got 0"),
        ((-1, 50, [0.5]), "give trainer.max_steps, got -1"),
        ((100, 100, [0.5]), r"before the last of 100 steps.*lis.every_n_steps=100 must be smaller, 12 for example"),
    ],
)
def test_races_that_cannot_be_held_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        rung_steps(*arguments)


STEPS = ["trainer.max_steps=12", "logger=csv", "data.num_users=300", "data.num_events=9000", "training.batch_size=16"]


def curves(folder):
    return {
        job.recipe: [snapshot.ais for snapshot in Record.read(path / job.record)[1]] for path, job in jobs_in(folder)
    }


@pytest.mark.slow
def test_a_job_that_pauses_goes_on_as_if_it_had_not(sweep, tmp_path):
    whole = sweep(tmp_path, "recipe=infonce,mixed", "sweep_name=grid", *STEPS)
    raced = sweep(tmp_path, "recipe=infonce,mixed", "sweep_name=race", "sweep=race", *STEPS)
    assert whole.returncode == raced.returncode == 0, raced.stderr[-3000:]
    folder = tmp_path / "outputs" / "sweeps"
    grid = curves(folder / "grid")
    for recipe, curve in curves(folder / "race").items():
        assert curve == grid[recipe][: len(curve)], "to the bit"
    steps = {job.recipe: job.steps for _, job in jobs_in(folder / "race")}
    assert max(steps.values()) == 12
    assert f"race: {sum(steps.values())} optimizer steps of the 24 of the full grid" in raced.stdout
    assert re.search(r"race, step 2: \d go on", raced.stdout)
    assert (folder / "race" / "leaderboard.csv").is_file()
    assert not list((folder / "race").rglob("paused.ckpt")) or min(steps.values()) < 12
    again = sweep(tmp_path, "recipe=infonce,mixed", "sweep_name=race", "sweep=race", *STEPS)
    assert again.stdout.count("is finished already") >= 4, "nothing is trained again"


@pytest.mark.slow
def test_pruning_in_a_race_is_refused(sweep, tmp_path):
    done = sweep(tmp_path, "sweep=race", "prune=true", "recipe=infonce,bpr", "logger=csv")
    assert done.returncode == 1
    assert "ConfigError: sweep=race drops what is behind by itself; leave prune=true out." in done.stderr


@pytest.mark.slow
def test_a_sweep_of_jobs_on_several_devices_is_refused_at_once(sweep, tmp_path):
    done = sweep(
        tmp_path, "trainer.strategy=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "seed=1,2", "logger=csv"
    )
    assert done.returncode == 1
    assert "ConfigError: A job of a sweep runs in one process, but trainer.strategy=ddp" in done.stderr
    assert not list(tmp_path.rglob("job.json")), "no job is taken for one that failed"


@pytest.mark.slow
def test_jobs_of_different_lengths_are_refused(sweep, tmp_path):
    done = sweep(tmp_path, "sweep=race", "trainer.max_steps=8,12", "logger=csv")
    assert done.returncode == 1
    assert "ConfigError: sweep=race compares runs of one length" in done.stderr
    assert "[(8, 2), (12, 2)]" in done.stderr
    assert Job.read(tmp_path) is None
