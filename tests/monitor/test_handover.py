"""After a training in launched processes the launching one has the results; a monitor can be pickled after a fit."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import pytest

from lis_lightning.monitor.background import Background
from lis_lightning.monitor.handover import Handover
from lis_lightning.monitor.on_demand import OnFile, OnSignal
from lis_lightning.results.record import Record
from tests._helpers import run_module, small_run


@pytest.mark.parametrize("strategy", ["ddp_fork", "ddp_notebook", pytest.param("ddp_spawn", marks=pytest.mark.slow)])
def test_the_launching_process_has_the_results_and_can_launch_again(tmp_path, strategy):
    done = run_module("_helpers.launched_fit", tmp_path, strategy, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / "found.json").read_text())
    first = found["first"]
    assert (first["steps"], first["record"], first["state"]) == ([0, 4, 6], "record.jsonl", 3 + 1)  # and the ceilings
    assert "OSError: storage is down" in first["error"]
    assert found["pickled"] == first
    assert (found["second"]["steps"], found["second"]["record"]) == ([0, 2, 4], "record-v1.jsonl")
    assert found["second"]["error"] is None
    assert (found["here"]["steps"], found["here"]["record"]) == ([0, 2], "record-v2.jsonl")
    recorded = Record.contents(tmp_path / "record.jsonl")
    assert recorded.statuses[-1]["verdict"] == first["verdict"]
    assert recorded.statuses[-1]["best_step"] == first["best"]
    assert len(list(tmp_path.glob("snapshots/*.safetensors"))) == 1


def test_a_monitor_can_be_pickled_before_and_after_a_fit(tmp_path):
    schedule = [OnFile(), OnSignal("SIGUSR2")]
    monitor = small_run.monitor_of(small_run.make_split(), schedule=schedule, background_steps=1, save="last-2")
    assert pickle.loads(pickle.dumps(monitor)).results == []
    small_run.fit(tmp_path, monitor, steps=4)
    again = pickle.loads(pickle.dumps(monitor))
    assert small_run.curve(again.results) == small_run.curve(monitor.results)
    small_run.fit(tmp_path, again, steps=2)
    assert [result.step for result in again.results] == [0, 2]


def test_a_pending_score_survives_a_pickle():
    background = Background(delay=2)
    assert pickle.loads(pickle.dumps(background)).step is None
    background.submit(4, dict)
    again = pickle.loads(pickle.dumps(background))
    assert (again.step, again.due(6), again.take()) == (4, True, {})


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_nothing_is_received_of_what_is_not_there():
    handover = Handover()
    assert handover.received() is None
    handover.put(Path("/" + "x" * 9000))
    assert handover.received() is None
    pid = os.fork()
    if not pid:
        handover.put(Path("/nowhere/record.jsonl"))
        os._exit(0)
    os.waitpid(pid, 0)
    assert handover.received() is None
