"""Trackio and SwanLab in their local modes: what a run logs in Lightning and in transformers' Trainer."""

import math
import sys

import pytest

from lis_lightning.tracking import TrackioLogger, loggers as tracking
from tests._helpers import hf_run, small_run
from tests._helpers.small_results import RESULTS

STEPS = [0, 2, 4]
# Of the trackers' own code.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


@pytest.fixture
def trackio(monkeypatch, tmp_path):
    """Trackio, writing to a folder of the test."""
    module = pytest.importorskip("trackio", reason="Trackio is not installed; .ci/run does so")
    from trackio import sqlite_storage, utils

    monkeypatch.setattr(utils, "TRACKIO_DIR", tmp_path / "trackio")
    monkeypatch.setattr(sqlite_storage, "TRACKIO_DIR", tmp_path / "trackio")
    return module


def read_trackio():
    from trackio.sqlite_storage import SQLiteStorage

    (run,) = SQLiteStorage.get_runs("lis")
    return SQLiteStorage.get_logs("lis", run)


def read_swanlab(folder):
    """Return the scalars that an offline run of SwanLab wrote, by step and key."""
    from swanlab.proto.swanlab.record.v1.record_pb2 import Record
    from swanlab.sdk.internal.core_python.store import DataStoreReader

    (file,) = folder.rglob("*.swanlab")
    reader = DataStoreReader()
    reader.open(file)
    rows = {}
    for contents in reader:
        record = Record()
        record.ParseFromString(contents)
        if record.HasField("scalar"):
            rows.setdefault(record.scalar.step, {})[record.scalar.key] = record.scalar.value.number
    return rows


def same(ours, expected):
    return ours.keys() == expected.keys() and ours == pytest.approx(expected, rel=1e-6, nan_ok=True)


def test_trackio_gets_the_keys_of_every_logger(trackio, tmp_path):
    logger = TrackioLogger("lis", save_dir=tmp_path, embed=False, auto_log_cpu=False)
    monitor = small_run.monitor_of(small_run.make_split(), ceilings=())
    small_run.fit(tmp_path, monitor, steps=4, logger=logger)
    rows = [row for row in read_trackio() if "lis/ais" in row]
    assert [row["step"] for row in rows] == STEPS
    for row, result in zip(rows, monitor.results, strict=True):
        assert same({key: value for key, value in row.items() if key.startswith("lis/")}, tracking.metrics(result))
    assert monitor.last_error is None
    assert monitor.record_path.is_relative_to(tmp_path / "lis")


def test_a_logger_without_trackio_is_a_failure_that_training_survives(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "trackio", None)
    (failure,) = tracking.log_result([TrackioLogger("lis")], RESULTS[:1], RESULTS[0])
    assert failure.startswith("TrackioLogger raised ModuleNotFoundError")


@pytest.mark.parametrize("report_to", ["trackio", "swanlab"])
@pytest.mark.slow
def test_what_the_trainer_of_transformers_reports_to_gets_the_curve(request, report_to, monkeypatch, tmp_path):
    if report_to == "trackio":
        request.getfixturevalue("trackio")
    else:
        swanlab = pytest.importorskip("swanlab", reason="SwanLab is not installed; .ci/run does so")
        # transformers 5.23 asks SwanLab 0.10 for a run in a way that raises if there is none.
        swanlab.init(project="lis", mode="offline", log_dir=str(tmp_path / "swanlog"))
    monitor = hf_run.monitor_of(small_run.make_split())
    trainer = hf_run.trainer_of(tmp_path, steps=4, report_to=report_to, project="lis")
    monitor.attach(trainer)
    trainer.train()
    if report_to == "trackio":
        rows = read_trackio()
    else:
        swanlab.finish()
        rows = read_swanlab(tmp_path / "swanlog").values()
    # The Trainer gives Trackio no step of its own, so that the curve needs `eval/lis_step`.
    logged = {row["eval/lis_step"]: row["eval/lis_ais"] for row in rows if "eval/lis_ais" in row}
    assert logged == pytest.approx({result.step: result.ais for result in monitor.results})
    assert sorted(logged) == STEPS


@pytest.mark.slow
def test_swanlab_gets_the_keys_of_every_logger(monkeypatch, tmp_path):
    swanlab = pytest.importorskip("swanlab", reason="SwanLab is not installed; .ci/run does so")
    from swanlab.integration.pytorch_lightning import SwanLabLogger

    logger = SwanLabLogger("lis", mode="offline", log_dir=str(tmp_path / "swanlog"), save_dir=tmp_path)
    monitor = small_run.monitor_of(small_run.make_split(), ceilings=())
    small_run.fit(tmp_path, monitor, steps=4, logger=logger)
    swanlab.finish()
    rows = {step: row for step, row in read_swanlab(tmp_path / "swanlog").items() if "lis/ais" in row}
    assert sorted(rows) == STEPS
    for result in monitor.results:
        ours = {key: value for key, value in rows[result.step].items() if key.startswith("lis/")}
        finite = {key: value for key, value in tracking.metrics(result).items() if not math.isnan(value)}
        assert same({key: ours[key] for key in finite}, finite)
    assert monitor.last_error is None
