"""Lightning's own ModelCheckpoint beside a monitor: when it would keep weights that its score does not belong to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from pytorch_lightning.utilities import rank_zero_warn

from lis_lightning.errors import ConfigError, LisWarning
from lis_lightning.schedule import EveryEpochs, EverySteps, EveryValidation, Schedule

AVERAGING = {"WeightAveraging", "StochasticWeightAveraging"}  # of pytorch_lightning or lightning.pytorch
FAMILIES = {"slice", "companion", "task", "period"}  # keys with a slash of their own


def warn_of_stale_scores(checkpoints: Iterable[Any], prefix: str, schedules: Sequence[Schedule]) -> None:
    """Warn of each ModelCheckpoint that ranks by one of our keys but saves at other steps than a snapshot's.

    ``trainer.callback_metrics`` keeps the last snapshot's score until the next one. A checkpoint saved in between is
    ranked by the score of weights that are gone, and the file of the best snapshot may never be written.

    Args:
        checkpoints: The checkpoint callbacks of a Trainer.
        prefix: What our keys start with.
        schedules: When snapshots are taken.
    """
    spacings = [schedule.n for schedule in schedules if isinstance(schedule, EverySteps)]
    before_validation = any(isinstance(one, EveryEpochs | EveryValidation) and one.n == 1 for one in schedules)
    for checkpoint in checkpoints:
        monitored = getattr(checkpoint, "monitor", None) or ""
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


def check_averaging(callbacks: Sequence[Any], monitor: Any) -> None:
    """Refuse weight averaging that would end the training before the monitor's last snapshot.

    Snapshots are of the weights in training. At the end an averaging callback puts its average into the module; a
    monitor behind it would score that one last, and its curve would be of two kinds of weights.

    Args:
        callbacks: The callbacks of a Trainer, in their order.
        monitor: One of them.

    Raises:
        ConfigError: If a WeightAveraging stands before the monitor.
    """
    for callback in callbacks[: list(callbacks).index(monitor)]:
        if any(cls.__name__ in AVERAGING for cls in type(callback).__mro__):
            name = type(callback).__name__
            raise ConfigError(
                f"Expected LISMonitor before {name} among the Trainer's callbacks, got it behind: {name} ends the "
                "training by replacing the weights, and the last snapshot would be of others than those before. Use "
                f"Trainer(callbacks=[LISMonitor(...), {name}(...)])."
            )


def is_ours(key: str, prefix: str) -> bool:
    """Whether a key is one of the monitor whose keys start with a prefix, not of one with a longer name."""
    family, _, rest = key.removeprefix(f"{prefix}/").partition("/")
    return key.startswith(f"{prefix}/") and (not rest or family in FAMILIES)
