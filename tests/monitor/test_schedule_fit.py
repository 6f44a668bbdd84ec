"""Schedules in real Trainers: epochs, validations, clocks, signals and files, resumed and in two processes."""

from __future__ import annotations

import os
import signal

import pytest
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from torch.utils.data import DataLoader, IterableDataset

from lis_lightning.data.split import PreferenceSplit
from lis_lightning.monitor import scheduler as scheduler_module
from lis_lightning.monitor.on_demand import OnFile, OnSignal
from lis_lightning.monitor.schedule import (
    AtSteps,
    Budget,
    EveryEpochs,
    EveryMinutes,
    EveryValidation,
    LogSpaced,
)
from tests._helpers.training import Items, Tower, fit, make_log, monitor_of

pytestmark = [
    pytest.mark.filterwarnings("ignore:Found 1 module.s. in eval mode:UserWarning"),  # the frozen BatchNorm, on purpose
    pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning"),
    pytest.mark.filterwarnings("ignore:The number of training batches:UserWarning"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning"),  # resumed without the saver
    pytest.mark.filterwarnings("ignore:.*exists and is not empty:UserWarning"),
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before:UserWarning"),
]


@pytest.fixture(scope="module")
def split():
    return PreferenceSplit.from_log(make_log())


def scheduled(split, *schedule, **options):
    return monitor_of(split, every_n_steps=None, schedule=schedule, ceilings=(), placebo=False, **options)


def steps_of(monitor):
    return [result.step for result in monitor.results]


class Validated(Tower):
    def validation_step(self, batch, batch_idx):
        self.log("loss", self.encode_items(batch).square().mean())

    def val_dataloader(self):
        return DataLoader(Items(), batch_size=10, generator=torch.Generator())


class AtBatch(Callback):
    """Does something at the end of the batch of a step."""

    def __init__(self, actions):
        self.actions = actions

    def on_train_batch_end(self, trainer, *_):
        self.actions.get(trainer.global_step, lambda: None)()


@pytest.mark.parametrize(
    ("schedule", "options", "expected"),
    [
        pytest.param(EveryEpochs(), {"steps": 8}, [0, 3, 6, 8], id="epochs-of-3-steps"),
        pytest.param(EveryEpochs(2), {"steps": 13}, [0, 6, 12, 13], id="every-second"),
        pytest.param(EveryEpochs(), {"steps": 4, "accumulate_grad_batches": 2}, [0, 2, 4], id="accumulated"),
        pytest.param(AtSteps([1, 5]), {"steps": 7}, [0, 1, 5, 7], id="at"),
        pytest.param(AtSteps([1]), {"steps": 3, "accumulate_grad_batches": 3}, [0, 1, 3], id="at-accumulated"),
        pytest.param(LogSpaced(1, per_decade=3), {"steps": 12}, [0, 1, 2, 5, 10, 12], id="log"),
    ],
)
def test_steps(split, tmp_path, schedule, options, expected):
    fit(tmp_path, monitor := scheduled(split, schedule), **options)
    assert steps_of(monitor) == expected


def test_every_n_steps_and_a_schedule_go_together(split, tmp_path):
    fit(tmp_path, monitor := monitor_of(split, every_n_steps=4, schedule=AtSteps([3])), steps=9)
    assert steps_of(monitor) == [0, 3, 4, 8, 9]


def test_an_epoch_without_a_length_ends_too(split, tmp_path):
    class Endless(IterableDataset):
        def __iter__(self):
            yield from (Items()[row] for row in range(30))

    fit(tmp_path, monitor := scheduled(split, EveryEpochs()), steps=7, loader=DataLoader(Endless(), batch_size=10))
    assert steps_of(monitor) == [0, 3, 6, 7]


@pytest.mark.parametrize("sanity", [0, 2])
def test_a_snapshot_before_each_validation_but_the_sanity_check(split, tmp_path, sanity):
    seen = []

    def encode(module, batch):
        seen.append((module.trainer.global_step, module.trainer.sanity_checking, torch.is_inference_mode_enabled()))
        return module.encode_items(batch)

    monitor = scheduled(split, EveryValidation(), encode=encode)
    fit(tmp_path, monitor, module=Validated(), steps=7, val_check_interval=2, num_sanity_val_steps=sanity)
    assert steps_of(monitor) == [0, 2, 5, 7]  # Lightning counts the batches of each epoch from 0
    assert {(checking, inference) for _, checking, inference in seen} == {(False, False)}


def test_trainer_validate_takes_no_snapshot(split, tmp_path):
    monitor = scheduled(split, EveryValidation())
    trainer, module = fit(tmp_path, monitor, module=Validated(), steps=3)
    trainer.validate(module, verbose=False)
    assert steps_of(monitor) == [0, 3]


def test_fast_dev_run_takes_the_raw_snapshot_only(split, tmp_path):
    monitor = scheduled(split, EveryEpochs(), EveryValidation(), OnFile(), OnSignal(), Budget(0.5))
    fit(tmp_path, monitor, module=Validated(), steps=-1, fast_dev_run=True)
    assert steps_of(monitor) == [0]
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL


@pytest.mark.parametrize("name", ["SIGUSR1", "SIGUSR2"])
def test_a_signal_takes_a_snapshot(split, tmp_path, name):
    monitor = scheduled(split, OnSignal(name))
    send = AtBatch({3: lambda: os.kill(os.getpid(), signal.Signals[name])})
    fit(tmp_path, send, monitor, steps=6)
    assert steps_of(monitor) == [0, 3, 6]
    assert signal.getsignal(signal.Signals[name]) == signal.SIG_DFL


def test_the_handler_goes_when_the_training_raises(split, tmp_path):
    def fail():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fit(tmp_path, scheduled(split, OnSignal()), AtBatch({2: fail}))
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL


def test_a_file_in_the_run_folder_takes_a_snapshot(split, tmp_path):
    monitor = scheduled(split, OnFile(poll_seconds=0))
    touch = AtBatch({2: (tmp_path / "snapshot").touch, 5: (tmp_path / "snapshot").touch})
    fit(tmp_path, touch, monitor, steps=8)
    assert steps_of(monitor) == [0, 2, 5, 8]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["items.parquet", "record.jsonl"]


class Clock:
    """Time passes by the step, and with each snapshot."""

    def __init__(self, monkeypatch, module, per_step, per_snapshot):
        self.now = 1000.0
        monkeypatch.setattr(scheduler_module.time, "perf_counter", lambda: self.now)
        module.on_train_batch_end = lambda *_: self.passes(per_step)
        self.per_snapshot = per_snapshot

    def passes(self, seconds):
        self.now += seconds

    def encode(self, module, batch):
        if len(batch["item_id"]) < 7:  # the last batch of 30 items
            self.passes(self.per_snapshot)
        return module.encode_items(batch)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        # The callback's hook runs before the module's: step n begins at 10 (n - 1) seconds, and 8 for each snapshot.
        pytest.param(EveryMinutes(1), [0, 7, 13, 19, 21], id="minutes"),  # at 60, 128 and 196 seconds
        pytest.param(Budget(0.2), [0, 5, 9, 12, 15, 18, 21], id="budget"),  # 8 of 40 seconds, 16 of 88, 24 of 126 ...
    ],
)
def test_the_clock_of_the_training_is_asked(split, tmp_path, monkeypatch, schedule, expected):
    module = Tower()
    clock = Clock(monkeypatch, module, per_step=10.0, per_snapshot=8.0)
    fit(tmp_path, monitor := scheduled(split, schedule, encode=clock.encode), module=module, steps=21)
    assert steps_of(monitor) == expected


def test_a_resumed_run_goes_on_with_its_schedule(split, tmp_path):
    schedules = (LogSpaced(1, per_decade=3), EveryEpochs(2))
    whole = scheduled(split, *schedules, dirpath=tmp_path / "whole")
    save = ModelCheckpoint(tmp_path / "ckpt", every_n_train_steps=4, save_top_k=-1, filename="{step}")
    fit(tmp_path, whole, save, steps=14, enable_checkpointing=True)
    resumed = scheduled(split, *schedules, dirpath=tmp_path / "resumed")
    fit(tmp_path, resumed, steps=14, ckpt_path=tmp_path / "ckpt" / "step=8.ckpt")
    assert steps_of(whole) == steps_of(resumed) == [0, 1, 2, 5, 6, 10, 12, 14]
    assert [result.ais for result in whole.results[:5]] == [result.ais for result in resumed.results[:5]]
