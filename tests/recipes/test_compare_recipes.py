"""Sweeps whose outcome is known, written as jobs write themselves; and one that is real, and small."""

import dataclasses
import importlib.util
import sys

import numpy as np
import pytest

from lis_lightning.cli import resource_dir
from lis_lightning.errors import ConfigError
from lis_lightning.results import Job, Record, Snapshot, jobs_in


@pytest.fixture
def compare(monkeypatch):
    path = resource_dir("recipes") / "compare_recipes" / "compare.py"
    spec = importlib.util.spec_from_file_location("compare_recipes", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def result(ais, verdict, step):
    return Snapshot(
        ais=ais, ais_low=ais - 0.001, ais_high=ais + 0.001, ais_geometry=0.0, auc_base=0.7, auc=0.7, step=step,
        split_hash="s", verdict=verdict, influence=np.random.default_rng(step).standard_normal(50) * 1e-5,
    )  # fmt: skip


def ran(folder, recipe, seed, ais, verdict="improving", *, steps=20, status="finished", seconds=60.0):
    place = folder / f"{recipe}-{seed}"
    place.mkdir(parents=True)
    record = Record.create(place / "record.jsonl", run_id="r", split_hash="s")
    record.append(result(0.0, "warming-up", 0))
    record.append(result(ais, verdict, steps))
    Job(
        recipe=recipe, seed=seed, status=status, steps=steps, best_ais=ais, record="record.jsonl", seconds=seconds
    ).write(place)


@pytest.fixture
def sweeps(tmp_path):
    for seed in (1, 2):
        ran(tmp_path / "all", "infonce", seed, 0.03 + seed * 1e-5)
        ran(tmp_path / "all", "bpr", seed, 0.02 + seed * 1e-5)
        ran(tmp_path / "all", "shuffled", seed, 0.002, "data-bound" if seed == 1 else "plateau")
        ran(tmp_path / "all", "attraction", seed, 0.0005, "collapsed")
        ran(tmp_path / "race", "infonce", seed, 0.01, steps=5, status="paused", seconds=15.0)
        ran(tmp_path / "race", "bpr", seed, 0.02)
        ran(tmp_path / "race", "shuffled", seed, 0.002, steps=5, status="paused", seconds=15.0)
        ran(tmp_path / "race", "attraction", seed, 0.0005, steps=5, status="paused", seconds=15.0)
    return tmp_path


def test_everything_is_told_of_a_finished_sweep_and_its_race(compare, sweeps, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["compare.py", "--read", f"{sweeps}/all", "--race", f"{sweeps}/race"])
    compare.main()
    told = capsys.readouterr().out
    assert "infonce leads with AIS +0.0300, clearly before all others." in told
    assert "shuffled             place 3 of 5, behind, no recipe below it" in told
    assert "raw                  place 5 of 5, behind, no recipe below it" in told
    assert "shuffled             data-bound x1, plateau x1   expected data-bound: 1 of 2 runs" in told
    assert "attraction           collapsed x2   expected collapsed: 2 of 2 runs" in told
    assert "infonce              improving x2\n" in told
    assert "grid 160 steps, 8.0 minutes; race 70 steps (44%), 3.5 minutes (44%)" in told
    assert "trained to the end in the race: bpr\n" in told
    assert "leader of the grid infonce, of the race bpr, which is 0.0100 behind it in the grid" in told


def test_a_recipe_below_a_control_is_named(compare, tmp_path):
    for recipe, ais in (("infonce", 0.03), ("shuffled", 0.01), ("dpo", 0.005)):
        ran(tmp_path, recipe, 1, ais)
    assert compare.controls(compare.places_of(tmp_path)) == [
        "  shuffled             place 2 of 4, behind, dpo below it",
        "  raw                  place 4 of 4, behind, no recipe below it",
    ]


def test_a_run_that_failed_has_no_verdict(compare, tmp_path):
    ran(tmp_path, "shuffled", 1, 0.002, "data-bound")
    ran(tmp_path, "shuffled", 2, 0.0, status="failed")
    assert compare.verdicts(tmp_path) == [
        "  shuffled             data-bound x1, failed x1   expected data-bound: 1 of 2 runs"
    ]


def test_what_cannot_be_compared_is_refused(compare, sweeps):
    with pytest.raises(ConfigError, match="holds no run that came to an end"):
        compare.places_of(sweeps / "race" / "nothing")
    with pytest.raises(ConfigError, match="holds no job"):
        compare.cost(sweeps / "all", sweeps / "nothing")
    ((place, job), *_) = jobs_in(sweeps / "race")
    dataclasses.replace(job, seed=9).write(place)
    with pytest.raises(ConfigError, match=r"same recipes and seeds, but \[\('attraction', 1\), \('attraction', 9\)\]"):
        compare.cost(sweeps / "all", sweeps / "race")


@pytest.mark.slow
def test_both_sweeps_are_run_and_read(compare, tmp_path, monkeypatch, capsys):
    small = [
        "data.num_users=120", "data.num_items=60", "data.num_events=4000", "trainer.max_steps=4", "logger=csv",
        "lis.every_n_steps=2", "trainer.val_check_interval=2", "training.batch_size=8", "model=text",
    ]  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["compare.py", "recipe=infonce,shuffled", "seed=1", *small])
    compare.main()
    told = capsys.readouterr().out
    assert "shuffled" in told.partition("controls")[2]
    assert "race against grid\n  grid 8 steps" in told
    with pytest.raises(ConfigError, match="The sweep 'bad' ended with code 1"):
        compare.sweep("bad", "recipe=infonec")
