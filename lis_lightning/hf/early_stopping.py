"""Early stopping of transformers' Trainer on the verdicts of a monitor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from lis_lightning.hf.checkpoints import saved_state
from lis_lightning.hf.trainer_callback import LISTrainerCallback
from lis_lightning.monitor.training import Training

if TYPE_CHECKING:  # sentence-transformers may not be installed
    from lis_lightning.hf.evaluator import LISEvaluator


class LISEarlyStoppingCallback(TrainerCallback, ExportableState):
    """Stop a Trainer's training when the stop rule of a monitor says so.

    The rule decides by a paired regression of AIS on the optimizer step, as for
    :class:`lis_lightning.LISEarlyStopping`: no patience is counted. A :class:`LISEvaluator` learns here of the planned
    steps and the training loss, and its curve is saved in the Trainer's checkpoints and restored from them.

    Args:
        monitor: The monitor to follow: a :class:`LISTrainerCallback`, which stands before this callback, as
            :meth:`LISTrainerCallback.attach` puts it, or a :class:`LISEvaluator`.

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

    def __init__(self, monitor: LISTrainerCallback | LISEvaluator) -> None:
        self.monitor = monitor

    def state(self) -> dict[str, Any]:
        """Return the state for the Trainer's checkpoint: the curve of an evaluator, which is no callback itself."""
        evaluator = _evaluator(self.monitor)
        saved = {} if evaluator is None else evaluator.state_dict()
        return {"args": {}, "attributes": saved | {"name": self.monitor.name}}

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Start the curve of an evaluator, or restore it from the checkpoint."""
        evaluator = _evaluator(self.monitor)
        if evaluator is not None:
            evaluator.begin(state.max_steps, saved_state(state, self, self.monitor.name))

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **context: Any) -> None:
        """Tell an evaluator the training loss and the other values that are logged."""
        evaluator = _evaluator(self.monitor)
        if evaluator is not None:
            evaluator.add_logs(state.global_step, context.get("logs") or {})

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Stop on a snapshot of this step."""
        if self.monitor.reason and _evaluator(self.monitor) is None:
            control.should_training_stop = True

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Stop on a snapshot of this evaluation; an evaluator has taken it on the first process alone."""
        if Training(state.global_step, device=args.device).any(bool(self.monitor.reason)):
            control.should_training_stop = True


def _evaluator(monitor: LISTrainerCallback | LISEvaluator) -> LISEvaluator | None:
    """Return a monitor that is an evaluator, to which the Trainer tells nothing; None if it is a callback."""
    return None if isinstance(monitor, LISTrainerCallback) else monitor
