"""A checkpoint of the weights at the best snapshot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint
from typing_extensions import override

from lis_lightning.monitor.callback import LISMonitor
from lis_lightning.results.snapshot import Snapshot


class BestSnapshot(ModelCheckpoint):
    """A ModelCheckpoint that checks the score only when a monitor has just scored the current weights.

    So it works with any schedule of snapshots, and for the snapshot at the end of training. Scores from the background
    arrive when training has moved on; they are skipped, since the weights that were scored no longer exist.

    Args:
        folder: Of the checkpoint, ``best-step=<step>.ckpt``.
        monitor: Its snapshots decide.

    Example:
        >>> import tempfile
        >>> checkpoint = BestSnapshot(Path(tempfile.mkdtemp()), monitor=None)
        >>> checkpoint.monitor, checkpoint.mode
        ('lis/ais', 'max')
    """

    at_snapshots = True  # the monitor then does not warn about stale scores

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
            # Saves now; before the first validation Lightning would wait for its metrics.
            super().on_validation_end(trainer, pl_module)

    def path_of(self, best: Snapshot) -> Path | None:
        """Return the checkpoint of the best snapshot; None if it is the raw model or was scored in the background."""
        path = Path(self.best_model_path)
        return path if path.stem == f"best-step={best.step}" else None
