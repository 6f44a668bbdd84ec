"""Early stopping of transformers' Trainer on the verdicts of a monitor."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lis_lightning.hf.trainer_callback import LISTrainerCallback


class LISEarlyStoppingCallback(TrainerCallback):
    """Stop a Trainer's training when the stop rule of a :class:`LISTrainerCallback` says so.

    The rule decides by a paired regression of AIS on the optimizer step, as for
    :class:`lis_lightning.LISEarlyStopping`: no patience is counted.

    Args:
        monitor: The monitor to follow; it stands before this callback, as :meth:`LISTrainerCallback.attach` puts it.

    Example:
        >>> import polars
        >>> from lis_lightning.data import PreferenceSplit
        >>> log = polars.DataFrame({"user_id": [0, 1] * 20, "item_id": [0, 1, 2, 3] * 10,
        ...                         "timestamp": range(40), "label": [0, 1, 1, 0, 1] * 8})
        >>> monitor = LISTrainerCallback(PreferenceSplit.from_log(log), [], encode="model")
        >>> stop, control = LISEarlyStoppingCallback(monitor), TrainerControl()
        >>> monitor.reason = "the remaining steps cannot add a relevant gain"  # set by the rule
        >>> stop.on_step_end(None, None, control)
        >>> control.should_training_stop
        True
    """

    def __init__(self, monitor: LISTrainerCallback) -> None:
        self.monitor = monitor

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Stop on a snapshot of this step."""
        if self.monitor.reason:
            control.should_training_stop = True

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Stop on a snapshot of this evaluation."""
        if self.monitor.reason:
            control.should_training_stop = True
