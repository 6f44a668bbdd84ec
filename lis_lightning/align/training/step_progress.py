"""Progress bar over the optimizer steps of a run."""

from __future__ import annotations

import logging
import math
import sys
from contextlib import ExitStack
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ProgressBar
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn
from typing_extensions import override

_LIGHTNING = logging.getLogger("pytorch_lightning")  # snapshots are printed by its handlers


class StepProgress(ProgressBar):
    """Progress bar over the optimizer steps of a run, below the lines that are printed meanwhile.

    Lightning's own bar counts the batches of an epoch out of `max_epochs`, which is -1 where only `max_steps` ends the
    run, and lines of its logger are written into the bar.

    Example:
        >>> pl.Trainer(callbacks=[StepProgress()], logger=False).progress_bar_callback.is_enabled
        True
    """

    def __init__(self) -> None:
        super().__init__()
        self.is_enabled = True
        self._stack = ExitStack()
        self._progress: Progress | None = None

    @override
    def disable(self) -> None:
        self.is_enabled = False

    @override
    def enable(self) -> None:
        self.is_enabled = True

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self.is_enabled:
            return
        columns = (*Progress.get_default_columns(), MofNCompleteColumn(), TextColumn("{task.fields[metrics]}"))
        progress = Progress(*columns, console=Console(stderr=True), transient=True)
        self._progress = self._stack.enter_context(progress)
        for handler in _LIGHTNING.handlers:
            if isinstance(handler, logging.StreamHandler):
                # The bar has replaced sys.stderr by a stream that writes above it.
                self._stack.callback(handler.setStream, handler.stream)
                handler.setStream(sys.stderr)
        total = trainer.estimated_stepping_batches
        progress.add_task("step", total=None if math.isinf(total) else total, metrics="")

    @override
    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *batch: Any) -> None:
        if self._progress is not None:
            shown = {name: value for name, value in self.get_metrics(trainer, pl_module).items() if name != "v_num"}
            metrics = ", ".join(f"{name} {value:.3f}" for name, value in shown.items() if isinstance(value, float))
            (task,) = self._progress.task_ids
            self._progress.update(task, completed=trainer.global_step, metrics=metrics)

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._stack.close()
        self._progress = None
