"""Sweeps by the plugins that users install: in processes, by submitit, and by optuna's choice."""

import polars as pl
import pytest
import yaml

from lis_lightning.results.jobs import jobs_in

LOSSES = """
import os
from pathlib import Path

from lis_lightning.align.objectives import PairContrastive


class Seen(PairContrastive):
    def __init__(self, **options):
        super().__init__(**options)
        (Path(__file__).parent / f"{os.getpid()}.pid").touch()
"""


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A user's folder, whose objective leaves the number of the process that it lives in."""
    folder = tmp_path / "lab"
    (folder / "recipe").mkdir(parents=True)
    (folder / "losses.py").write_text(LOSSES)
    recipe = {"defaults": [{"override /objective": ["pairs"]}], "objectives": {"pairs": {"_target_": "losses.Seen"}}}
    (folder / "recipe" / "seen.yaml").write_text(f"# @package _global_\n{yaml.safe_dump(recipe)}")
    monkeypatch.setenv("LIS_RECIPES", str(folder))
    return folder


@pytest.mark.slow
def test_joblib_runs_jobs_in_processes_with_the_users_python(lab, sweep, tmp_path):
    done = sweep(tmp_path, "sweep=joblib", "recipe=seen", "seed=1,2", "sweep_name=j", "logger=csv")
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(list(lab.glob("*.pid"))) == 2
    assert pl.read_csv(tmp_path / "outputs/sweeps/j/leaderboard.csv")["seeds"].to_list() == [2]


@pytest.mark.slow
def test_submitit_runs_jobs_as_jobs_of_their_own(lab, sweep, tmp_path):
    local = ["sweep=submitit", "hydra/launcher=submitit_local", "hydra.launcher.gpus_per_node=0"]
    done = sweep(tmp_path, *local, "recipe=seen", "seed=1,2", "sweep_name=s", "logger=csv")
    assert done.returncode == 0, done.stderr[-3000:]
    folder = tmp_path / "outputs" / "sweeps" / "s"
    assert len(list(lab.glob("*.pid"))) == 2
    assert len(list(folder.glob(".submitit/*/*_submitted.pkl"))) == 2
    assert {job.status for _, job in jobs_in(folder)} == {"finished"}
    assert (folder / "leaderboard.csv").is_file()


@pytest.mark.slow
def test_optuna_keeps_the_best_ais(sweep, tmp_path):
    done = sweep(tmp_path, "sweep=optuna", "hydra.sweeper.n_trials=2", "sweep_name=o", "logger=csv")
    assert done.returncode == 0, done.stderr[-3000:]
    folder = tmp_path / "outputs" / "sweeps" / "o"
    best = yaml.safe_load((folder / "optimization_results.yaml").read_text())
    assert best["best_value"] == max(job.best_ais for _, job in jobs_in(folder))
    assert 1e-4 <= best["best_params"]["training.learning_rate"] <= 2e-2
    assert pl.read_csv(folder / "leaderboard.csv").height == 2
