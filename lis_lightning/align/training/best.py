"""Keep the weights of the best snapshot, whenever snapshots are taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint
from typing_extensions import override

from lis_lightning.monitor.callback import LISMonitor
from lis_lightning.results.snapshot import Snapshot


class BestSnapshot(ModelCheckpoint):
    """A ModelCheckpoint that looks where a monitor has just scored the weights at hand, and nowhere else.

    So it follows any schedule, and the last snapshot too. Scores that come later, from the background, are of weights
    that are gone: they are passed over.

    Args:
        folder: Of the checkpoint, ``best-step=<step>.ckpt``.
        monitor: Whose snapshots it follows.
    """

    at_snapshots = True  # the monitor need not warn of scores of other steps

    def __init__(self, folder: Path, monitor: LISMonitor) -> None:
        super().__init__(
            folder, filename="best-{step}", monitor="lis/ais", mode="max", every_n_train_steps=1,
            save_on_train_epoch_end=False,
        )  # fmt: skip
        self._snapshots = monitor

    @override
    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        self._look(trainer, pl_module)

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._look(trainer, pl_module)

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._look(trainer, pl_module)

    def _look(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        newest = self._snapshots.results[-1:]
        if newest and newest[0].step == trainer.global_step > 0:
            super().on_train_batch_end(trainer, pl_module, None, None, 0)
            super().on_validation_end(trainer, pl_module)  # before a validation Lightning would wait for its metrics

    def path_of(self, best: Snapshot) -> Path | None:
        """Return the checkpoint of the best snapshot; None where that one is raw, or was scored in the background."""
        path = Path(self.best_model_path)
        return path if path.stem == f"best-step={best.step}" else None
