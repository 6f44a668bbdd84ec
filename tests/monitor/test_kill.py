"""The kill test: a few kills by default, all of them with ``-m slow``; and that it sees what it looks for."""

from __future__ import annotations

import json

import pytest

from tests._helpers import run_module, small_run
from tests.kill import victim
from tests.kill.__main__ import Round


@pytest.mark.parametrize("kills", [5, pytest.param(50, marks=pytest.mark.slow)])
def test_kills_lose_double_and_damage_nothing(tmp_path, kills):
    done = run_module("kill", "--kills", kills, "--seed", kills, "--json", tmp_path / "counts.json")
    assert done.returncode == 0, done.stdout + done.stderr
    counts = json.loads((tmp_path / "counts.json").read_text())
    rounds = counts.pop("rounds")
    assert rounds["same"] == rounds["number"] >= 1
    assert sum(count.get("kills", 0) for count in counts.values()) == kills
    assert all(count.get(name, 0) == 0 for count in counts.values() for name in ("lost", "duplicated", "corrupt"))
    if kills >= 50:
        assert sum(count.get("resumes", 0) for count in counts.values()) >= kills // 3
        assert min(count.get("kills", 0) for count in counts.values()) >= 3  # each way to die was met


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """A whole run, with its journal."""
    monkeypatch.setattr(victim, "_tell", lambda *_: None)
    one = Round(tmp_path / "round", small_run.make_split())
    monitor, _ = victim.train(one.folder, one.split, one.journal)
    lines = [f"append\t{monitor.record_path}\t{result.step}\n" for result in monitor.results]
    one.journal.write_text("".join(lines))
    return one


def test_a_whole_run_counts_as_undamaged(trained):
    assert not +trained.damage()
    outcome = trained.outcome()
    assert [point["step"] for point in outcome["curve"]] == [0, 2, 4, 6, 8, 10, 12, 13]
    assert list(outcome["snapshots"]) == [f"step-{step:08d}.safetensors" for step in (8, 10, 12, 13)]
    assert outcome["ended"] == "end"


def test_it_counts_what_is_lost(trained):
    path = trained.folder / "record.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-3]))  # without two results and the end
    (trained.folder / "snapshots" / "step-00000010.safetensors").unlink()
    assert dict(+trained.damage()) == {"lost": 3}


def test_it_counts_what_is_doubled(trained):
    path = trained.folder / "record.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines, lines[-2]]))
    assert dict(+trained.damage()) == {"duplicated": 1}


def test_it_counts_what_is_damaged(trained):
    path = trained.folder / "record.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"ais":', b'"ais" ', 1))
    snapshot = trained.folder / "snapshots" / "step-00000013.safetensors"
    snapshot.write_bytes(snapshot.read_bytes()[:-1])
    assert dict(+trained.damage()) == {"corrupt": 2}


def test_results_that_were_given_up_are_not_missed(trained):
    with trained.journal.open("a") as file:
        file.write(f"append\t{trained.folder / 'record.jsonl'}\t99\nrewind\t{trained.folder / 'record.jsonl'}\t13\n")
    assert not +trained.damage()
