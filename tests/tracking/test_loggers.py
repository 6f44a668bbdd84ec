"""What every logger gets, and what the Trainer and its other callbacks find."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import polars
import pytest
import torch
from pytorch_lightning.loggers import CSVLogger

from lis_lightning.tracking import loggers as tracking
from tests._helpers import wandb_files
from tests._helpers.small_results import FROZEN_KEYS, MORE_KEYS, RESULTS, make_result


def test_plain_loggers_get_the_same_keys(tmp_path):
    logger = CSVLogger(tmp_path)
    assert tracking.log_result([logger], RESULTS[:1], RESULTS[0]) == []
    assert tracking.finish([logger], RESULTS, RESULTS[1]) == tracking.start([logger], {}) == []
    header, row = (Path(logger.log_dir) / "metrics.csv").read_text().splitlines()
    assert set(header.split(",")) == FROZEN_KEYS | {"step"}
    assert dict(zip(header.split(","), row.split(","), strict=True))["lis/ais"] == "0.002"


class Broken(CSVLogger):
    def log_metrics(self, metrics, step=None):
        raise ConnectionError("down")


def test_a_logger_that_raises_is_named_and_the_next_one_is_written(tmp_path):
    other = CSVLogger(tmp_path)
    failures = tracking.log_result([Broken(tmp_path), other], RESULTS[:2], RESULTS[1])
    assert failures == ["Broken raised ConnectionError: down"]
    assert "0.006" in (Path(other.log_dir) / "metrics.csv").read_text()


def test_what_hangs_is_left_behind(monkeypatch):
    monkeypatch.setattr(tracking, "FINISH_SECONDS", 0.05)
    released = threading.Event()

    class WandbLogger:
        experiment = SimpleNamespace(log=lambda _: released.wait(60))

    began = time.monotonic()
    assert tracking.finish([WandbLogger()], RESULTS, RESULTS[1]) == [
        "WandbLogger raised TimeoutError: no answer within 0.05 s"
    ]
    assert time.monotonic() - began < 30
    released.set()


def test_what_fails_in_time_is_named(tmp_path):
    class WandbLogger:
        experiment = SimpleNamespace(log=lambda _: {}["key"])

    assert tracking.finish([WandbLogger()], RESULTS, RESULTS[1]) == ["WandbLogger raised KeyError: 'key'"]


def test_more_keys_are_logged_on_request():
    assert set(tracking.metrics(RESULTS[1])) == FROZEN_KEYS
    assert set(tracking.metrics(RESULTS[1], more=True)) == FROZEN_KEYS | MORE_KEYS


def test_another_label_logs_its_ais_and_the_rest_on_request():
    result = make_result(0, 0.1, "improving", tasks={"add to cart": make_result(0, 0.2, "improving")})
    ours = {key for key in tracking.metrics(result) if "task" in key}
    assert ours == {f"lis/task/add_to_cart/ais{end}" for end in ("", "_low", "_high")}
    assert tracking.metrics(result, more=True)["lis/task/add_to_cart/more/auc"] == 0.95


def test_a_plain_logger_gets_more_keys_on_request(tmp_path):
    logger = CSVLogger(tmp_path)
    assert tracking.log_result([logger], RESULTS[:1], RESULTS[0], more=True) == []
    header = (Path(logger.log_dir) / "metrics.csv").read_text().splitlines()[0]
    assert set(header.split(",")) == FROZEN_KEYS | MORE_KEYS | {"step"}


def test_importing_the_package_does_not_import_wandb():
    code = "import sys, lis_lightning, lis_lightning.tracking.loggers; sys.exit('wandb' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_run_folder_is_where_checkpoints_go(tmp_path):
    logger = CSVLogger(tmp_path, name="runs", version=3)
    trainer = SimpleNamespace(default_root_dir=str(tmp_path), loggers=[logger])
    assert tracking.run_folder(trainer) == tmp_path / "runs" / "version_3"
    assert tracking.run_folder(SimpleNamespace(default_root_dir=str(tmp_path), loggers=[])) == tmp_path


def test_a_run_has_the_name_of_its_first_named_logger(tmp_path):
    class WandbLogger:
        experiment = SimpleNamespace(name="bold-fog-1")

    class Unnamed(WandbLogger):
        experiment = SimpleNamespace(name=None)

    folder = CSVLogger(tmp_path, name="news", version="k3x9")
    trackio = tracking.TrackioLogger("news", run_name="calm-sea-2")
    assert tracking.run_name([folder, Unnamed(), WandbLogger(), trackio]) == "bold-fog-1"
    assert tracking.run_name([trackio]) == "calm-sea-2"
    assert tracking.run_name([folder]) == ""


def test_published_metrics_are_float32_tensors():
    trainer = SimpleNamespace(callback_metrics={})
    tracking.publish(trainer, RESULTS[1])
    assert set(trainer.callback_metrics) == FROZEN_KEYS | MORE_KEYS
    assert trainer.callback_metrics["lis/ais"].dtype == torch.float32
    assert float(trainer.callback_metrics["lis/ais"]) == pytest.approx(0.006)


@pytest.fixture(scope="module")
def board(wandb_home, tmp_path_factory):
    """Log a leaderboard twice, as a sweep does that goes on; return its folder and the files of the runs."""
    folder = tmp_path_factory.mktemp("sweep")
    table = polars.DataFrame({"recipe": ["a", "b"], "ais": [0.02, 0.01], "p": [None, 0.5], "tied": [False, True]})
    for rows in (1, 2):
        done = tracking.log_leaderboard(table.head(rows), group="first", project="lis", folder=folder)
        assert done == []
    return sorted(folder.rglob("*.wandb"))


def test_the_leaderboard_is_a_table_of_a_run_in_the_group_of_the_jobs(board):
    told = [record["run"] for record in wandb_files.inspect(board[-1]) if record["type"] == "run"]
    assert {(run["run_group"], run["job_type"], run["project"]) for run in told} == {("first", "leaderboard", "lis")}
    tables = [json.loads(path.read_text()) for path in board[-1].parent.rglob("*.table.json")]
    assert [table["columns"] for table in tables] == [["recipe", "ais", "p", "tied"]]
    assert tables[0]["data"] == [["a", 0.02, None, False], ["b", 0.01, 0.5, True]]
    logged = [record["history"]["item"] for record in wandb_files.inspect(board[-1]) if record["type"] == "history"]
    assert any(any(key.startswith("lis/leaderboard") for key in row) for row in logged)


def test_a_sweep_that_goes_on_writes_the_same_run(board):
    ids = {record["run"]["run_id"] for file in board for record in wandb_files.inspect(file) if record["type"] == "run"}
    assert len(board) == 2
    assert len(ids) == 1


def test_a_leaderboard_that_cannot_be_logged_is_said(tmp_path, monkeypatch):
    def dead(**_):
        raise ConnectionError("down")

    monkeypatch.setattr("wandb.init", dead)
    said = tracking.log_leaderboard(polars.DataFrame(), group="first", project="lis", folder=tmp_path)
    assert said == ["The leaderboard is not in W&B: ConnectionError: down"]
