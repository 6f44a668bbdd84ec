"""Fits in two real processes: one curve, the numbers of one process, one decision, and nobody waits for nobody."""

from __future__ import annotations

import json

import pytest

from lis_lightning.results.record import Record
from tests._helpers import run_module


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What both processes saw, and the folder they wrote to. A process that waits for the other runs into the limit."""
    folder = tmp_path_factory.mktemp("ranks")
    done = run_module("_helpers.ddp_fit", folder, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, *(json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(2))


def test_both_see_one_curve_survive_a_failure_of_one_and_stop_together(ranks):
    folder, first, second = ranks
    first, second = first["curve"], second["curve"]
    assert first["steps"] == second["steps"] == [0, 4, 6, 8]
    assert (first["ais"], first["seconds"]) == (second["ais"], second["seconds"])
    assert first["ais"] == pytest.approx([first["expected"]] * 4, abs=1e-9)
    assert first["global_step"] == second["global_step"] == first["stopped"] == second["stopped"] == 8
    assert first["metric"] == second["metric"] == pytest.approx(first["ais"][-1])
    assert first["error"] == second["error"] == "SnapshotError: process 1: OSError: only here"
    assert (len(first["warnings"]), second["warnings"]) == (1, [])
    assert (first["record"], second["record"]) == ("record.jsonl", None)
    header, results = Record.read(folder / "curve" / "record.jsonl")
    assert [result.step for result in results] == [0, 4, 6, 8]
    assert header["config"]["rule"]["min_gain"] == 1.0


@pytest.mark.parametrize("source", ["uneven", "one batch", "padded"])
def test_numbers_are_those_of_one_process(ranks, source):
    _, first, second = ranks
    assert first["sources"][source].keys() == first["sources"]["one process"].keys()
    for name, value in first["sources"]["one process"].items():
        for rank in (first, second):
            got = rank["sources"][source][name]
            assert got == pytest.approx(value, abs=1e-6, nan_ok=True), name


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("logger", "SnapshotError: process 0: RecordError: RankZeroFails raised OSError: disk full"),
        ("record", "SnapshotError: process 0: RecordError: The record"),
    ],
)
def test_what_fails_on_the_first_alone_raises_on_both_if_strict(ranks, what, message):
    _, first, second = ranks
    assert first["strict"][what] == second["strict"][what]
    assert first["strict"][what].startswith(message)


TORN = "an item that one cannot read"
SHARDED = ["uneven", "one batch", "a part that is sharded", "a part that is not", "a failure", TORN]


@pytest.mark.parametrize("case", SHARDED)
def test_sharded_parameters_train_as_without_a_monitor_and_score_as_when_whole(ranks, case):
    _, first, second = ranks
    without, (one, other) = first["sharded"]["without"], (rank["sharded"][case] for rank in (first, second))
    assert one["weights"] == other["weights"] == without["weights"]
    assert one["ais"] == other["ais"]
    assert one["ais"][-1] == pytest.approx(one["expected"], abs=1e-6)
    failed = case in {"a failure", TORN}
    assert one["steps"] == other["steps"] == ([0, 4] if failed else [0, 2, 4])
    expected = {"a failure": "ZeroDivisionError", TORN: "process 0: OSError: torn; process 1: SnapshotError: another"}
    assert expected.get(case, "") in (one["error"] or "")
    assert (one["error"] is not None) == failed


@pytest.mark.parametrize(
    ("case", "batches"),
    [
        pytest.param("uneven", 6, id="16-and-15-items-by-3"),
        pytest.param("one batch", 1, id="one-and-none"),
    ],
)
def test_sharded_processes_make_equally_many_forwards(ranks, case, batches):
    _, first, second = ranks
    steps, snapshots = 4, 3
    assert first["sharded"][case]["forwards"] == second["sharded"][case]["forwards"] == steps + snapshots * batches


def test_scores_in_the_background_are_read_and_survived_together_and_the_first_process_is_asked(ranks):
    """The snapshot of step 8 fails on one; the file of step 9 is looked for at step 10, as a schedule of the first."""
    folder, first, second = ranks
    assert first["later"] == second["later"]
    seen = first["later"]
    assert seen["steps"] == [0, 4, 10, 12, 14]
    assert seen["ais"] == pytest.approx([seen["ais"][0]] * 5, abs=1e-9)
    assert (seen["stopped"], seen["global_step"], seen["judged"]) == (14, 14, 3)
    assert seen["error"] == "SnapshotError: process 1: ArithmeticError: only here"
    _, results = Record.read(folder / "later" / "record.jsonl")
    assert [result.step for result in results] == seen["steps"]
