"""Stop a training on the evidence of its snapshots."""

from __future__ import annotations

import contextlib
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_info
from typing_extensions import override

from lis_lightning.callback import LISMonitor
from lis_lightning.errors import ConfigError
from lis_lightning.stopping import Judgement


class LISEarlyStopping(pl.Callback):
    """Stop the training when the snapshots of the :class:`LISMonitor` beside it say that it is done.

    The monitor's `rule` decides, on paired evidence: after a warm-up, on a significant fall, a plateau or at the
    ceiling. Each snapshot counts once, in whatever order the two callbacks are given; failed ones do not count.

    Attributes:
        stopped_step: Optimizer step at which the training was told to stop, or None.
        reason: Why, in a sentence.

    Raises:
        ConfigError: If the Trainer has no LISMonitor, or more than one (when the fit is set up).
    """

    def __init__(self) -> None:
        self.stopped_step: int | None = None
        self.reason = ""

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"stopped_step": self.stopped_step, "reason": self.reason}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.stopped_step = state_dict["stopped_step"]
        self.reason = state_dict["reason"]

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit":
            listeners = self._monitor(trainer).listeners
            if self._judged not in listeners:
                listeners.append(self._judged)

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit":
            with contextlib.suppress(ValueError):
                self._monitor(trainer).listeners.remove(self._judged)

    @staticmethod
    def _monitor(trainer: pl.Trainer) -> LISMonitor:
        """Return the one monitor of the Trainer."""
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]  # set by Lightning's connector
        monitors = [callback for callback in callbacks if isinstance(callback, LISMonitor)]
        if len(monitors) != 1:
            raise ConfigError(
                f"LISEarlyStopping stops on the snapshots of one LISMonitor, the Trainer has {len(monitors)}: "
                "Trainer(callbacks=[LISMonitor(split, items), LISEarlyStopping()])."
            )
        return monitors[0]

    def _judged(self, trainer: pl.Trainer, judgement: Judgement) -> None:
        """Stop on all processes if any of them is to stop."""
        if trainer.strategy.reduce_boolean_decision(judgement.stop, all=False):
            self.stopped_step = trainer.global_step
            self.reason = judgement.reason
            trainer.should_stop = True
            rank_zero_info(f"LISEarlyStopping: stopping at step {self.stopped_step}: {self.reason}")
