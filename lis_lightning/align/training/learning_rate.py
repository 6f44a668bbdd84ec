"""The learning rate range test: train at rising rates, and take the rate at which the loss has fallen half-way."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from typing_extensions import override

from lis_lightning.align.data.data_module import ExampleDataModule
from lis_lightning.align.training.console import rank_zero_print
from lis_lightning.align.training.module import AlignmentModule
from lis_lightning.errors import ConfigError

NUM_RATES = 100
DIVERGED = 4.0  # times the median of the losses so far
SMOOTHING = 5.0  # standard deviation of the window that losses are averaged in, in rates


class RangeTest(pl.Callback):
    """Trains each batch at a higher learning rate than the one before, and stores the losses (Smith 2017).

    Lightning's Tuner does the same, but its suggestion was of no use here: 1e-7 for a model that learns at 1e-3. It
    looks for the steepest fall per unit of the rate and not of its logarithm, so that noise at tiny rates decides.

    Args:
        rates: One for each batch, increasing: of the head. The rate of the model under it keeps its ratio to that.

    Attributes:
        losses: One for each batch that was trained; the test ends when the loss diverges.
    """

    def __init__(self, rates: NDArray[np.float64]) -> None:
        self.rates = rates
        self.losses: list[float] = []

    @override
    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        rate = float(self.rates[len(self.losses)])
        highest: Any = pl_module.learning_rate
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * (group["initial_lr"] / highest)

    @override
    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *_: Any) -> None:
        self.losses.append(float(outputs["loss"]))
        # Against the median, since with small batches the lowest loss is mostly noise.
        if not self.losses[-1] <= DIVERGED * np.median(self.losses):
            trainer.should_stop = True


def halfway(rates: NDArray[np.float64], losses: Sequence[float]) -> float | None:
    """Return the rate at which the loss has fallen half-way to its minimum; None if it does not fall.

    For a fall that is symmetric on the logarithmic axis this is the steepest point, and with noisy losses it can be
    estimated far better.

    Args:
        rates: Increasing by a constant factor.
        losses: At the first rates; smoothed here, since each is of another batch.

    Example:
        >>> rates = np.geomspace(1e-6, 1.0, 100)
        >>> f"{halfway(rates, 1 / (1 + rates / 1e-3)):.0e}"
        '1e-03'
    """
    values = np.asarray(losses, dtype=float)
    values = values[: int(np.argmin(np.append(np.isfinite(values), False)))]  # up to the first that is not finite
    if len(values) < 4 * SMOOTHING:
        return None
    smooth = gaussian_filter1d(values, SMOOTHING, mode="nearest")
    low = int(np.argmin(smooth))
    # A fall that is smaller than the noise is none.
    if not smooth[0] - smooth[low] > np.std(values - smooth):
        return None
    return float(rates[int(np.argmax(smooth <= (smooth[0] + smooth[low]) / 2))])


def find_learning_rate(
    make_trainer: Callable[..., pl.Trainer], module: AlignmentModule, batches: ExampleDataModule, folder: Path
) -> float | None:
    """Run the range test on a copy of the module, print the learning rate, and return it.

    The copy is trained for up to 100 steps at rates from 1e-6 to 1. The module itself is not changed, and no callback
    or logger of the run takes part.

    Args:
        make_trainer: Makes a Trainer.
        module: The module.
        batches: Its training data.
        folder: Of the run.

    Returns:
        The rate; None if the loss does not fall.

    Raises:
        ConfigError: If several processes train, since each would find its own rate.
    """
    test = RangeTest(np.geomspace(1e-6, 1.0, NUM_RATES))
    trainer = make_trainer(
        callbacks=[test], logger=False, default_root_dir=str(folder), enable_checkpointing=False, max_steps=NUM_RATES,
        enable_progress_bar=False, limit_val_batches=0, accumulate_grad_batches=1,
    )  # fmt: skip
    if trainer.world_size > 1:
        raise ConfigError(
            f"training.find_learning_rate=true looks for it in one process, but there are {trainer.world_size}: look "
            "with trainer.devices=1 first, and give what it prints as training.learning_rate."
        )
    trainer.fit(copy.deepcopy(module), datamodule=copy.copy(batches))
    rate = halfway(test.rates, test.losses)
    if rate is None:
        rank_zero_print(f"learning rate: the loss falls at no rate from 1e-6 to 1; {module.learning_rate:.2g} is used")
    else:
        rank_zero_print(
            f"learning rate: the loss is half-way down at {rate:.2g}, which replaces {module.learning_rate:.2g}"
        )
    return rate
