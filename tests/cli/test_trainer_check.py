"""What Lightning refuses is told before anything is loaded, and no job of a sweep starts the sweep again."""

import logging

import pytest
from omegaconf import OmegaConf

from lis_lightning.cli.trainer_check import refuse_own_processes, trial_trainer
from lis_lightning.errors import ConfigError


def settings(**options):
    given = {"_target_": "pytorch_lightning.Trainer", "_partial_": True, "accelerator": "cpu", "max_steps": 3}
    return OmegaConf.create({"trainer": {**given, "devices": 1, "strategy": "auto", **options}})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "foo"}, "Precision 'foo' is invalid"),
        ({"max_steps": -5}, "`max_steps` must be a non-negative integer or -1"),
        ({"devices": 0}, r"`Trainer\(devices=0\)` value is not a valid input"),
        ({"strategy": "foo"}, "You selected an invalid strategy name: `strategy='foo'`"),
    ],
)
def test_what_the_trainer_refuses_is_said_in_its_words(options, message):
    with pytest.raises(ConfigError, match=rf"Lightning's Trainer refuses what `trainer` says: {message}"):
        trial_trainer(settings(**options))


def test_a_trainer_on_trial_says_nothing_and_lets_others_speak(caplog):
    caplog.set_level(logging.INFO)
    assert trial_trainer(settings()).max_steps == 3
    assert not caplog.records
    assert not logging.getLogger("pytorch_lightning.utilities.rank_zero").disabled


def test_a_sweep_of_jobs_that_start_processes_is_refused():
    with pytest.raises(ConfigError, match=r"trainer.strategy=ddp with trainer.devices=2 starts this command once more"):
        refuse_own_processes(settings(devices=2, strategy="ddp"))


def test_a_sweep_of_jobs_in_one_process_or_in_those_of_a_cluster_is_not(monkeypatch):
    refuse_own_processes(settings())
    refuse_own_processes(settings(strategy="ddp"))
    refuse_own_processes(settings(precision="foo"))  # the job says so, and the others go on
    for name, value in {"WORLD_SIZE": 2, "RANK": 0, "LOCAL_RANK": 0, "GROUP_RANK": 0, "LOCAL_WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))
    for name in ("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID"):
        monkeypatch.setenv(name, "1")
    refuse_own_processes(settings(devices=2, strategy="ddp"))  # torchrun starts them
