"""Lightning's own ModelCheckpoint beside a monitor: when it would keep weights that its score does not belong to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pytorch_lightning.utilities import rank_zero_warn

from lis_lightning.errors import LisWarning

FAMILIES = {"slice", "companion", "task", "period"}  # keys with a slash of their own


def warn_of_stale_scores(checkpoints: Iterable[Any], prefix: str, every_n_steps: int) -> None:
    """Warn of each ModelCheckpoint that ranks by one of our keys but saves at other steps than a snapshot's.

    ``trainer.callback_metrics`` keeps the last snapshot's score until the next one. A checkpoint saved in between is
    ranked by the score of weights that are gone, and the file of the best snapshot may never be written.

    Args:
        checkpoints: The checkpoint callbacks of a Trainer.
        prefix: What our keys start with.
        every_n_steps: Optimizer steps between snapshots.
    """
    for checkpoint in checkpoints:
        monitored = getattr(checkpoint, "monitor", None) or ""
        family, _, rest = monitored.removeprefix(f"{prefix}/").partition("/")
        ours = monitored.startswith(f"{prefix}/") and (not rest or family in FAMILIES)  # else of a named monitor
        # Lightning has no public way to ask when a checkpoint is due.
        every = getattr(checkpoint, "_every_n_train_steps", 0) or 0
        if ours and (not every or every % every_n_steps):
            when = f"every {every} steps" if every else "by epochs or by the clock"
            rank_zero_warn(
                f"ModelCheckpoint(monitor={monitored!r}) saves {when}, snapshots are taken every {every_n_steps} "
                "steps: it will store later weights under the score of an earlier snapshot. Use ModelCheckpoint("
                f"monitor={monitored!r}, mode='max', every_n_train_steps={every_n_steps}, "
                "save_on_train_epoch_end=False, filename='best-{step}').",
                category=LisWarning,
            )
