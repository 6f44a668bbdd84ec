"""Callback of transformers' Trainer that takes, scores, judges and logs snapshots of a model in training."""

from __future__ import annotations

from typing import Any, Self

import torch
from pytorch_lightning.utilities import rank_zero_warn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState
from typing_extensions import override

from lis_lightning.errors import ConfigError, LisWarning
from lis_lightning.hf.checkpoints import saved_state
from lis_lightning.hf.metrics import evaluation_metrics
from lis_lightning.hf.trainer_training import TrainerTraining
from lis_lightning.monitor.engine import SnapshotEngine
from lis_lightning.monitor.missing_scores import WORST
from lis_lightning.monitor.training import Training
from lis_lightning.results.verdict import Judgement


class LISTrainerCallback(SnapshotEngine, TrainerCallback, ExportableState):
    """Score the item representations of a model during a Trainer's training, without disturbing the training.

    It takes, scores and records the same snapshots as :class:`lis_lightning.LISMonitor`, and has the same arguments::

        monitor = LISTrainerCallback(split, items, encode=Encode("model", pooling="last"), every_n_steps=200)
        trainer = Trainer(model, args, train_dataset=pairs, callbacks=[LISEarlyStoppingCallback(monitor)])
        monitor.attach(trainer)
        trainer.train()

    After :meth:`attach` each snapshot is logged by the Trainer, to whatever ``report_to`` names, as ``eval_lis_ais``,
    ``eval_lis_headroom`` and so on, with its own step as ``eval_lis_step``. Passed as ``callbacks=[monitor]`` alone it
    writes its record and the Trainer's `log_history`, since a callback does not get to know the Trainer.

    Snapshots are taken by the monitor's own schedule, or at the Trainer's evaluations with
    ``schedule=EveryValidation()``. The metrics of an evaluation contain the score of the same step, so that
    ``metric_for_best_model="eval_lis_ais"`` and stock ``EarlyStoppingCallback`` work; with such a metric a snapshot is
    taken at each evaluation, whatever the schedule.

    The model is encoded, not evaluated: no logits are gathered. Several processes each encode a share of the items and
    log one curve. A checkpoint of the Trainer contains the curve, and ``trainer.train(resume_from_checkpoint=True)``
    continues it and its record. With ``load_best_model_at_end`` the last snapshot is of the last step, before the best
    weights are loaded.

    Args: those of :class:`lis_lightning.LISMonitor`; `dirpath` is the Trainer's `output_dir` by default, and `artifact`
        and `alerts` have no effect.

    Attributes:
        reason: Why the stop rule says to stop, in a sentence; empty if it does not. See
            :class:`LISEarlyStoppingCallback`.

    Raises:
        ConfigError: As :class:`lis_lightning.LISMonitor`, or if the Trainer is to make its callbacks anew from a
            checkpoint.

    Example:
        >>> import polars, torch
        >>> from lis_lightning.data import PreferenceSplit
        >>> log = polars.DataFrame({"user_id": [0, 1] * 20, "item_id": [0, 1, 2, 3] * 10,
        ...                         "timestamp": range(40), "label": [0, 1, 1, 0, 1] * 8})
        >>> items = [{"item_id": item, "input_ids": torch.tensor([item])} for item in range(4)]
        >>> monitor = LISTrainerCallback(PreferenceSplit.from_log(log), items, encode="model", every_n_steps=50)
        >>> monitor.results, monitor.reason  # before `Trainer(..., callbacks=[monitor]).train()`
        ([], '')
    """

    @override
    def _connect(self) -> None:
        self.reason = ""
        self._trainer: Trainer | None = None
        self._watching = False
        self._warned = False

    def attach(self, trainer: Trainer) -> Self:
        """Make this the first callback of a Trainer, and log to where the Trainer reports; return this callback.

        Args:
            trainer: The Trainer, before ``train()``.
        """
        _check_arguments(trainer.args)
        callbacks = trainer.callback_handler.callbacks
        if self in callbacks:
            callbacks.remove(self)
        callbacks.insert(0, self)  # an EarlyStoppingCallback before it would not see its metric
        self._trainer = trainer
        return self

    @override
    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name != "_trainer"}

    def state(self) -> dict[str, Any]:
        """Return the state for the Trainer's checkpoint."""
        return {"args": {}, "attributes": self.state_dict() | {"name": self.name}}

    def on_init_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Check the arguments of the Trainer."""
        _check_arguments(args)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **context: Any
    ) -> None:
        """Take the raw snapshot, or restore the run from the checkpoint."""
        self._reset()
        self.reason = ""
        saved = saved_state(state, self, self.name)
        if saved is not None:
            self.load_state_dict(saved)
        if self._trainer is None and args.report_to and not self._warned:
            self._warned = True
            rank_zero_warn(
                f"LISTrainerCallback: the curve is written to the record and to `log_history` only, not to "
                f"{args.report_to}: call `monitor.attach(trainer)` before `trainer.train()`.",
                category=LisWarning,
            )
        training = self._training(args, state, context)
        self._prepare(training)
        self._bind(context["model"])
        self._begin(training, context["model"], state.max_steps)
        self._watching = True

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **context: Any
    ) -> None:
        """Take a snapshot if one is due, and at the last step: when training has ended, other weights may be loaded."""
        last = state.global_step >= state.max_steps
        self._look(self._training(args, state, context), context["model"], required=last)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **context: Any) -> None:
        """Note the training loss and what is watched."""
        logs = context.get("logs") or {}
        if logs.get("loss") is not None:
            self._train_loss.add(torch.tensor(float(logs["loss"])))
        if self._watching:
            self._note_metrics(self._training(args, state, context), logs)

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **context: Any
    ) -> None:
        """Take a snapshot if one is due or the Trainer ranks checkpoints by it, and add it to the metrics."""
        if not self._watching:  # an evaluation outside of a training
            return
        prefix = f"eval_{self._prefix.replace('/', '_')}_"
        monitored = f"eval_{str(args.metric_for_best_model or '').removeprefix('eval_')}"
        ranks = monitored.startswith(prefix)
        self._look(self._training(args, state, context), context["model"], validation=True, required=ranks)
        results, values = self._results, context["metrics"]
        if results and results[-1].step == state.global_step:
            values.update(evaluation_metrics(results[-1], self._prefix, more=True))  # not logged
        elif ranks:  # the snapshot failed, and a Trainer raises where its metric is missing
            stale = evaluation_metrics(results[-1], self._prefix, more=True) if results else {}
            values[monitored] = stale.get(monitored, -WORST)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **context: Any) -> None:
        """Keep the snapshots on disk that the checkpoint refers to."""
        self._history.protect_checkpointed()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **context: Any
    ) -> None:
        """Conclude the run."""
        self._watching = False
        best_loaded = bool(args.load_best_model_at_end and state.best_model_checkpoint)
        self._finish(self._training(args, state, context), context["model"], last=not best_loaded)
        self._scheduler.stop()

    def _training(self, args: TrainingArguments, state: TrainerState, context: dict[str, Any]) -> TrainerTraining:
        """Return the training as it stands."""

        def log(values: dict[str, float]) -> None:
            if self._trainer is None:
                state.log_history.append({**values, "epoch": state.epoch or 0.0, "step": state.global_step})
                return
            logs_loss = self._trainer.control.should_log
            # Not the method of a subclass, which may add and clear the means that it logs next.
            Trainer.log(self._trainer, values)
            self._trainer.control.should_log = logs_loss  # cleared by each log; the loss of this step is not logged yet

        return TrainerTraining(args, state, context.get("train_dataloader"), log, log_more=self.log_more)

    @override
    def _heed(self, training: Training, judgement: Judgement) -> bool:
        self.reason = judgement.reason if training.any(judgement.stop) else ""
        return bool(self.reason)


def _check_arguments(arguments: TrainingArguments) -> None:
    """Raise if the Trainer would make its callbacks anew from a checkpoint."""
    if arguments.restore_callback_states_from_checkpoint:
        raise ConfigError(
            "Expected `restore_callback_states_from_checkpoint=False`, got True: the Trainer would make this monitor "
            "anew from a checkpoint, which does not hold its split. The monitor restores its curve by itself."
        )
