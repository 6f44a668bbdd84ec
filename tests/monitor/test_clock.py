"""Snapshots are taken by the schedule and at the end, also where Lightning does not see the optimizer's steps."""

from __future__ import annotations

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from lis_lightning.errors import LisWarning
from lis_lightning.monitor import clock
from lis_lightning.monitor.early_stopping import LISEarlyStopping
from lis_lightning.monitor.schedule import EveryEpochs
from lis_lightning.results.stopping import StopRule
from tests._helpers import small_run

EPOCH = small_run.EPOCH

pytestmark = [
    pytest.mark.filterwarnings("ignore:Using ModelCheckpoint with manual optimization"),
    pytest.mark.filterwarnings("ignore:`LightningModule.configure_optimizers` returned `None`"),
    *(pytest.mark.filterwarnings(f"ignore:{message}") for message in small_run.QUIET),
]


@pytest.fixture(scope="module")
def split():
    return small_run.make_split()


class Manual(small_run.Tower):
    """Steps its optimizer by hand."""

    automatic_optimization = False

    def configure_optimizers(self):
        self.bare = torch.optim.Adam(self.parameters(), lr=3e-2)
        return self.bare

    def optimizer_of_choice(self):
        return self.bare

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizer_of_choice()
        optimizer.zero_grad()
        self.manual_backward(super().training_step(batch, batch_idx))
        optimizer.step()


class Unwrapped(Manual):
    def optimizer_of_choice(self):
        return self.optimizers(use_pl_optimizer=False)


class Wrapped(Manual):
    def optimizer_of_choice(self):
        return self.optimizers()


class OwnOptimizer(Manual):
    """Lightning knows of no optimizer."""

    def configure_optimizers(self):
        super().configure_optimizers()


class AtBatchEnd(Manual):
    """Steps after the callbacks."""

    def training_step(self, batch, batch_idx):
        self.manual_backward(small_run.Tower.training_step(self, batch, batch_idx))

    def on_train_batch_end(self, *_):
        self.bare.step()
        self.bare.zero_grad()


class Automatic(small_run.Tower):
    """Lightning counts the steps of an optimizer that the module did not give it."""

    def configure_optimizers(self):
        self.bare = torch.optim.Adam(self.parameters(), lr=3e-2)

    def on_train_batch_end(self, *_):
        self.bare.step()
        self.bare.zero_grad()


class ByData(Manual):
    """Writes past autograd's version counters."""

    def training_step(self, batch, batch_idx):
        for parameter in self.parameters():
            parameter.data.mul_(0.99)


class Accumulating(Wrapped):
    """Steps Lightning's optimizer every third batch."""

    def training_step(self, batch, batch_idx):
        self.manual_backward(small_run.Tower.training_step(self, batch, batch_idx))
        if batch_idx % 3 == 2:
            self.optimizers().step()
            self.optimizers().zero_grad()


def train(folder, split, module, *callbacks, epochs=2, ckpt_path=None, **options):
    monitor = small_run.monitor_of(split, **{"every_n_steps": 4} | options)
    trainer = pl.Trainer(
        max_epochs=epochs, callbacks=[monitor, *callbacks], default_root_dir=folder, accelerator="cpu", logger=False,
        enable_checkpointing=bool(callbacks), enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, torch.utils.data.DataLoader(range(EPOCH)), ckpt_path=ckpt_path)
    return trainer, monitor


@pytest.mark.parametrize("module", [Manual, Unwrapped, OwnOptimizer, AtBatchEnd])
def test_batches_are_counted_where_steps_do_not_move(split, tmp_path, module):
    with pytest.warns(LisWarning, match="`trainer.global_step` stays 0.*Batches are counted") as caught:
        trainer, monitor = train(tmp_path, split, module())
    assert trainer.global_step == 0
    assert len([warning for warning in caught if warning.category is LisWarning]) == 1
    assert [result.step for result in monitor.results] == [0, 4, 8, 12, 14]
    assert len({result.ais for result in monitor.results}) == 5
    assert monitor.results[-1].verdict != ""


def test_the_last_snapshot_is_taken_if_no_weight_was_seen_to_change(split, tmp_path):
    with pytest.warns(LisWarning, match="stays 0"):
        _, monitor = train(tmp_path, split, ByData())
    assert [result.step for result in monitor.results] == [0, 14]


def test_batches_are_counted_after_a_while_if_no_weight_was_seen_to_change(split, tmp_path, monkeypatch):
    monkeypatch.setattr(clock, "PATIENCE", 6)
    with pytest.warns(LisWarning, match="stays 0"):
        _, monitor = train(tmp_path, split, ByData())
    assert [result.step for result in monitor.results] == [0, 6, 8, 12, 14]


@pytest.mark.parametrize(
    ("module", "expected"),
    [(Wrapped, [0, 4, 8, 12, 14]), (Accumulating, [0, 4]), (Automatic, [0, 4, 8, 12, 14])],
)
def test_steps_are_counted_where_they_move(split, tmp_path, module, expected):
    trainer, monitor = train(tmp_path, split, module())
    assert [result.step for result in monitor.results] == expected
    assert trainer.global_step == expected[-1]


def test_a_schedule_by_epochs_and_a_score_in_the_background_follow_the_batches(split, tmp_path):
    options = {"every_n_steps": None, "schedule": EveryEpochs(), "background_steps": 2}
    with pytest.warns(LisWarning, match="stays 0"):
        _, monitor = train(tmp_path, split, Manual(), epochs=3, **options)
    assert [result.step for result in monitor.results] == [0, 7, 14, 21]


def test_a_resumed_run_goes_on_counting_batches(split, tmp_path):
    save = ModelCheckpoint(tmp_path / "saved", every_n_epochs=1, save_top_k=-1, filename="{epoch}")
    with pytest.warns(LisWarning, match="stays 0"):
        _, whole = train(tmp_path / "whole", split, Manual(), epochs=3)
    with pytest.warns(LisWarning, match="stays 0"):
        trainer, _ = train(tmp_path, split, Manual(), save, epochs=1)
    trainer.save_checkpoint(tmp_path / "after.ckpt")
    _, resumed = train(tmp_path, split, Manual(), epochs=3, ckpt_path=tmp_path / "after.ckpt")
    assert [result.step for result in whole.results] == [0, 4, 8, 12, 16, 20, 21]
    assert [result.step for result in resumed.results] == [0, 4, 7, 8, 12, 16, 20, 21]


def test_a_second_fit_of_one_trainer_goes_on_and_of_another_starts_anew(split, tmp_path):
    with pytest.warns(LisWarning, match="stays 0"):
        trainer, monitor = train(tmp_path, split, Manual(), epochs=1)
    trainer.fit_loop.max_epochs = 2
    trainer.fit(trainer.lightning_module, torch.utils.data.DataLoader(range(EPOCH)))
    assert [result.step for result in monitor.results] == [0, 4, 7, 8, 12, 14]
    small_run.fit(tmp_path, monitor, steps=2)
    assert [result.step for result in monitor.results] == [0, 2]


def test_early_stopping_names_the_batch(split, tmp_path):
    rule = StopRule(min_gain=1.0, min_progress=0.0)  # no gain counts
    stop = LISEarlyStopping()
    with pytest.warns(LisWarning, match="stays 0"):
        train(tmp_path, split, Manual(), stop, epochs=9, rule=rule, every_n_steps=2, ceilings=())
    assert stop.stopped_step == 6
