"""The throughput of training, in items per second."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

import pytorch_lightning as pl
from typing_extensions import override

from lis_lightning.monitor.callback import LISMonitor

WINDOW = 20  # batches in the moving average


class ItemThroughput(pl.Callback):
    """Logs ``train/items_per_second``: items encoded for training by all processes, over the last 20 batches.

    The time of snapshots and validations is left out; that of loading and of checkpoints is included. Lightning's
    ThroughputMonitor includes snapshots, and waits for the device at every batch. Put this callback before the monitor.

    Args:
        monitor: The time of its snapshots is left out.
    """

    def __init__(self, monitor: LISMonitor) -> None:
        self.monitor = monitor
        self._laps: deque[tuple[float, int]] = deque(maxlen=WINDOW)
        self._began = 0.0

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit" and self._restart not in self.monitor.listeners:
            self.monitor.listeners.append(self._restart)

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit" and self._restart in self.monitor.listeners:
            self.monitor.listeners.remove(self._restart)

    def _restart(self, *_: Any) -> bool:
        self._began = time.perf_counter()
        return False

    @override
    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._restart()

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._restart()

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: dict[str, Any], batch_idx: int
    ) -> None:
        items = sum(len(part["rows"]) for part in batch.values())
        self._laps.append((time.perf_counter() - self._began, items))
        self._restart()
        seconds, items = (sum(column) for column in zip(*self._laps, strict=True))
        pl_module.log("train/items_per_second", trainer.world_size * items / max(seconds, 1e-9), batch_size=1)
