"""Paired comparison of two recorded snapshots, named on the command line."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lis_lightning.cli.report import main
from lis_lightning.errors import ConfigError
from lis_lightning.report.comparison import choose_snapshot, comparison_text


@pytest.mark.parametrize(
    ("words", "step", "picked_from"),
    [("{run}", 50, 3), ("{run}@best", 50, 3), ("{run}@first", 0, 1), ("{run}@25", 25, 1), ("{run}@last", 50, 1)],
)
def test_a_snapshot_is_named_by_its_run_and_its_step(write_run, tmp_path, words, step, picked_from):
    write_run(tmp_path / "a run", num=3, items=False)
    chosen = choose_snapshot(words.format(run=tmp_path / "a run"))
    assert (chosen.name, chosen.snapshot.step, chosen.picked_from) == ("a run", step, picked_from)


def test_saved_representations_are_found_in_the_record_beside_them(write_run, tmp_path):
    write_run(tmp_path, num=2, items=False)
    saved = tmp_path / "snapshots" / "step-00000025.safetensors"
    saved.parent.mkdir()
    saved.touch()
    assert choose_snapshot(str(saved)).snapshot.step == 25


def test_the_difference_is_that_of_the_results(write_run, scored, tmp_path, capsys):
    write_run(tmp_path / "one", num=3, items=False)
    write_run(tmp_path / "two", seed=1, num=2, items=False)
    main(["compare", f"{tmp_path / 'one'}@last", f"{tmp_path / 'two'}"])
    said = capsys.readouterr().out
    difference = scored(0)[2].compare(scored(1)[1])
    assert "one, step 50" in said
    assert "two, step 25" in said
    assert f"{difference.value:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]" in said
    assert f"z {difference.z:.2f}, two-sided p {difference.p:.2g}, paired by user" in said
    assert "the choice of the best snapshot (two: of 2)" in said


def test_other_splits_are_refused(write_run, tmp_path):
    write_run(tmp_path / "run", num=2, items=False)
    first = choose_snapshot(f"{tmp_path / 'run'}@first")
    other = replace(first, name="other", snapshot=replace(first.snapshot, split_hash="c0ffee"))
    with pytest.raises(ConfigError, match=r"run was scored on split \w{16}, other on split c0ffee\. Score both"):
        comparison_text(first, other)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("{folder}@first", r"Expected one run, got .* with 2; give one of these:\n  a: .*\n  b: "),
        ("{folder}/a@7", r"a has no snapshot '7': expected best, first, last or a step of 0, 25\."),
        ("{folder}/c", r"c does not exist\."),
    ],
)
def test_what_is_no_snapshot_is_said(write_run, tmp_path, words, message):
    for name in "ab":
        write_run(tmp_path / name, num=2, items=False)
    with pytest.raises(ConfigError, match=message):
        choose_snapshot(words.format(folder=tmp_path))
