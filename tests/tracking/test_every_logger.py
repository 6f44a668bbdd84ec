"""One real run with every logger at once, and what each one's own reader finds on disk."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pytorch_lightning.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger

from lis_lightning.results.record import Record
from lis_lightning.tracking import loggers as tracking
from tests._helpers import small_run

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of the trackers
STEPS = [0, 2, 4, 5]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Train with all loggers; steps are those of the optimizer, not batches."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        patch.setenv("WANDB_SILENT", "true")
        for name in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_CONFIG_DIR", "WANDB_ARTIFACT_DIR"):
            patch.setenv(name, str(folder / "home"))
        loggers = {
            "csv": CSVLogger(folder, name="csv", version="v"),
            "tensorboard": TensorBoardLogger(folder, name="tensorboard", version="v"),
            "mlflow": MLFlowLogger("lis", tracking_uri=f"file:{folder / 'mlflow'}"),
            "wandb": WandbLogger(project="lis", save_dir=folder, mode="offline"),
        }
        monitor = small_run.monitor_of(small_run.make_split())
        small_run.fit(folder, monitor, steps=5, logger=list(loggers.values()), accumulate_grad_batches=2)
        loggers["wandb"].experiment.finish()
        yield {"folder": folder, "loggers": loggers, "monitor": monitor}


def read_csv(run):
    with (run["folder"] / "csv" / "v" / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["lis/ais"]]
    return {int(row.pop("step")): {key: float(value) for key, value in row.items() if value} for row in rows}


def read_tensorboard(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run["folder"] / "tensorboard" / "v"))
    events.Reload()
    found = {}
    for key in events.Tags()["scalars"]:
        for event in events.Scalars(key):
            found.setdefault(event.step, {})[key] = event.value
    return found


def read_mlflow(run):
    from mlflow import MlflowClient

    logger = run["loggers"]["mlflow"]
    client = MlflowClient(f"file:{run['folder'] / 'mlflow'}")
    found = {}
    for key in client.get_run(logger.run_id).data.metrics:
        for metric in client.get_metric_history(logger.run_id, key):
            found.setdefault(metric.step, {})[key] = metric.value
    return found


def read_wandb(run):
    tool = shutil.which("wandb", path=Path(sys.executable).parent)
    (file,) = run["folder"].rglob("*.wandb")
    done = subprocess.run([tool, "leet", "inspect", "--json", file], capture_output=True, check=True)
    records = [json.loads(line) for line in done.stdout.decode().splitlines()]
    rows = [record["history"]["item"] for record in records if record["type"] == "history"]
    return {int(row["trainer/global_step"]): row for row in rows if "lis/ais" in row}


@pytest.mark.parametrize("reader", [read_csv, read_tensorboard, read_mlflow, read_wandb])
def test_every_logger_has_the_same_keys_at_the_snapshots_own_steps(run, reader):
    found = reader(run)
    assert sorted(found) == STEPS
    for result in run["monitor"].results:
        expected = tracking.metrics(result)
        ours = {key: float(value) for key, value in found[result.step].items() if key.startswith("lis/")}
        assert ours.keys() == expected.keys()
        assert ours == pytest.approx(expected, rel=1e-6, abs=1e-12, nan_ok=True)  # TensorBoard keeps float32


def test_the_record_lies_in_the_folder_of_the_first_logger(run):
    assert run["monitor"].record_path == run["folder"] / "csv" / "v" / "record.jsonl"
    assert [result.step for result in Record.read(run["monitor"].record_path)[1]] == STEPS
    assert run["monitor"].last_error is None


@pytest.mark.parametrize("options", [{"logger": False}, {"logger": True}], ids=["none", "default"])
def test_no_logger_and_the_default_one(tmp_path, options):
    monitor = small_run.monitor_of(small_run.make_split())
    trainer, _ = small_run.fit(tmp_path, monitor, steps=2, **options)
    assert [result.step for result in monitor.results] == [0, 2]
    assert monitor.record_path.is_relative_to(tmp_path)
    assert monitor.last_error is None
    assert len(trainer.loggers) == int(options["logger"])
