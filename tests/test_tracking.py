"""What reaches the loggers: a real W&B run, offline, read back from its file; and CSV beside it."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars
import pytest
import torch
from pytorch_lightning.loggers import CSVLogger, WandbLogger

from lis_lightning import tracking
from lis_lightning.result import Ceiling, LISResult
from lis_lightning.stopping import VERDICTS

FROZEN_KEYS = {
    "lis/ais", "lis/ais_low", "lis/ais_high", "lis/ais_geometry", "lis/auc_base", "lis/auc", "lis/gauc_gain",
    "lis/gauc_gain_low", "lis/gauc_gain_high",
    "lis/ceiling_pairs", "lis/ceiling_pairs_low", "lis/ceiling_pairs_high",
    "lis/ceiling_ids", "lis/ceiling_ids_low", "lis/ceiling_ids_high",
    "lis/realised", "lis/realised_low", "lis/realised_high",
    "lis/headroom", "lis/headroom_low", "lis/headroom_high", "lis/gain_z", "lis/ais_seen", "lis/ais_unseen",
    "lis/verdict", "lis/encode_seconds", "lis/score_seconds",
    "lis/companion/pair_auc", "lis/companion/cka", "lis/companion/rankme",
}  # fmt: skip


def make_result(step, ais, verdict, **fields):
    ceiling = Ceiling(value=0.02, low=0.01, high=0.03)
    values = {
        "ais": ais, "ais_low": ais - 0.001, "ais_high": ais + 0.001, "ais_geometry": ais / 2, "auc_base": 0.75,
        "auc": 0.75 + ais, "gauc_gain": ais / 3, "realised": ais / 0.02, "realised_low": ais / 0.04,
        "realised_high": ais / 0.01, "gain_z": 1.5, "ais_seen": ais, "ais_unseen": ais, "verdict": verdict,
        "message": f"about {verdict}", "ceilings": {"pairs": ceiling, "ids": ceiling}, "encode_seconds": 1.25,
        "score_seconds": 0.5, "companions": {"pair_auc": 0.6, "cka": 0.1, "rankme": 8.0}, "step": step,
        "influence": np.zeros(3),
    }  # fmt: skip
    return LISResult(**values | fields)


RESULTS = [
    make_result(0, 0.002, "warming-up", gain_z=math.nan, realised=math.nan),
    make_result(20, 0.006, "improving"),
    make_result(40, 0.004, "plateau"),
]


@pytest.fixture(scope="module")
def wandb_home(tmp_path_factory):
    """Keep W&B's own folders out of the user's home, and any key of theirs out of the test."""
    home = tmp_path_factory.mktemp("wandb-home")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_CONFIG_DIR", "WANDB_ARTIFACT_DIR"):
            patch.setenv(name, str(home))
        for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
            patch.delenv(name, raising=False)
        patch.setenv("NETRC", str(home / "netrc"))
        patch.setenv("WANDB_SILENT", "true")
        yield home


@pytest.fixture(scope="module")
def wandb_run(wandb_home, tmp_path_factory):
    """Log a run's three snapshots among the training's own metrics; return what W&B's file says."""
    folder = tmp_path_factory.mktemp("run")
    logger = WandbLogger(project="lis", save_dir=folder, mode=tracking.wandb_mode(), name="a run")
    failures = tracking.start([logger], {"users": 3, "windows": [0.5, 0.25, 0.25]})
    for result in RESULTS:
        logger.log_metrics({"train/loss": 1.0 / (1 + result.step)}, step=result.step)
        failures += tracking.log_result([logger], result, best=RESULTS[min(1, RESULTS.index(result))])
    failures += tracking.finish([logger], RESULTS)
    hint = tracking.sync_hint([logger])
    logger.experiment.finish()
    assert failures == []
    (file,) = folder.rglob("*.wandb")
    return {"file": file, "hint": hint, "records": inspect(file), "summary": inspect(file, "--summary")}


def inspect(file, *options):
    """Read a run's file with W&B's own reader."""
    tool = shutil.which("wandb", path=Path(sys.executable).parent)
    done = subprocess.run([tool, "leet", "inspect", "--json", *options, file], capture_output=True, check=True)
    text = done.stdout.decode()
    return json.loads(text) if options else [json.loads(line) for line in text.splitlines()]


def history_of(run):
    rows = [record["history"]["item"] for record in run["records"] if record["type"] == "history"]
    return [row for row in rows if "lis/ais" in row]


def test_wandb_holds_every_frozen_key_at_the_snapshots_own_steps(wandb_run):
    rows = history_of(wandb_run)
    assert [row["trainer/global_step"] for row in rows] == [0, 20, 40]
    for row, result in zip(rows, RESULTS, strict=True):
        assert {key for key in row if key.startswith("lis/")} == FROZEN_KEYS
        assert row["lis/ais"] == result.ais
        assert row["lis/ceiling_pairs_high"] == 0.03
        assert row["lis/companion/rankme"] == 8.0
        assert VERDICTS[int(row["lis/verdict"])] == result.verdict
    assert rows[0]["lis/realised"] == rows[0]["lis/gain_z"] == "NaN"


def test_wandb_draws_our_curves_over_the_training_step(wandb_run):
    metrics = [record["metric"] for record in wandb_run["records"] if record["type"] == "metric"]
    ours = [metric for metric in metrics if metric.get("glob_name") == "lis/*"]
    assert [metric["step_metric"] for metric in ours] == ["trainer/global_step"]
    assert "summary" not in ours[0]


def test_wandb_summary_says_verdict_and_best(wandb_run):
    summary = wandb_run["summary"]["summary"]
    assert summary["lis/verdict"] == "plateau"
    assert summary["lis/message"] == "about plateau"
    assert (summary["lis/best_step"], summary["lis/best_ais"]) == (20, 0.006)
    assert summary["lis/best_realised"] == pytest.approx(0.3)
    assert summary["lis/ais"] == 0.004


def test_wandb_config_describes_the_split(wandb_run):
    assert wandb_run["summary"]["config"]["lis"] == {"users": 3, "windows": [0.5, 0.25, 0.25]}


def test_wandb_table_holds_the_snapshots(wandb_run):
    (file,) = wandb_run["file"].parent.rglob("*.table.json")
    table = json.loads(file.read_text())
    assert table["columns"] == list(tracking.COLUMNS)
    cells = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert [(row["step"], row["ais"], row["verdict"]) for row in cells] == [
        (0, 0.002, "warming-up"), (20, 0.006, "improving"), (40, 0.004, "plateau"),
    ]  # fmt: skip


def test_the_hint_names_the_folder_to_sync(wandb_run):
    assert wandb_run["hint"].endswith(f"`wandb sync {wandb_run['file'].parent}`.")


def test_plain_loggers_get_the_same_keys(tmp_path):
    logger = CSVLogger(tmp_path)
    assert tracking.log_result([logger], RESULTS[0], best=RESULTS[0]) == []
    assert tracking.finish([logger], RESULTS) == tracking.start([logger], {}) == []
    header, row = (Path(logger.log_dir) / "metrics.csv").read_text().splitlines()
    assert set(header.split(",")) == FROZEN_KEYS | {"step"}
    assert dict(zip(header.split(","), row.split(","), strict=True))["lis/ais"] == "0.002"


class Broken(CSVLogger):
    def log_metrics(self, metrics, step=None):
        raise ConnectionError("down")


def test_a_logger_that_raises_is_named_and_the_next_one_is_written(tmp_path):
    other = CSVLogger(tmp_path)
    failures = tracking.log_result([Broken(tmp_path), other], RESULTS[1], best=RESULTS[1])
    assert failures == ["Broken raised ConnectionError: down"]
    assert "0.006" in (Path(other.log_dir) / "metrics.csv").read_text()


@pytest.mark.slow  # a process each, which imports Lightning and W&B and waits for a server that does not answer
@pytest.mark.parametrize(
    ("how", "failure"),
    [
        ("hang", "WandbLogger raised TimeoutError: no answer within 3 s"),
        ("dead", "WandbLogger raised TimeoutError: no answer within 3 s"),
        ("killed", "WandbLogger raised ConnectionResetError"),
    ],
)
def test_a_training_outlives_wandb(tmp_path, how, failure):
    script = Path(__file__).with_name("wandb_down.py")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    done = subprocess.run(
        [sys.executable, script, how, tmp_path], capture_output=True, text=True, timeout=300, env=environment
    )
    said = json.loads(done.stdout.splitlines()[-1])
    assert (said["step"], said["recorded"]) == (6, [0, 2, 4, 6])
    assert all(text.startswith(failure) for text in said["failures"])
    assert len(said["failures"]) >= 1
    assert len(said["warnings"]) == 1  # loud, once
    assert said["end_seconds"] < 3 + 12  # the bound, and the last snapshot on a busy machine


def test_what_hangs_is_left_behind(monkeypatch):
    monkeypatch.setattr(tracking, "FINISH_SECONDS", 0.05)
    released = threading.Event()

    class WandbLogger:
        experiment = SimpleNamespace(log=lambda _: released.wait(60))

    began = time.monotonic()
    assert tracking.finish([WandbLogger()], RESULTS) == ["WandbLogger raised TimeoutError: no answer within 0.05 s"]
    assert time.monotonic() - began < 30
    released.set()


def test_what_fails_in_time_is_named(tmp_path):
    class WandbLogger:
        experiment = SimpleNamespace(log=lambda _: {}["key"])

    assert tracking.finish([WandbLogger()], RESULTS) == ["WandbLogger raised KeyError: 'key'"]


def test_every_verdict_has_a_code():
    codes = [tracking.metrics(make_result(0, 0.0, verdict))["lis/verdict"] for verdict in VERDICTS]
    assert codes == list(range(len(VERDICTS)))


def test_importing_the_package_does_not_import_wandb():
    code = "import sys, lis_lightning, lis_lightning.tracking; sys.exit('wandb' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("environment", "netrc", "expected"),
    [
        pytest.param({}, "", "offline", id="nothing-configured"),
        pytest.param({"WANDB_API_KEY": "x" * 40}, "", None, id="key-in-the-environment"),
        pytest.param({"WANDB_MODE": "disabled"}, "", None, id="mode-is-respected"),
        pytest.param({}, "machine api.wandb.ai login user password secret", None, id="netrc"),
        pytest.param({}, "machine example.com login user password secret", "offline", id="netrc-of-others"),
        pytest.param({}, "machine", "offline", id="netrc-damaged"),
        pytest.param(
            {"WANDB_BASE_URL": "https://wandb.example.com:8443"}, "machine wandb.example.com login a password b", None,
            id="own-server",
        ),
    ],
)  # fmt: skip
def test_wandb_mode(tmp_path, monkeypatch, environment, netrc, expected):
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "netrc").write_text(netrc)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert tracking.wandb_mode() == expected


def test_sync_hint_without_wandb(tmp_path):
    assert tracking.sync_hint([CSVLogger(tmp_path)]) is None


def test_snapshot_table_marks_the_best():
    lines = tracking.snapshot_table(RESULTS, RESULTS[1]).splitlines()
    best = next(line for line in lines if "20*" in line)
    assert "+0.0060" in best
    assert "[+0.0050, +0.0070]" in best
    assert "30%" in best
    assert sum("*" in line for line in lines) == 1
    assert " - " in next(line for line in lines if "warming-up" in line)  # no ceiling, no share


def test_snapshot_line():
    assert tracking.snapshot_line(RESULTS[1]) == (
        "LIS step 20: AIS +0.0060 [+0.0050, +0.0070], 30% of the ceiling, improving (1.2 s to encode, 0.5 s to score)"
    )
    assert "of the ceiling" not in tracking.snapshot_line(RESULTS[0])


def test_summary_says_where_everything_is(tmp_path):
    text = tracking.summary(RESULTS, RESULTS[1], tmp_path / "record.jsonl", [])
    assert "Best snapshot: step 20. Verdict: plateau, about plateau" in text
    assert text.endswith(f"Record: {tmp_path / 'record.jsonl'}")


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
    told = [record["run"] for record in inspect(board[-1]) if record["type"] == "run"]
    assert {(run["run_group"], run["job_type"], run["project"]) for run in told} == {("first", "leaderboard", "lis")}
    tables = [json.loads(path.read_text()) for path in board[-1].parent.rglob("*.table.json")]
    assert [table["columns"] for table in tables] == [["recipe", "ais", "p", "tied"]]
    assert tables[0]["data"] == [["a", 0.02, None, False], ["b", 0.01, 0.5, True]]
    logged = [record["history"]["item"] for record in inspect(board[-1]) if record["type"] == "history"]
    assert any(any(key.startswith("lis/leaderboard") for key in row) for row in logged)


def test_a_sweep_that_goes_on_writes_the_same_run(board):
    ids = {record["run"]["run_id"] for file in board for record in inspect(file) if record["type"] == "run"}
    assert len(board) == 2
    assert len(ids) == 1


def test_a_leaderboard_that_cannot_be_logged_is_said(tmp_path, monkeypatch):
    def dead(**_):
        raise ConnectionError("down")

    monkeypatch.setattr("wandb.init", dead)
    said = tracking.log_leaderboard(polars.DataFrame(), group="first", project="lis", folder=tmp_path)
    assert said == ["The leaderboard is not in W&B: ConnectionError: down"]
