"""Failing snapshots beside each stock callback that reads the score: the training goes on, nothing is miscounted."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
import torch
from pytorch_lightning.callbacks import (
    EarlyStopping,
    LearningRateMonitor,
    ModelCheckpoint,
    StochasticWeightAveraging,
)
from pytorch_lightning.loggers import CSVLogger
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader

from lis_lightning.errors import LisWarning
from lis_lightning.monitor.missing_scores import MissingScores
from tests._helpers import small_run

STEPS = 8

pytestmark = [
    pytest.mark.filterwarnings("ignore:LISMonitor. the snapshot of step"),
    pytest.mark.filterwarnings("ignore:LISMonitor. .* will read a placeholder"),
    pytest.mark.filterwarnings("ignore:.*checks every 7 optimizer steps"),
    pytest.mark.filterwarnings("ignore:.*saves by epochs or by the clock"),
    pytest.mark.filterwarnings("ignore:Swapping scheduler"),
]


@pytest.fixture(scope="module")
def split():
    return small_run.make_split()


class Validated(small_run.Tower):
    """Validates after every two batches: stock callbacks check there."""

    def validation_step(self, batch, batch_idx):
        pass

    def val_dataloader(self):
        return DataLoader(range(1))


class Plateau(Validated):
    """Lowers its learning rate when the score does not rise."""

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=3e-2)
        schedule = ReduceLROnPlateau(optimizer, mode="max", patience=0)
        options = {"scheduler": schedule, "monitor": "lis/ais", "interval": "step", "frequency": 2, "strict": True}
        return {"optimizer": optimizer, "lr_scheduler": options}


def failing(*steps):
    """Return an encoder that fails at these steps; with none given, at all."""

    def encode(module, batch):
        if not steps or module.global_step in steps:
            raise OSError("storage is down")
        return module.encode_items(batch)

    return encode


def train(folder, split, *callbacks, fails=(), module=None, **options):
    monitor = small_run.monitor_of(split, encode=failing(*fails))
    options = {"val_check_interval": 2, "check_val_every_n_epoch": None} | options
    trainer, module = small_run.fit(folder, monitor, *callbacks, steps=STEPS, module=module or Validated(), **options)
    return trainer, module, monitor


@pytest.mark.parametrize("fails", [(), (0,), (2, 4), (0, 2, 4)], ids=["all", "raw", "middle", "first three"])
@pytest.mark.parametrize(
    "stock",
    [
        lambda folder: EarlyStopping("lis/ais", mode="max", patience=1),
        lambda folder: EarlyStopping("lis/ais", mode="max", patience=9, divergence_threshold=-0.5),
        lambda folder: EarlyStopping("lis/ais_low", mode="min", patience=9),
        lambda folder: ModelCheckpoint(folder, monitor="lis/ais", mode="max", save_top_k=2, filename="{step}"),
        lambda folder: ModelCheckpoint(
            folder, monitor="lis/ais", mode="max", every_n_train_steps=2, save_top_k=2, filename="{step}"
        ),
        lambda folder: LearningRateMonitor("step"),
        lambda folder: StochasticWeightAveraging(1e-2, swa_epoch_start=1, annealing_epochs=1),
    ],
    ids=["patience", "divergence", "min", "checkpoint", "checkpoint by steps", "learning rate", "averaging"],
)
def test_a_failure_ends_no_training_beside_a_stock_callback(split, tmp_path, stock, fails):
    options = {"logger": CSVLogger(tmp_path)}
    callback = stock(tmp_path / "checkpoints")
    if isinstance(callback, EarlyStopping) and callback.patience == 1:
        callback.min_delta = -1.0  # every score counts as a rise: only failures could exhaust the patience
    trainer, _, monitor = train(tmp_path, split, callback, fails=fails, **options)
    assert trainer.global_step == STEPS
    failed = fails or (0, 2, 4, 6, 8)
    scored = [step for step in range(0, STEPS + 1, 2) if step not in failed]
    assert [result.step for result in monitor.results] == scored


@pytest.mark.parametrize("fails", [(), (0, 2, 4)], ids=["all", "first three"])
def test_a_failure_lowers_no_learning_rate(split, tmp_path, fails):
    trainer, _, _ = train(tmp_path, split, module=Plateau(), fails=fails)
    assert trainer.global_step == STEPS
    if not fails:
        assert trainer.optimizers[0].param_groups[0]["lr"] == 3e-2


def test_a_checkpoint_of_a_failed_snapshot_is_replaced_by_a_scored_one(split, tmp_path):
    save = ModelCheckpoint(
        tmp_path, monitor="lis/ais", mode="max", every_n_train_steps=2, save_top_k=1, filename="{step}",
        save_on_train_epoch_end=False,
    )  # fmt: skip
    _, _, monitor = train(tmp_path, split, save, fails=(0, 2))
    best = max(monitor.results, key=lambda result: result.ais)
    assert float(save.best_model_score) == pytest.approx(best.ais)


def test_a_misspelt_metric_is_named_by_lightning_once_a_snapshot_is_scored(split, tmp_path):
    stop = EarlyStopping("lis/aiss", mode="max", patience=9)
    with pytest.raises(RuntimeError, match=r"lis/aiss.*not available"):
        train(tmp_path, split, stop, fails=(0,))


def test_the_placeholder_is_announced(split, tmp_path):
    with pytest.warns(LisWarning, match=r"EarlyStopping will read a placeholder.*\['lis/ais'\] until"):
        train(tmp_path, split, EarlyStopping("lis/ais", mode="max", patience=9), fails=(0,))


def test_failures_between_two_checks_excuse_one_check():
    stop = EarlyStopping("lis/ais", mode="max", patience=3)
    metrics = {"lis/ais": torch.tensor(1.0)}
    trainer = SimpleNamespace(callbacks=[stop], lr_scheduler_configs=[], callback_metrics=metrics)
    missing = MissingScores("lis")
    stop.wait_count = 2
    for _ in range(3):
        missing.failed(trainer)
    assert stop.wait_count == 1
    stop.wait_count += 1  # a check
    missing.failed(trainer)
    assert stop.wait_count == 1


def test_a_monitor_that_failed_every_time_is_in_the_summary(split, tmp_path, caplog):
    monitor = small_run.monitor_of(split, encode=failing(), name="text", progress=True)
    with caplog.at_level(logging.INFO):
        small_run.fit(tmp_path, monitor, steps=4)
    assert "text: 0 of 3 snapshots scored, last error OSError: storage is down" in caplog.text
