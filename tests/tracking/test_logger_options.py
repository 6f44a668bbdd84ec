import os

import pytest
from pytorch_lightning.loggers import WandbLogger

from lis_lightning.tracking.logger_options import (
    drop_ignored_settings,
    is_wandb_config,
    leaderboard_destination,
    run_options,
)

CSV = {"_target_": "pytorch_lightning.loggers.CSVLogger"}
WANDB = {"_target_": "pytorch_lightning.loggers.WandbLogger", "project": "news"}


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    for name in ("WANDB_FINISH_TIMEOUT", "WANDB_QUIET", "WANDB_SILENT"):
        monkeypatch.setenv(name, "")  # so that what the function sets is undone
        monkeypatch.delenv(name)
    monkeypatch.setattr("lis_lightning.tracking.logger_options.wandb_mode", lambda: "offline")


@pytest.mark.parametrize("package", ["pytorch_lightning", "lightning.pytorch"])
def test_a_wandb_logger_is_told_by_its_class_whatever_its_name(package):
    assert is_wandb_config({"_target_": f"{package}.loggers.WandbLogger"})
    assert not is_wandb_config(CSV)


def test_other_loggers_get_their_folder_alone(tmp_path):
    assert run_options(CSV, tmp_path, "sweep") == {"save_dir": str(tmp_path)}
    assert "WANDB_FINISH_TIMEOUT" not in os.environ


def test_without_a_key_wandb_is_offline(tmp_path):
    assert run_options(WANDB, tmp_path) == {"save_dir": str(tmp_path), "mode": "offline"}


@pytest.mark.parametrize(("given", "used"), [(None, "300"), ("7", "7")])
def test_a_job_does_not_wait_for_an_unreachable_wandb_for_ever(tmp_path, monkeypatch, given, used):
    if given is not None:
        monkeypatch.setenv("WANDB_FINISH_TIMEOUT", given)
    run_options(WANDB, tmp_path)
    assert os.environ["WANDB_FINISH_TIMEOUT"] == used


def test_wandb_prints_no_history_and_offline_nothing_unless_the_user_wants_it(tmp_path, monkeypatch):
    run_options(WANDB, tmp_path)
    assert (os.environ["WANDB_QUIET"], os.environ["WANDB_SILENT"]) == ("true", "true")
    monkeypatch.delenv("WANDB_SILENT")
    monkeypatch.setenv("WANDB_QUIET", "false")
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setattr("lis_lightning.tracking.logger_options.wandb_mode", lambda: None)
    run_options(WANDB, tmp_path)
    assert os.environ["WANDB_QUIET"] == "false"
    assert "WANDB_SILENT" not in os.environ


def test_wandb_is_not_given_the_setting_that_it_warns_of(tmp_path, capsys):
    logger = WandbLogger(save_dir=tmp_path, mode="disabled")
    drop_ignored_settings(logger)
    drop_ignored_settings(object())
    logger.experiment.finish()  # the tests after this one open runs of their own
    assert "anonymous" not in capsys.readouterr().err


def test_a_job_of_a_sweep_is_one_run_of_the_group_and_resumed_where_there_is_a_server(tmp_path, monkeypatch):
    monkeypatch.setattr("lis_lightning.tracking.logger_options.wandb_mode", lambda: None)
    options = run_options(WANDB, tmp_path / "job", "first")
    assert (options["group"], options["resume"]) == ("first", "allow")
    assert options["id"] == run_options(WANDB, tmp_path / "elsewhere" / "job", "first")["id"]
    assert options["id"] != run_options(WANDB, tmp_path / "other", "first")["id"]
    assert "group" not in run_options(WANDB | {"group": "mine"}, tmp_path, "first")


def test_the_leaderboard_goes_to_the_group_of_the_jobs():
    assert leaderboard_destination({"csv": CSV, "wandb": None}, "first") is None
    own = leaderboard_destination({"mine": WANDB | {"group": "mine", "entity": "me"}}, "first")
    assert own == {"group": "mine", "project": "news", "entity": "me"}
