"""Our side of the comparison answers as its table says; the peer's runs in an environment of its own."""

import importlib.util
import sys

import pytest

from lis_lightning.cli import resource_dir


@pytest.fixture(scope="module")
def compare():
    path = resource_dir("recipes") / "peers" / "compare.py"
    spec = importlib.util.spec_from_file_location("compare", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_ours_has_the_same_number_on_uneven_ranks_trains_the_same_bits_and_tells_of_a_change(compare):
    (alone,) = compare.ask(sys.executable, "ours.py", "single", "LISMonitor", 200)
    assert (alone["after"], alone["before"]) == ("same bits", "same bits")
    assert alone["changed"].startswith("goes on, new points at [16, 20, 24], warns: LISMonitor: the checkpoint's curve")
    assert alone["added"] == "goes on, new points at [16, 20, 24], no warning"
    assert alone["removed"] == "goes on, Lightning warns that the callback is missing"
    uneven = compare.ask(sys.executable, "ours.py", "uneven", "LISMonitor", 200)
    assert compare.number(uneven, [alone]).startswith("ends, right: ")


def test_what_hangs_is_ended_and_what_fails_says_why(compare, tmp_path):
    script = tmp_path / "side.py"
    script.write_text("import time; time.sleep(60)")
    assert compare.ask(sys.executable, str(script), "stop", "none", 1) == [{"error": "hangs (ended after 1 s)"}]
    script.write_text("raise SystemExit('no such thing')")
    assert compare.ask(sys.executable, str(script), "stop", "none", 30) == [
        {"error": "ended by itself with code 1: no such thing"}
    ]


@pytest.mark.parametrize(
    ("ranks", "shown"),
    [
        ([{"value": 0.5}, {"value": 0.5}], "ends, right: 0.5000 (one process: 0.5000)"),
        ([{"value": 0.5}, {"value": None}], "ends, right: 0.5000, on rank 0 alone (one process: 0.5000)"),
        ([{"value": 0.4}, {"value": 0.5}], "ends, off: 0.4000 and 0.5000 (one process: 0.5000)"),
        ([{"rank": "1", "error": "E: x"}, {"error": "hangs"}], "rank 1: E: x; hangs"),
        ([{"rank": "0", "error": "E: x"}, {"rank": "1", "error": "E: x"}], "E: x"),
        ([{"rank": "0", "value": 0.5}, {"rank": "1", "error": "E: x"}], "rank 1: E: x"),
    ],
)
def test_a_cell_says_what_both_ranks_saw(compare, ranks, shown):
    assert compare.number(ranks, [{"value": 0.5}]) == shown


def test_ranks_that_stop_apart_are_seen(compare):
    assert compare.stop([{"step": 8}, {"step": 8}]) == "both at step 8"
    assert compare.stop([{"step": 8}, {"step": 12}]) == "at steps [8, 12]"
