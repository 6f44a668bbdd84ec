"""What a real training tells people and W&B through the monitor: alerts, and the best snapshot as an artifact."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pytorch_lightning.loggers import CSVLogger, WandbLogger

from lis_lightning.errors import ConfigError, LisWarning
from lis_lightning.monitor import run_history as history
from lis_lightning.monitor.announcer import Announcer, check_logging
from lis_lightning.monitor.early_stopping import LISEarlyStopping
from lis_lightning.monitor.failures import Failures
from lis_lightning.monitor.storage import read_manifest
from lis_lightning.monitor.training import Training
from lis_lightning.results.verdict import Judgement
from tests._helpers import small_run
from tests._helpers.small_results import FROZEN_KEYS, MORE_KEYS, RESULTS
from tests._helpers.wandb_files import Run, quiet_home

real = pytest.mark.slow  # a training with a W&B run of its own
SAID = ["warming-up", "improving", "plateau", "plateau", "improving", "overfitting", "overfitting"]


def judge(results, rule=None, **options):
    """Say one word of SAID after another, and stop at the last."""
    verdict = SAID[len(results) - 1]
    stop = len(results) == len(SAID)
    return Judgement(
        verdict=verdict, message=f"about {verdict}.", stop=stop, reason="it falls" if stop else "", best=0, gain_z=0.0
    )


@pytest.fixture(autouse=True)
def _home(monkeypatch, tmp_path):
    quiet_home(monkeypatch, tmp_path / "home")


def logger_of(folder):
    return WandbLogger(project="lis", save_dir=folder, mode="offline")


def train(folder, *callbacks, steps=12, **options):
    logger = logger_of(folder)
    monitor = small_run.monitor_of(small_run.make_split(), dirpath=folder / "own", **options)
    trainer, _ = small_run.fit(folder, monitor, *callbacks, steps=steps, logger=logger)
    logger.experiment.finish()
    return trainer, monitor, Run(folder / "wandb")


@real
def test_people_are_told_once_of_each_verdict_to_act_on_and_of_the_stop(tmp_path, monkeypatch):
    monkeypatch.setattr(history, "judge", judge)
    trainer, _, run = train(tmp_path, LISEarlyStopping(), steps=40)
    assert trainer.global_step == 12
    assert [(alert["title"], alert["level"]) for alert in run.of("alert")] == [
        ("lis: plateau", "INFO"), ("lis: overfitting", "WARN"), ("lis: stopping, overfitting", "WARN"),
    ]  # fmt: skip
    assert run.of("alert")[-1]["text"] == "Step 12: about overfitting. Stopping: it falls."


@real
def test_without_early_stopping_nothing_is_said_to_stop(tmp_path, monkeypatch):
    monkeypatch.setattr(history, "judge", judge)
    _, _, run = train(tmp_path)
    assert [alert["title"] for alert in run.of("alert")] == ["lis: plateau", "lis: overfitting"]


@real
def test_alerts_can_be_switched_off(tmp_path, monkeypatch):
    monkeypatch.setattr(history, "judge", judge)
    _, _, run = train(tmp_path, alerts=False)
    assert run.of("alert") == []


@real
@pytest.mark.parametrize("strict", [False, True])
def test_an_alert_that_fails_stops_nothing(tmp_path, monkeypatch, strict):
    import wandb

    def alert(*_, **__):
        raise ConnectionError("down")

    monkeypatch.setattr(history, "judge", judge)
    monkeypatch.setattr(wandb.Run, "alert", alert)
    with pytest.warns(LisWarning, match="WandbLogger raised ConnectionError: down"):
        trainer, monitor, _ = train(tmp_path, strict=strict)
    assert trainer.global_step == 12
    assert len(monitor.results) == 7


@real
def test_the_best_snapshot_is_an_artifact_where_it_is_wanted(tmp_path):
    _, monitor, run = train(tmp_path, steps=4, save="best", artifact=True)
    (artifact,) = [record for record in run.of("artifact") if record["type"] == "representations"]
    about = json.loads(artifact["metadata"])
    best = monitor.best
    assert (about["step"], about["ais"], about["split_hash"]) == (best.step, best.ais, monitor.split.hash)
    (entry,) = artifact["manifest"]["contents"]
    manifest = read_manifest(entry["local_path"])  # W&B's own copy
    assert (manifest["step"], manifest["ais"]) == (best.step, best.ais)


@real
def test_there_is_no_artifact_unless_it_is_wanted(tmp_path):
    _, _, run = train(tmp_path, steps=2, save="best")
    assert [record["type"] for record in run.of("artifact")] == ["run_table"] * 3  # snapshots, slices, movers


@pytest.mark.parametrize("save", [None, "last-3"])
def test_an_artifact_needs_the_best_snapshot_on_disk(save):
    with pytest.raises(ConfigError, match=rf"expected `save` to be 'best' or 'all', got {save!r}"):
        small_run.monitor_of(small_run.make_split(), save=save, artifact=True)


@pytest.mark.parametrize(("log_more", "keys"), [(False, FROZEN_KEYS), (True, FROZEN_KEYS | MORE_KEYS)])
def test_the_loggers_get_more_keys_on_request(tmp_path, log_more, keys):
    logger = CSVLogger(tmp_path)
    announcer = Announcer("lis", Failures(lambda **_: None), alerts=False, log_more=log_more, progress=False)
    announcer.log_result(Training(0, loggers=[logger]), RESULTS[:1], RESULTS[0])
    header = (Path(logger.log_dir) / "metrics.csv").read_text().splitlines()[0]
    assert set(header.split(",")) == keys | {"step"}


@pytest.mark.parametrize("name", ["more", "task", "period"])
def test_a_name_that_would_hide_other_keys_is_refused(name):
    with pytest.raises(ConfigError, match=rf"lis/more, lis/task, lis/period are .* another name, got '{name}'"):
        check_logging(name, False, None)
