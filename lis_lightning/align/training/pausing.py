"""End a fit early, so that a later one continues exactly where it ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from typing_extensions import override


class Pause(Checkpoint):
    """Writes a checkpoint at an optimizer step, and ends the fit; a fit from it makes the same random draws.

    Lightning saves no state of the random generators, on which dropout depends. It runs checkpoint callbacks after
    all others. Put this one behind a ModelCheckpoint whose state the checkpoint should have.

    Args:
        step: Optimizer step, 1 or more; None never pauses, and only continues.
        path: Of the checkpoint.

    Attributes:
        reached: Whether the fit was ended by this callback.
    """

    def __init__(self, step: int | None, path: Path) -> None:
        self.step = step
        self.path = path
        self.reached = False
        self._random: dict[str, Any] | None = None

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all()}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._random = state_dict

    @override
    def on_train_batch_start(self, *_: Any) -> None:
        # Not before: what runs between loading the checkpoint and the first step may draw numbers.
        if self._random is not None:
            torch.set_rng_state(self._random["cpu"].cpu())
            torch.cuda.set_rng_state_all([state.cpu() for state in self._random["cuda"]])
            self._random = None

    @override
    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        if not self.reached and self.step is not None and trainer.global_step >= self.step:
            self.reached = True
            trainer.save_checkpoint(self.path)
            trainer.should_stop = True
