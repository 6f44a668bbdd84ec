"""Sweeps as a user meets them: resumed, with failures, compared at the end."""

import dataclasses
import json

import numpy as np
import polars as pl
import pytest

from lis_lightning.align.training.run import PAUSED
from lis_lightning.cli.hydra_plugins import _job_folder
from lis_lightning.cli.sweep import best_finished, report, run_once
from lis_lightning.results.jobs import JOB_FILE, Job, jobs_in, runs_in
from lis_lightning.results.record import Record
from lis_lightning.results.snapshot import Snapshot


class Ran:
    """What a run leaves, as far as a sweep looks at it."""

    def __init__(self, folder, ais, *, steps=5, paused=False, pruned=""):
        self.steps = steps
        self.paused = paused
        self.pruned = pruned
        self.best = result(ais)
        path = folder / "record.jsonl"
        record = Record.create(path, run_id="r", split_hash="s")
        record.append(result(ais / 2, step=0))
        record.append(self.best)
        self.record = path


def result(ais, step=5):
    return Snapshot(
        ais=ais, ais_low=ais - 0.001, ais_high=ais + 0.001, ais_geometry=0.0, auc_base=0.7, auc=0.7, step=step,
        split_hash="s", verdict="plateau", influence=np.random.default_rng(0).standard_normal(50) * 1e-4,
    )  # fmt: skip


def do(folder, ais=0.01, *, job=None, calls=None, retry=False, survive=True, error=None, **ran):
    def action():
        if calls is not None:
            calls.append(ais)
        if error is not None:
            raise error
        return Ran(folder, ais, **ran)

    return run_once(folder, job or Job(recipe="a", seed=0, digest="d"), action, retry=retry, survive=survive)


def test_a_finished_job_is_not_done_again_but_another_configuration_is(tmp_path):
    calls = []
    assert do(tmp_path, calls=calls) == do(tmp_path, calls=calls) == 0.01
    assert len(calls) == 1
    (tmp_path / "record.jsonl").unlink()
    do(tmp_path, 0.02, calls=calls, job=Job(recipe="a", seed=0, digest="other"))
    assert calls == [0.01, 0.02]


def test_a_failed_job_is_written_down_and_tried_again_on_request(tmp_path, capsys):
    calls = []
    assert np.isnan(do(tmp_path, calls=calls, error=ValueError("no luck")))
    assert np.isnan(do(tmp_path, calls=calls))
    told = capsys.readouterr().out
    assert "FAILED: ValueError: no luck" in told
    assert "failed before (ValueError: no luck); retry=true" in told
    assert len(calls) == 1
    assert do(tmp_path, calls=calls, retry=True) == 0.01
    assert Job.read(tmp_path).status == "finished"


def test_outside_a_sweep_a_failure_is_raised_and_written_down(tmp_path):
    with pytest.raises(ValueError, match="no luck"):
        do(tmp_path, survive=False, error=ValueError("no luck"))
    assert Job.read(tmp_path).status == "failed"


def test_a_job_that_paused_goes_on_where_more_is_asked(tmp_path):
    calls, paused = [], tmp_path / PAUSED
    first, last = (Job(recipe="a", seed=0, digest="d", stop_at=at) for at in (5, None))
    do(tmp_path, 0.01, calls=calls, job=first, paused=True)
    paused.parent.mkdir()
    paused.touch()
    assert Job.read(tmp_path).status == "paused"
    assert runs_in(tmp_path)["a"].best[0].ais == 0.01
    assert report(tmp_path) == 0, "to be dropped is not to fail"
    assert do(tmp_path, calls=calls, job=first) == 0.01
    (tmp_path / "record.jsonl").unlink()
    before = Job.read(tmp_path).seconds
    do(tmp_path, 0.02, calls=calls, job=last, steps=20)
    assert calls == [0.01, 0.02]
    assert (Job.read(tmp_path).status, Job.read(tmp_path).steps) == ("finished", 20)
    assert Job.read(tmp_path).seconds > before
    do(tmp_path, calls=calls, job=first)
    assert len(calls) == 2


def test_a_pruned_job_counts_with_what_it_reached_and_is_not_done_again(tmp_path, capsys):
    calls, told = [], Job(recipe="a", seed=0, digest="d", prune=True)
    do(tmp_path / "a", 0.01, calls=calls, job=told, pruned="AIS 0.0100 behind b at step 5 (p 1e-09)")
    do(tmp_path / "b", 0.02, job=Job(recipe="b", seed=0, digest="d", prune=True))
    assert Job.read(tmp_path / "a").status == "pruned"
    assert runs_in(tmp_path)["a"].best[0].ais == 0.01
    assert report(tmp_path) == 0, "to be pruned is not to fail"
    said = capsys.readouterr().out
    assert "1, 1 pruned" in said
    assert f"pruned: {tmp_path / 'a'} after 5 steps, AIS 0.0100 behind b at step 5 (p 1e-09)" in said
    table = pl.read_csv(tmp_path / "leaderboard.csv")
    assert dict(zip(table["recipe"], table["pruned"], strict=True)) == {"a": 1, "b": 0}
    assert do(tmp_path / "a", calls=calls, job=told) == 0.01
    assert calls == [0.01]
    (tmp_path / "a" / "record.jsonl").unlink()
    do(tmp_path / "a", 0.03, calls=calls, job=dataclasses.replace(told, prune=False))
    assert (calls, Job.read(tmp_path / "a").status) == ([0.01, 0.03], "finished")


def test_the_rival_is_the_best_of_the_finished_jobs(tmp_path):
    assert best_finished(tmp_path) is None
    do(tmp_path / "a", 0.01)
    do(tmp_path / "b", 0.02)
    do(tmp_path / "c", 0.05, pruned="behind")
    do(tmp_path / "d", error=ValueError("no luck"))
    rival = best_finished(tmp_path)
    assert (rival.name, rival.num_finished) == ("b", 2)
    assert [one.ais for one in rival.results] == [0.01, 0.02]


def test_the_checkpoint_of_another_configuration_is_not_gone_on_from(tmp_path):
    (tmp_path / PAUSED).parent.mkdir()
    (tmp_path / PAUSED).touch()
    do(tmp_path)
    assert not (tmp_path / PAUSED).exists()


@pytest.mark.parametrize("content", ["", "{", '{"recipe": "a"}', '{"recipe": "a", "seed": 0, "status": "running"}'])
def test_a_killed_job_is_done_again(tmp_path, content):
    (tmp_path / JOB_FILE).write_text(content)
    assert do(tmp_path) == 0.01


def test_seeds_go_together_and_what_varies_is_named(tmp_path):
    common = {"logger": "csv"}
    for recipe, seed, rate, ais in (("a", 0, "1", 0.01), ("a", 1, "1", 0.012), ("a", 0, "2", 0.02), ("b", 0, "1", 0.0)):
        folder = tmp_path / f"{recipe}{seed}{rate}"
        overrides = {**common, "seed": str(seed), "recipe": recipe, "rate": rate}
        do(folder, ais, job=Job(recipe=recipe, seed=seed, overrides=overrides, digest="d"))
    runs = runs_in(tmp_path)
    assert {name: [one.ais for one in found.best] for name, found in runs.items()} == {
        "a, rate=1": pytest.approx([0.01, 0.012]), "a, rate=2": [0.02], "b, rate=1": [0.0],
    }  # fmt: skip


def test_the_report_ranks_writes_and_counts_what_failed(tmp_path, capsys):
    do(tmp_path / "a", 0.02)
    do(tmp_path / "b", 0.001, job=Job(recipe="b", seed=0, digest="d"))
    do(tmp_path / "c", job=Job(recipe="c", seed=0, digest="d"), error=ValueError("no luck"))
    assert report(tmp_path) == 1
    table = pl.read_csv(tmp_path / "leaderboard.csv")
    assert table["recipe"].to_list() == ["a", "b", "c"]
    assert table["failed"].to_list() == [0, 0, 1]
    told = capsys.readouterr().out
    assert "a leads with AIS +0.0200" in told
    assert "not finished" in told
    assert report(tmp_path / "a" / "nothing") == 0


def test_a_job_is_what_its_file_says(tmp_path):
    job = Job(recipe="a", seed=3, overrides={"x": "1"}, digest="d", status="finished", best_ais=0.5, seconds=1.0)
    job.write(tmp_path)
    assert Job.read(tmp_path) == job
    assert [found for _, found in jobs_in(tmp_path)] == [job]
    assert json.loads((tmp_path / JOB_FILE).read_text()) == dataclasses.asdict(job)


@pytest.mark.slow
def test_a_sweep_goes_on_where_it_stopped_and_ends_with_a_leaderboard(sweep, tmp_path):
    done = sweep(tmp_path, "recipe=infonce,distill", "seed=1,2", "sweep_name=first")
    assert done.returncode == 0, done.stderr[-3000:]
    folder = tmp_path / "outputs" / "sweeps" / "first"
    table = pl.read_csv(folder / "leaderboard.csv")
    assert sorted(table["recipe"]) == ["distill", "infonce"]
    assert table["seeds"].to_list() == [2, 2]
    assert len(list(folder.glob("*/wandb/offline-run-*"))) == 4, "one W&B run a job"
    boards = sorted(folder.glob("wandb/offline-run-*"))
    assert len(boards) == 1
    before = {path: path.stat().st_mtime_ns for path in folder.rglob(JOB_FILE)}
    more = sweep(tmp_path, "recipe=infonce,distill,taxonomy", "seed=1,2", "sweep_name=first")
    assert more.returncode == 0, more.stderr[-3000:]
    assert more.stdout.count("is finished already") == 4
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())
    assert pl.read_csv(folder / "leaderboard.csv").height == 3
    again = sorted(folder.glob("wandb/offline-run-*"))
    assert {path.name.rpartition("-")[2] for path in again} == {boards[0].name.rpartition("-")[2]}, "one run for all"


@pytest.mark.slow
def test_a_job_that_cannot_keep_up_is_pruned_in_a_real_sweep(sweep, tmp_path):
    size = ["data.num_users=500", "data.num_items=200", "data.num_events=36000", "trainer.max_steps=40"]
    steps = ["lis.every_n_steps=10", "trainer.val_check_interval=40", "training.batch_size=128", "model=text"]
    rates = "training.learning_rate=0.005,1e-9"
    done = sweep(tmp_path, *size, *steps, rates, "logger=csv", "prune=true", "sweep_name=p")
    assert done.returncode == 0, done.stderr[-3000:]
    jobs = {job.overrides["training.learning_rate"]: job for _, job in jobs_in(tmp_path / "outputs/sweeps/p")}
    assert jobs["0.005"].status == "finished"
    assert jobs["1e-09"].status == "pruned"
    assert jobs["1e-09"].steps == 30, "at the first look after the warm-up"
    assert "pruned at step" in done.stdout


@pytest.mark.slow
def test_a_job_that_fails_does_not_stop_the_others(sweep, tmp_path):
    done = sweep(tmp_path, "lis.split.history=0,20", "logger=csv", "sweep_name=second")
    assert done.returncode == 1
    assert "FAILED: ConfigError: Expected `history`" in done.stdout
    assert "Traceback" not in done.stderr
    table = pl.read_csv(tmp_path / "outputs" / "sweeps" / "second" / "leaderboard.csv")
    assert table["failed"].to_list() == [0, 1]


def test_models_are_told_apart_by_their_last_part_in_labels_and_folders(tmp_path):
    for index, model in enumerate(["/models/v1/bert", "/models/v2/bert", "org/clip"]):
        Job(recipe="a", seed=0, overrides={"model.model": model}, status="failed").write(tmp_path / str(index))
    assert list(runs_in(tmp_path)) == ["a, model=v1/bert", "a, model=v2/bert", "a, model=org/clip"]
    names = [_job_folder("a", 0, f"model=text,model.model={model},x=1") for model in ("/models/my bert/", "org/clip")]
    assert names[0].startswith("a-my-bert-seed0-")
    assert names[1].startswith("a-clip-seed0-")
    assert _job_folder("a", 0, "model=text").startswith("a-seed0-")
