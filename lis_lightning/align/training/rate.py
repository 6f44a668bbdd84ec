"""How fast a training goes, and how fast it should learn."""

from __future__ import annotations

import copy
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from typing_extensions import override

from lis_lightning.align.data.examples import ExampleDataModule
from lis_lightning.align.training.console import rank_zero_print
from lis_lightning.align.training.module import AlignmentModule
from lis_lightning.errors import ConfigError
from lis_lightning.monitor.callback import LISMonitor

WINDOW = 20  # batches that a rate is the mean of
TRIED = 100  # learning rates
BURST = 4.0  # times the median of the losses before
SMOOTHING = 5.0  # of them: standard deviation of the window that losses are averaged in


class ItemRate(pl.Callback):
    """Logs ``train/items_per_second``: items encoded for training, by all processes, over the last batches.

    The time of snapshots and validations is left out, that of loading and of checkpoints not. Lightning's
    ThroughputMonitor counts snapshots too, and waits for the device at every batch. Stands before the monitor.

    Args:
        monitor: Whose snapshots are left out.
    """

    def __init__(self, monitor: LISMonitor) -> None:
        self.monitor = monitor
        self._laps: deque[tuple[float, int]] = deque(maxlen=WINDOW)
        self._began = 0.0

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit" and self._restart not in self.monitor.listeners:
            self.monitor.listeners.append(self._restart)

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit" and self._restart in self.monitor.listeners:
            self.monitor.listeners.remove(self._restart)

    def _restart(self, *_: Any) -> bool:
        self._began = time.perf_counter()
        return False

    @override
    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._restart()

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._restart()

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: dict[str, Any], batch_idx: int
    ) -> None:
        items = sum(len(part["rows"]) for part in batch.values())
        self._laps.append((time.perf_counter() - self._began, items))
        self._restart()
        seconds, items = (sum(column) for column in zip(*self._laps, strict=True))
        pl_module.log("train/items_per_second", trainer.world_size * items / max(seconds, 1e-9), batch_size=1)


class RangeTest(pl.Callback):
    """Trains each batch at a higher rate than the one before, and keeps the losses (Smith 2017).

    Lightning's Tuner does the same, but what it suggests was of no use here: 1e-7 for a model that learns at 1e-3. It
    looks for the steepest fall per unit of the rate, not of its logarithm, so that noise at tiny rates wins.

    Args:
        rates: One for each batch, rising.

    Attributes:
        losses: One for each batch that was trained; it ends where the loss bursts.
    """

    def __init__(self, rates: NDArray[np.float64]) -> None:
        self.rates = rates
        self.losses: list[float] = []

    @override
    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = float(self.rates[len(self.losses)])

    @override
    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *_: Any) -> None:
        self.losses.append(float(outputs["loss"]))
        if not self.losses[-1] <= BURST * np.median(self.losses):  # of small batches the lowest says little
            trainer.should_stop = True


def halfway(rates: NDArray[np.float64], losses: Sequence[float]) -> float | None:
    """Return the rate at which the loss is half-way down from where it began; None where it does not fall.

    On a fall that is as steep before as after, this is its steepest point; of noisy losses it is known far better.

    Args:
        rates: Rising by one factor.
        losses: Of the first of them; smoothed here, since each is of another batch.

    Example:
        >>> rates = np.geomspace(1e-6, 1.0, 100)
        >>> f"{halfway(rates, 1 / (1 + rates / 1e-3)):.0e}"
        '1e-03'
    """
    known = np.asarray(losses, dtype=float)
    known = known[: int(np.argmin(np.append(np.isfinite(known), False)))]
    if len(known) < 4 * SMOOTHING:
        return None
    smooth = gaussian_filter1d(known, SMOOTHING, mode="nearest")
    low = int(np.argmin(smooth))
    if not smooth[0] - smooth[low] > np.std(known - smooth):
        return None
    return float(rates[int(np.argmax(smooth <= (smooth[0] + smooth[low]) / 2))])


def find_learning_rate(
    make_trainer: Callable[..., pl.Trainer], module: AlignmentModule, batches: ExampleDataModule, folder: Path
) -> float | None:
    """Return the learning rate at which the loss of a copy is half-way down, and say it.

    The copy is trained for up to 100 steps at rates from 1e-6 to 1. The module is left as it is, and no callback or
    logger of the run is told.

    Args:
        make_trainer: Makes a Trainer.
        module: What is to be trained.
        batches: What on.
        folder: Of the run.

    Returns:
        The rate; None where the loss does not fall.

    Raises:
        ConfigError: If the training is one of several processes: each would find its own.
    """
    test = RangeTest(np.geomspace(1e-6, 1.0, TRIED))
    trainer = make_trainer(
        callbacks=[test], logger=False, default_root_dir=str(folder), enable_checkpointing=False, max_steps=TRIED,
        enable_progress_bar=False, limit_val_batches=0, accumulate_grad_batches=1,
    )  # fmt: skip
    if trainer.world_size > 1:
        raise ConfigError(
            f"training.find_learning_rate=true looks for it in one process, but there are {trainer.world_size}: look "
            "with trainer.devices=1 first, and give what it prints as training.learning_rate."
        )
    trainer.fit(copy.deepcopy(module), datamodule=copy.copy(batches))
    found = halfway(test.rates, test.losses)
    if found is None:
        rank_zero_print(f"learning rate: the loss falls nowhere from 1e-6 to 1; {module.learning_rate:.2g} is kept")
    else:
        rank_zero_print(
            f"learning rate: the loss is half-way down at {found:.2g}, which replaces {module.learning_rate:.2g}"
        )
    return found
