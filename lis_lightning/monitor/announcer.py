"""Who is told of a snapshot, a verdict and the end of a run: the Trainer, its loggers, people, the terminal."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_info

from lis_lightning.errors import ConfigError
from lis_lightning.monitor.failures import Failures
from lis_lightning.monitor.run_history import History
from lis_lightning.report import snapshot_text as terminal
from lis_lightning.results.snapshot import Snapshot
from lis_lightning.results.stopping import Judgement
from lis_lightning.tracking import loggers as tracking, wandb_run as _wandb


def check_told(name: str | None, artifact: bool, save: str | None) -> None:
    """Check that the name can be part of keys, and that the best snapshot is on disk when it is to be logged.

    Raises:
        ConfigError: If it cannot, or need not be.
    """
    if name is not None and not re.fullmatch(r"[\w-]+", name):
        raise ConfigError(f"`name` is part of keys and file names: letters, digits, - and _, got {name!r}.")
    if artifact and save not in {"best", "all"}:
        raise ConfigError(
            f"`artifact=True` logs the best snapshot, which `save` has to keep: expected `save` to be 'best' or 'all', "
            f"got {save!r}."
        )


class Teller:
    """Tells of a run, on the first process; what fails is kept by `failures` and stops nothing.

    Args:
        prefix: What all keys start with.
        failures: Of the run.
        alerts: Whether people are alerted through W&B.
        progress: Whether the terminal is told.

    Attributes:
        verdict: What was last said of the run; empty before.
    """

    def __init__(self, prefix: str, failures: Failures, *, alerts: bool, progress: bool) -> None:
        self.prefix = prefix
        self.verdict = ""
        self._failures = failures
        self._alerts = alerts
        self._progress = progress

    def start(self, trainer: pl.Trainer, config: Mapping[str, Any]) -> None:
        """Tell the loggers what the run is measured on."""
        self._on_loggers(trainer, tracking.start, config)

    def found(self, trainer: pl.Trainer, result: Snapshot) -> None:
        """Tell stock callbacks and the terminal of a result, on every process."""
        tracking.publish(trainer, result, self.prefix)
        if self._progress:
            rank_zero_info(terminal.snapshot_line(result))

    def scored(self, trainer: pl.Trainer, results: Sequence[Snapshot], best: Snapshot) -> None:
        """Tell the loggers of the newest result."""
        self._on_loggers(trainer, tracking.log_result, results, best)

    def judged(self, trainer: pl.Trainer, judgement: Judgement | None, *, stopped: bool = False) -> None:
        """Alert people, once, where the verdict has become one to act on, or the training is told to stop.

        A lost alert raises nothing, in a strict run either: record, curves and terminal say the same.
        """
        if judgement is None:
            return
        before, self.verdict = self.verdict, judgement.verdict
        alert = _wandb.news(before, judgement, step=trainer.global_step, stopped=stopped, prefix=self.prefix)
        if alert is not None and self._alerts and trainer.is_global_zero:
            self._failures.of_loggers(tracking.log_alert(trainer.loggers, alert), may_raise=False)

    def end(self, trainer: pl.Trainer, history: History, artifact: bool) -> None:
        """Tell the loggers what they show once."""
        best = history.best
        if best is not None:
            self._on_loggers(trainer, tracking.finish, history.results, best, history.best_file if artifact else None)
            self._on_loggers(trainer, tracking.log_movers, history.movers)

    def conclude(self, trainer: pl.Trainer, results: Sequence[Snapshot], best: Snapshot, record: Path | None) -> None:
        """Tell the terminal what the run has come to."""

        def show() -> str:
            return terminal.summary(results, best, record, _wandb.sync_hint(trainer.loggers))

        if self._progress and trainer.is_global_zero:
            rank_zero_info(self._failures.survived("summary", show) or "")

    def _on_loggers(self, trainer: pl.Trainer, action: Callable[..., list[str]], *args: Any) -> None:
        if trainer.is_global_zero:
            self._failures.of_loggers(action(trainer.loggers, *args, prefix=self.prefix))
