"""Checks of Lightning's own callbacks that would misread the scores of a monitor.

``trainer.callback_metrics`` holds the last snapshot's score until the next one. A callback that reads the metric
between snapshots gets a stale score, and cannot tell that it is the same one again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_warn

from lis_lightning.errors import ConfigError, LisWarning
from lis_lightning.monitor.schedule import EveryEpochs, EverySteps, EveryValidation, Schedule

AVERAGING = {"WeightAveraging", "StochasticWeightAveraging"}  # of pytorch_lightning or lightning.pytorch
FAMILIES = {"slice", "companion", "task", "period"}  # keys with a slash of their own


def warn_of_stale_scores(checkpoints: Iterable[Any], prefix: str, schedules: Sequence[Schedule]) -> None:
    """Warn when a stock ModelCheckpoint would rank a checkpoint by a stale score.

    A checkpoint saved between snapshots is ranked by the score of earlier weights, and the weights of the best snapshot
    may never be saved.

    Args:
        checkpoints: The checkpoint callbacks of a Trainer.
        prefix: Start of the monitor's keys.
        schedules: The monitor's schedules.
    """
    spacings = [schedule.n for schedule in schedules if isinstance(schedule, EverySteps)]
    before_validation = any(
        isinstance(schedule, EveryEpochs | EveryValidation) and schedule.n == 1 for schedule in schedules
    )
    for checkpoint in checkpoints:
        if getattr(checkpoint, "at_snapshots", False):  # it asks the monitor itself
            continue
        monitored = getattr(checkpoint, "monitor", None)
        # Lightning has no public way to ask when a checkpoint is due.
        every = getattr(checkpoint, "_every_n_train_steps", 0) or 0
        matches = any(every % n == 0 for n in spacings) if every else before_validation
        if is_ours(monitored, prefix) and not matches:
            when = f"every {every} steps" if every else "by epochs or by the clock"
            taken = f"every {spacings[0]} steps" if spacings else f"by {', '.join(map(repr, schedules))}"
            timing = f"every_n_train_steps={spacings[0]}, save_on_train_epoch_end=False, " if spacings else ""
            rank_zero_warn(
                f"ModelCheckpoint(monitor={monitored!r}) saves {when}, snapshots are taken {taken}: it will store "
                "later weights under the score of an earlier snapshot. Use "
                f"{'' if spacings else 'LISMonitor(schedule=EveryValidation()) and '}ModelCheckpoint("
                f"monitor={monitored!r}, mode='max', {timing}filename='best-{{step}}').",
                category=LisWarning,
            )


def warn_of_stale_counting(trainer: pl.Trainer, prefix: str, schedules: Sequence[Schedule]) -> None:
    """Warn when a stock EarlyStopping would count a stale score.

    Its `patience` counts checks. A check that reads the same score again counts as no improvement, so a run that
    improves at every snapshot may be stopped.

    Args:
        trainer: The Trainer in charge, its data loaders set up.
        prefix: Start of the monitor's keys.
        schedules: The monitor's schedules.
    """
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]  # set by Lightning's connector
    epoch, validation = _steps_between(trainer)
    for callback in callbacks:
        monitored = getattr(callback, "monitor", None)
        if not (is_ours(monitored, prefix) and hasattr(callback, "wait_count")):
            continue
        # Decided in the callback's `setup`; Lightning has no public way to read it.
        at_epochs = bool(getattr(callback, "_check_on_train_epoch_end", False))
        looks = epoch if at_epochs else validation
        if min((_spacing(schedule, epoch, validation) for schedule in schedules), default=math.inf) > looks:
            rank_zero_warn(
                f"{type(callback).__name__}(monitor={monitored!r}) looks every {looks:g} optimizer steps, at the end "
                f"of each {'epoch' if at_epochs else 'validation'}; snapshots are taken by "
                f"{', '.join(map(repr, schedules))}. Where there is no new one it counts the last again, and may stop "
                "a run that improves. Use LISEarlyStopping(), which counts snapshots, or "
                f"LISMonitor(schedule={'EveryEpochs' if at_epochs else 'EveryValidation'}()).",
                category=LisWarning,
            )


def _steps_between(trainer: pl.Trainer) -> tuple[float, float]:
    """Return the number of optimizer steps per epoch, and between two validations."""
    batches, each = float(trainer.num_training_batches), trainer.accumulate_grad_batches
    epoch = batches if math.isinf(batches) else math.ceil(batches / each)
    interval = float(trainer.val_check_batch or math.inf)
    if not trainer.enable_validation:
        return epoch, math.inf
    if interval < batches or not trainer.check_val_every_n_epoch:
        return epoch, max(1.0, interval // each)
    return epoch, epoch * trainer.check_val_every_n_epoch


def _spacing(schedule: Schedule, epoch: float, validation: float) -> float:
    """Return the most optimizer steps between two snapshots; infinite if that is not known in advance."""
    for kind, steps in ((EverySteps, 1.0), (EveryEpochs, epoch), (EveryValidation, validation)):
        if isinstance(schedule, kind):
            return schedule.n * steps
    return math.inf


def check_averaging(callbacks: Iterable[Any], monitor: Any) -> None:
    """Raise when a weight-averaging callback would replace the weights before the monitor's last snapshot.

    Snapshots score the weights in training. At the end of training an averaging callback puts its average into the
    module; a monitor after it would score that average as its last snapshot.

    Args:
        callbacks: The callbacks of a Trainer, in order.
        monitor: The monitor among them.

    Raises:
        ConfigError: If a WeightAveraging stands before the monitor.
    """
    for callback in takewhile(lambda callback: callback is not monitor, callbacks):
        if any(cls.__name__ in AVERAGING for cls in type(callback).__mro__):
            name = type(callback).__name__
            raise ConfigError(
                f"Expected LISMonitor before {name} among the Trainer's callbacks, got it behind: {name} ends the "
                "training by replacing the weights, and the last snapshot would be of others than those before. Use "
                f"Trainer(callbacks=[LISMonitor(...), {name}(...)])."
            )


def is_ours(monitored: Any, prefix: str) -> bool:
    """Return whether a callback's ``monitor`` is a key with this prefix (and not of a monitor with a longer one)."""
    if not isinstance(monitored, str) or not monitored.startswith(f"{prefix}/"):
        return False
    family, _, subkey = monitored.removeprefix(f"{prefix}/").partition("/")
    return not subkey or family in FAMILIES
