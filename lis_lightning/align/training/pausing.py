"""End a fit early, so that a later one continues exactly where it ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint
from typing_extensions import override


class Pause(Checkpoint):
    """Writes a checkpoint at an optimizer step, and ends the fit.

    Lightning runs checkpoint callbacks after all others. Put this one behind a ModelCheckpoint whose state the
    checkpoint should have.

    Args:
        step: Optimizer step, 1 or more.
        path: Of the checkpoint.

    Attributes:
        reached: Whether the fit was ended by this callback.
    """

    def __init__(self, step: int, path: Path) -> None:
        self.step = step
        self.path = path
        self.reached = False

    @override
    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        if not self.reached and trainer.global_step >= self.step:
            self.reached = True
            trainer.save_checkpoint(self.path)
            trainer.should_stop = True
