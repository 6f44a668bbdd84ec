import shutil
from dataclasses import replace

import pytest

from lis_lightning.errors import ConfigError, LisWarning, RecordError
from lis_lightning.report import RecordedRun, find_runs, recorded_run
from lis_lightning.report.page import render_report
from lis_lightning.report.runs import by_split, same_split
from lis_lightning.report.terminal import render_text
from lis_lightning.results.jobs import Job
from lis_lightning.results.record import Record


def test_a_run_is_found_by_its_folder_a_folder_above_and_its_record(one_run):
    for path in (one_run, one_run.parent, one_run / "record.jsonl"):
        (run,) = find_runs([path])
        assert run.name == "my-run"
        assert [one.step for one in run.results] == [0, 25, 50, 75, 100, 125, 150]
        assert run.ended
        assert run.split["users"] == 150
        assert sorted(run.times) == [0, 25, 50, 75, 100, 125, 150]
        assert run.catalogue is not None


def test_a_run_that_is_named_twice_is_shown_once(one_run):
    assert len(find_runs([one_run, one_run.parent, one_run / "record.jsonl"])) == 1


def test_runs_of_a_sweep_go_by_recipe_and_seed(runs):
    assert [run.name for run in runs] == [
        f"{name} seed {seed}" for name in ("control", "good", "weak") for seed in (1, 2)
    ]


def test_runs_of_one_folder_name_are_told_apart(write_run, tmp_path):
    write_run(tmp_path / "a" / "run", num=2)
    write_run(tmp_path / "b" / "run", num=2)
    assert [run.name for run in find_runs([tmp_path])] == ["a/run", "b/run"]


def test_a_run_goes_by_its_name_in_a_tracker(write_run, tmp_path):
    for folder, name in (("k3x9", "bold-fog-1"), ("q7v2", "calm-sea-2"), ("version_0", "")):
        write_run(tmp_path / folder, num=2, items=False, run_name=name)
    found = find_runs([tmp_path])
    assert [run.name for run in found] == ["bold-fog-1", "calm-sea-2", "version_0"]
    assert "run_name" not in found[0].settings


def test_runs_of_one_tracked_name_are_told_apart_by_their_folders(write_run, tmp_path):
    for folder in ("k3x9", "q7v2"):
        write_run(tmp_path / folder, num=2, items=False, run_name="again")
    assert [run.name for run in find_runs([tmp_path])] == ["again (k3x9)", "again (q7v2)"]


def test_a_run_that_goes_on_or_was_killed_is_shown_as_far_as_it_came(write_run, tmp_path):
    record = write_run(tmp_path / "run", ended=False, num=3)
    with record.open("ab") as file:
        file.write(b'{"crc32":"00000000","payl')
    (run,) = find_runs([tmp_path])
    assert not run.ended
    assert len(run.results) == 3


def test_failures_of_a_run_are_listed(write_run, tmp_path):
    from lis_lightning.results.record import Record

    Record.open(write_run(tmp_path / "run", num=2, ended=False)).status(
        "failure", part="snapshot", step=50, error="no luck"
    )
    (run,) = find_runs([tmp_path])
    assert run.failures == ["part snapshot, step 50, error no luck"]


def test_what_is_not_there_is_said_and_so_is_what_cannot_be_read(write_run, tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere does not exist. Give a folder of runs"):
        find_runs([tmp_path / "nowhere"])
    with pytest.raises(ConfigError, match="There is no run with a snapshot in"):
        find_runs([tmp_path])
    damaged = tmp_path / "record.jsonl"
    damaged.write_text("not json\n")
    with pytest.raises(ConfigError, match="its first line is not an intact header"):
        find_runs([tmp_path])
    with pytest.raises(RecordError, match="its first line is not an intact header"):
        find_runs([damaged])
    write_run(tmp_path / "whole", num=2)
    with pytest.warns(LisWarning, match=r"Skipped: .*record.jsonl is no record of lis-lightning"):
        assert [run.name for run in find_runs([tmp_path])] == ["whole"]


def test_a_catalogue_that_is_gone_or_damaged_costs_the_movers_only(write_run, tmp_path):
    record = write_run(tmp_path / "run", num=3)
    record.with_name("items.parquet").write_bytes(b"PAR1")
    (run,) = find_runs([tmp_path])
    assert run.movers == []
    assert len(run.results) == 3


def test_movers_go_from_the_first_snapshot_to_the_best(one_run):
    (run,) = find_runs([one_run])
    top = run.movers[0]
    row = run.catalogue.ids.tolist().index(top.item_id)
    assert top.change.value == run.best.item_gains[row] - run.results[0].item_gains[row] > 0


def test_without_a_record_a_run_is_what_the_monitor_knows(scored):
    run = recorded_run(None, scored(0))
    assert run.best.ais == max(one.ais for one in scored(0))
    assert run.movers == []


def test_a_run_without_a_score_is_listed_with_the_reason(write_run, tmp_path):
    write_run(tmp_path / "scored", num=2)
    Record.create(tmp_path / "killed" / "record.jsonl", run_id="a1", split_hash="c0ffee")
    Record.create(tmp_path / "empty" / "record.jsonl", run_id="a2", split_hash="c0ffee").status("end", best_step=None)
    Job(recipe="bpr", seed=1, status="failed", error="RuntimeError: out of memory").write(tmp_path / "bpr-1")
    (run,) = find_runs([tmp_path])
    assert sorted(run.unscored) == [
        "bpr-1: no snapshot was scored: RuntimeError: out of memory",
        "empty: no snapshot was scored: it ended before the first",
        "killed: no snapshot was scored: it goes on, or was killed before the first",
    ]
    for line in run.unscored:
        assert line in render_report([run], "t", {})
        assert line in render_text([run])


def test_what_wandb_holds_of_a_recorded_run_is_shown_once(write_run, tmp_path):
    write_run(tmp_path / "run", num=3)
    (run,) = find_runs([tmp_path / "run"])
    copies = {"copy": run.results[:2], "other": [replace(run.results[0], ais=0.5)]}
    for name in copies:
        (tmp_path / "wandb").mkdir(exist_ok=True)
        (tmp_path / "wandb" / f"run-{name}.wandb").touch()

    def read(file):
        name = file.stem.removeprefix("run-")
        return RecordedRun(name=name, path=file, results=copies[name], paired=False)

    found = find_runs([tmp_path / "run", tmp_path / "wandb"], {"run-*.wandb": read})
    assert [one.name for one in found] == ["run", "other"]


def test_runs_are_grouped_by_split_and_shown_apart(runs):
    other = replace(runs[0], name="elsewhere", results=[replace(one, split_hash="0ther") for one in runs[0].results])
    groups = by_split([other, *runs[1:]])
    assert [len(group) for group in groups] == [5, 1]
    text = render_report([other, *runs[1:]], "t", {})
    assert "cannot be compared" in text
    assert "elsewhere" not in text[text.index('<section id="curve">') : text.index('<section id="slices">')]
    assert "elsewhere" in text[text.index('<section id="other-splits">') : text.index('<section id="leaderboard">')]
    assert "scores on one cannot be compared with scores on another" in render_text([other, *runs[1:]])
    assert "other-splits" not in render_report(runs, "t", {})


def test_settings_in_the_names_of_runs_are_short(write_run, tmp_path):
    for number, rate in enumerate(["0.0018316240381848906", "0.0005"]):
        path = write_run(tmp_path / str(number), num=2)
        overrides = {"training.learning_rate": rate, "recipe": "infonce"}
        Job(recipe="infonce", seed=1, overrides=overrides, status="finished", record=path.name).write(path.parent)
    found = find_runs([tmp_path])
    assert [run.name for run in found] == [
        "infonce, learning_rate=0.00183 seed 1", "infonce, learning_rate=0.0005 seed 1",
    ]  # fmt: skip
    assert len({run.recipe for run in found}) == 2


def test_runs_on_another_split_are_not_paired(runs):
    other = replace(runs[0], results=[replace(one, split_hash="other") for one in runs[0].results])
    assert same_split([*runs[1:], other]) == runs[1:]
    assert same_split([replace(runs[0], paired=False), runs[1]]) == [runs[1]]


def test_a_copied_folder_is_another_run(one_run, tmp_path):
    shutil.copytree(one_run, tmp_path / "copy")
    assert len(find_runs([one_run, tmp_path])) == 2


def test_a_monitor_that_failed_every_time_is_named(write_run, tmp_path):
    write_run(tmp_path / "scored", num=2)
    failed = Record.create(tmp_path / "failed" / "record-text.jsonl", run_id="a1", split_hash="c0ffee")
    for step in (0, 2, 4):
        failed.status("failure", what="snapshot", step=step, error="OSError: gone")
    line = "text: 0 of 3 snapshots scored, last error OSError: gone"
    (run,) = find_runs([tmp_path])
    assert run.failures == []
    assert run.unscored == [line]
    assert line in render_text([run]).splitlines()
    with pytest.raises(ConfigError, match=line):
        find_runs([tmp_path / "failed"])
