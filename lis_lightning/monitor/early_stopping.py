"""Early stopping on the verdicts of a monitor."""

from __future__ import annotations

import contextlib
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_info
from typing_extensions import override

from lis_lightning.errors import ConfigError
from lis_lightning.monitor.callback import LISMonitor
from lis_lightning.results.verdict import Judgement

_STATE = ("num_judged", "verdict", "message", "stopped_step", "reason")


class LISEarlyStopping(pl.Callback):
    """Stop the training when the stop rule of the :class:`LISMonitor` in the same Trainer says so.

    The monitor's `rule` decides by a paired regression of AIS on the optimizer step: training stops once the remaining
    planned steps cannot add a relevant gain at the present pace. How often snapshots are taken changes the decision by
    noise only. Each successful snapshot is judged once, whatever the order of the two callbacks. A change of verdict is
    printed. A run that is resumed after a stop trains until the next snapshot, and stops there if the
    rule still says so.

    Args:
        name: Name of the monitor to follow, if the Trainer has several.

    Attributes:
        num_judged: Number of snapshots judged, including those before a resume.
        verdict: The last verdict, one of :data:`lis_lightning.results.verdict.VERDICTS`; empty before the first.
        message: The last verdict explained in a sentence.
        stopped_step: Optimizer step at which training was stopped, or None.
        reason: Why training was stopped, in a sentence; empty if it was not.

    Raises:
        ConfigError: If the Trainer has no such LISMonitor, or several (when the fit is set up).

    Example:
        >>> import polars
        >>> from lis_lightning.data import PreferenceSplit
        >>> from lis_lightning.monitor import LISMonitor
        >>> from lis_lightning.results.stopping import StopRule
        >>> log = polars.DataFrame({"user_id": [0, 1] * 20, "item_id": [0, 1, 2, 3] * 10,
        ...                         "timestamp": range(40), "label": [0, 1, 1, 0, 1] * 8})
        >>> rule = StopRule(min_gain_share=0.02)
        >>> monitor = LISMonitor(PreferenceSplit.from_log(log), [], rule=rule, ceilings=(), cache_dir="off")
        >>> callbacks = [monitor, LISEarlyStopping()]  # for Trainer(callbacks=...)
        >>> callbacks[1].num_judged, callbacks[1].stopped_step
        (0, None)
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
        """Return the monitor to follow."""
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]  # set by Lightning's connector
        monitors = [callback for callback in callbacks if isinstance(callback, LISMonitor)]
        matching = [monitor for monitor in monitors if self.name in (None, monitor.name)]
        if len(matching) != 1:
            names = [monitor.name for monitor in monitors]
            raise ConfigError(
                f"LISEarlyStopping(name={self.name!r}) follows exactly one LISMonitor; the Trainer has {len(monitors)} "
                f"with the names {names}: use Trainer(callbacks=[LISMonitor(split, items), LISEarlyStopping()]), and "
                "LISEarlyStopping(name=...) if there are several monitors."
            )
        return matching[0]

    def _judged(self, trainer: pl.Trainer, judgement: Judgement) -> bool:
        """Stop all processes if any of them judges so, print a new verdict, and return whether to stop."""
        step = self._monitor(trainer).steps(trainer)
        stop = trainer.strategy.reduce_boolean_decision(judgement.stop, all=False)
        changed = judgement.verdict != self.verdict
        self.num_judged += 1
        self.verdict, self.message = judgement.verdict, judgement.message
        self.stopped_step = step if stop else None
        self.reason = judgement.reason
        if stop:
            trainer.should_stop = True
            rank_zero_info(
                f"LISEarlyStopping: stopping at step {self.stopped_step}, on snapshot {self.num_judged} after the raw "
                f"one: {self.reason}. Verdict: {self.verdict}, {self.message}"
            )
        elif changed:
            rank_zero_info(f"LISEarlyStopping: step {step}, training goes on: {self.verdict}, {self.message}")
        return stop
