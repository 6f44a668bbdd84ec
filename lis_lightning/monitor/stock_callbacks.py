"""Checks of Lightning's own callbacks that would misread the scores of a monitor.

``trainer.callback_metrics`` holds the last snapshot's score until the next one. A callback that reads the metric
between snapshots gets a stale score, and cannot tell that it is the same one again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import Any, Self

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_warn
from typing_extensions import override

from lis_lightning.errors import ConfigError, LisWarning
from lis_lightning.monitor.schedule import EveryEpochs, EverySteps, EveryValidation, Schedule
from lis_lightning.results.keys import FAMILIES

AVERAGING = {"WeightAveraging", "StochasticWeightAveraging"}  # of pytorch_lightning or lightning.pytorch


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
    before_validation = EveryEpochs(1) in schedules or EveryValidation(1) in schedules
    for checkpoint in checkpoints:
        if getattr(checkpoint, "at_snapshots", False):  # it asks the monitor itself
            continue
        monitored = getattr(checkpoint, "monitor", None)
        # Lightning has no public way to ask when a checkpoint is due.
        every = getattr(checkpoint, "_every_n_train_steps", 0) or 0
        matches = before_validation
        if every:
            matches = any(every % n == 0 for n in spacings)
        if is_ours(monitored, prefix) and not matches:
            saved = f"every {every} steps" if every else "by epochs or by the clock"
            if spacings:
                taken, schedule_hint = f"every {spacings[0]} steps", ""
                timing = f"every_n_train_steps={spacings[0]}, save_on_train_epoch_end=False, "
            else:
                taken, schedule_hint = f"by {_listed(schedules)}", "LISMonitor(schedule=EveryValidation()) and "
                timing = ""
            rank_zero_warn(
                f"ModelCheckpoint(monitor={monitored!r}) saves {saved}, snapshots are taken {taken}: a checkpoint will "
                f"store later weights with the score of an earlier snapshot. Use {schedule_hint}ModelCheckpoint("
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
        if getattr(callback, "_check_on_train_epoch_end", False):
            check_every, check_end, suggestion = epoch, "epoch", "EveryEpochs"
        else:
            check_every, check_end, suggestion = validation, "validation", "EveryValidation"
        spacings = [_spacing(schedule, epoch, validation) for schedule in schedules]
        if min(spacings, default=math.inf) > check_every:
            rank_zero_warn(
                f"{type(callback).__name__}(monitor={monitored!r}) checks every {check_every:g} optimizer steps, at "
                f"the end of each {check_end}; snapshots are taken by {_listed(schedules)}. A check without a new "
                "snapshot counts the last score again, and may stop a run that improves. Use LISEarlyStopping(), which "
                f"counts snapshots, or LISMonitor(schedule={suggestion}()).",
                category=LisWarning,
            )


def _listed(schedules: Iterable[Schedule]) -> str:
    """Return schedules as text."""
    return ", ".join(map(repr, schedules))


def _steps_between(trainer: pl.Trainer) -> tuple[float, float]:
    """Return the number of optimizer steps per epoch, and between two validations."""
    batches, accumulated = float(trainer.num_training_batches), trainer.accumulate_grad_batches
    epoch = batches if math.isinf(batches) else math.ceil(batches / accumulated)
    interval = float(trainer.val_check_batch or math.inf)
    if not trainer.enable_validation:
        return epoch, math.inf
    if interval < batches or not trainer.check_val_every_n_epoch:
        return epoch, max(1.0, interval // accumulated)
    return epoch, epoch * trainer.check_val_every_n_epoch


def _spacing(schedule: Schedule, epoch: float, validation: float) -> float:
    """Return the largest number of optimizer steps between two snapshots; infinite if it is not known in advance."""
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
                f"Expected LISMonitor before {name} in the Trainer's callbacks, got it after. {name} replaces the "
                "weights by their average when the training ends: the last snapshot would score the average, the "
                f"snapshots before it the weights in training. Use Trainer(callbacks=[LISMonitor(...), {name}(...)])."
            )


def is_ours(monitored: Any, prefix: str) -> bool:
    """Return whether a callback's ``monitor`` is a key with this prefix (and not of a monitor with a longer one)."""
    if not isinstance(monitored, str) or not monitored.startswith(f"{prefix}/"):
        return False
    family, _, subkey = monitored.removeprefix(f"{prefix}/").partition("/")
    return not subkey or family in FAMILIES


class UniqueKey(str):
    """Key of a monitor while a Trainer compares the keys of its callbacks; equal keys of two monitors raise."""

    _owner: object

    def __new__(cls, key: str, owner: object) -> Self:
        """Return the key of one monitor."""
        unique = super().__new__(cls, key)
        unique._owner = owner
        return unique

    __hash__ = str.__hash__

    @override
    def __eq__(self, other: object) -> bool:
        if isinstance(other, UniqueKey) and self._owner is not other._owner and str(self) == str(other):
            raise ConfigError(
                "Several LISMonitors of one Trainer need different names, got two of the same: use "
                'LISMonitor(..., name="text") and LISMonitor(..., name="images"). The name is part of their keys, '
                "lis/text/ais, and of the names of their records."
            )
        return super().__eq__(other)
