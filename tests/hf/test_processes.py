"""transformers' Trainer in two processes of gloo: one curve, and the weights of a training without a monitor."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import tests

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What both processes saw."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    root = Path(tests.__file__).parents[1]
    started = []
    for rank in ("0", "1"):
        environment = os.environ | group | {"RANK": rank, "LOCAL_RANK": rank, "PYTHONPATH": str(root)}
        command = [sys.executable, "-m", "tests._helpers.hf_processes", str(folder)]
        started.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, cwd=root))
    try:
        errors = [process.communicate(timeout=200)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0, 0], errors[0][-3000:] + errors[1][-3000:]
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(2)]


def test_weights_are_those_of_a_training_without_it(ranks):
    for seen in ranks:
        assert seen["with"]["weights"] == seen["without"]["weights"]


def test_both_see_one_curve_and_the_first_writes_it(ranks):
    first, second = (seen["with"] for seen in ranks)
    assert first["steps"] == second["steps"] == first["logged"] == [0, 2, 4]
    assert first["ais"] == second["ais"]
    assert (first["record"], second["record"]) == (True, False)


def test_each_encodes_a_half_of_the_items(ranks):
    assert [seen["with"]["encoded"] for seen in ranks] == [3 * 15, 3 * 15]


def test_a_failure_of_one_is_a_failure_of_both(ranks):
    first, second = (seen["stopped"] for seen in ranks)
    assert first["steps"] == second["steps"]
    assert first["steps"][:3] == [0, 2, 6]
    assert first["error"] == second["error"] == "SnapshotError: process 1: OSError: only here"


def test_both_stop_at_the_same_step(ranks):
    first, second = (seen["stopped"] for seen in ranks)
    assert first["ended"] == second["ended"] == first["steps"][-1] < 40


def test_an_evaluator_runs_on_the_first_and_stops_both(ranks):
    first, second = (seen["evaluator"] for seen in ranks)
    assert first["ended"] == second["ended"] == first["steps"][-1] < 40
    assert first["logged"] == first["steps"]
    assert second["steps"] == []
    assert (first["record"], second["record"]) == (True, False)
