"""`lis-align` over two real processes: models of transformers with adapters, as a user starts them."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lis_lightning.results.jobs import Job
from lis_lightning.results.record import Record

SMALL = [
    "data.num_users=120", "data.num_items=60", "data.num_events=4000", "trainer.max_steps=6", "lis.every_n_steps=2",
    "trainer.val_check_interval=2", "training.batch_size=8", "model.tuning.mode=lora", "logger=csv",
    "trainer.accelerator=cpu",
]  # fmt: skip
TWO = ["trainer.devices=2", "trainer.strategy=ddp"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def lis_align(folder, cache, *arguments):
    """Run the command in a session of its own; return it, its run folder, and whether all its processes have ended."""
    command = shutil.which("lis-align", path=str(Path(sys.executable).parent))
    env = os.environ | {"LIS_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [command, *SMALL, *arguments, f"hydra.run.dir={folder}"], cwd=folder.parent, env=env, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    said, _ = process.communicate(timeout=280)
    return process.returncode, said, _gone(process.pid)


def _gone(session):
    for _ in range(100):  # the first process does not wait for the others to have said good-bye
        try:
            os.killpg(session, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def read(folder):
    (path,) = folder.rglob("record*.jsonl")
    return Record.read(path)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["text", "vlm"])
def test_two_processes_fine_tune_one_model_and_leave_one_run(model, cache, tmp_path):
    for name, more in (("one", []), ("two", [*TWO, "objectives.pairs.across_devices=true", "training.micro_batch=5"])):
        code, said, gone = lis_align(tmp_path / name, cache, f"model={model}", *more)
        assert code == 0, said[-3000:]
        assert gone, "a process was left behind"
    (alone, expected), (head, results) = read(tmp_path / "one"), read(tmp_path / "two")
    assert head["split_hash"] == alone["split_hash"]
    assert [one.step for one in results] == [one.step for one in expected] == [0, 2, 4, 6]
    assert results[0].ais == pytest.approx(expected[0].ais, abs=1e-4), "the raw model is one and the same"
    assert all(math.isfinite(one.ais) for one in results)
    assert results[-1].ais != expected[-1].ais, "twice the examples a step"
    job = Job.read(tmp_path / "two")
    assert (job.status, job.steps, job.record) == ("finished", 6, "record.jsonl"), "as the first process knows it"
    assert said.count("the validation preference split") == said.count("best step") == 1, "only the first one speaks"
    assert len(list((tmp_path / "two").rglob("best-step=*.ckpt"))) <= 1


@pytest.mark.slow
def test_two_processes_train_all_of_the_default_model(cache, tmp_path):
    code, said, gone = lis_align(tmp_path / "full", cache, "model=vlm", "model.tuning.mode=full", *TWO)
    assert code == 0, said[-3000:]
    assert gone, "a process was left behind"
    assert "frozen, since no gradient reaches them: model.vision_tower.post_layernorm" in said
    assert read(tmp_path / "full")[1][-1].step == 6
