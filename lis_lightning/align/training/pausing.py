"""End a fit early in such a way that another one goes on as if it had not ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint
from typing_extensions import override


class Pause(Checkpoint):
    """Write a checkpoint at an optimizer step, and end the fit there.

    Being a checkpoint callback, it comes after the others; put it behind a ModelCheckpoint whose state it is to keep.

    Args:
        step: Optimizer step.
        path: Of the checkpoint.

    Attributes:
        reached: Whether the fit was ended.
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
