"""Stop a training on the evidence of its snapshots."""

from __future__ import annotations

import contextlib
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_info
from typing_extensions import override

from lis_lightning.errors import ConfigError
from lis_lightning.monitor.callback import LISMonitor
from lis_lightning.results.stopping import Judgement

_STATE = ("num_judged", "verdict", "message", "stopped_step", "reason")


class LISEarlyStopping(pl.Callback):
    """Stop the training when the snapshots of the :class:`LISMonitor` beside it say that it is done.

    The monitor's `rule` decides, on paired evidence: after a warm-up, on a significant fall, a plateau or at the
    ceiling. Each snapshot counts once, in whatever order the two callbacks are given; failed ones do not count. What it
    makes of the run is logged whenever the verdict changes. A run that is resumed after a stop goes on until the next
    snapshot, and stops there if that still says so.

    Args:
        name: Of the monitor whose snapshots decide, where there are several.

    Attributes:
        num_judged: Snapshots that were looked at, those before a resume included.
        verdict: What the last of them said of the run, one of :data:`lis_lightning.results.stopping.VERDICTS`.
        message: The same in a sentence.
        stopped_step: Optimizer step at which the training was told to stop, or None.
        reason: Why, in a sentence.

    Raises:
        ConfigError: If the Trainer has no such LISMonitor, or several (when the fit is set up).
    """

    def __init__(self, name: str | None = None) -> None:
        self.name = name
        self.num_judged = 0
        self.verdict = ""
        self.message = ""
        self.stopped_step: int | None = None
        self.reason = ""

    @property
    @override
    def state_key(self) -> str:
        return self._generate_state_key(name=self.name)

    @override
    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _STATE}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name in _STATE:
            setattr(self, name, state_dict[name])

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

    def _monitor(self, trainer: pl.Trainer) -> LISMonitor:
        """Return the one monitor of the Trainer."""
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]  # set by Lightning's connector
        every = [callback for callback in callbacks if isinstance(callback, LISMonitor)]
        monitors = [monitor for monitor in every if self.name in (None, monitor.name)]
        if len(monitors) != 1:
            names = f" with the names {[monitor.name for monitor in every]}" if every else ""
            raise ConfigError(
                f"LISEarlyStopping stops on the snapshots of one LISMonitor, the Trainer has {len(every)}{names}: "
                "Trainer(callbacks=[LISMonitor(split, items), LISEarlyStopping()]), and LISEarlyStopping(name=...) "
                f"where there are several, got {self.name!r}."
            )
        return monitors[0]

    def _judged(self, trainer: pl.Trainer, judgement: Judgement) -> bool:
        """Stop on all processes if any of them is to stop, say why, or why not, and return which."""
        stop = trainer.strategy.reduce_boolean_decision(judgement.stop, all=False)
        changed = judgement.verdict != self.verdict
        self.num_judged += 1
        self.verdict, self.message = judgement.verdict, judgement.message
        self.stopped_step = trainer.global_step if stop else None
        self.reason = judgement.reason
        if stop:
            trainer.should_stop = True
            rank_zero_info(
                f"LISEarlyStopping: stopping at step {self.stopped_step}, on snapshot {self.num_judged} after the raw "
                f"one: {self.reason}. Verdict: {self.verdict}, {self.message}"
            )
        elif changed:
            rank_zero_info(f"LISEarlyStopping: step {trainer.global_step}, going on: {self.verdict}, {self.message}")
        return stop
