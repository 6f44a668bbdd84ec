"""What every logger gets, and what the Trainer and its other callbacks find."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from pytorch_lightning.loggers import CSVLogger
from small_results import FROZEN_KEYS, RESULTS, make_result

from lis_lightning import tracking
from lis_lightning.stopping import VERDICTS


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


def test_every_verdict_has_a_code():
    codes = [tracking.metrics(make_result(0, 0.0, verdict))["lis/verdict"] for verdict in VERDICTS]
    assert codes == list(range(len(VERDICTS)))


def test_importing_the_package_does_not_import_wandb():
    code = "import sys, lis_lightning, lis_lightning.tracking; sys.exit('wandb' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_run_folder_is_where_checkpoints_go(tmp_path):
    logger = CSVLogger(tmp_path, name="runs", version=3)
    trainer = SimpleNamespace(default_root_dir=str(tmp_path), loggers=[logger])
    assert tracking.run_folder(trainer) == tmp_path / "runs" / "version_3"
    assert tracking.run_folder(SimpleNamespace(default_root_dir=str(tmp_path), loggers=[])) == tmp_path


def test_published_metrics_are_float32_tensors():
    trainer = SimpleNamespace(callback_metrics={})
    tracking.publish(trainer, RESULTS[1])
    assert set(trainer.callback_metrics) == FROZEN_KEYS
    assert trainer.callback_metrics["lis/ais"].dtype == torch.float32
    assert float(trainer.callback_metrics["lis/ais"]) == pytest.approx(0.006)
