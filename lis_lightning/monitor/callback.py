"""Lightning callback that takes, scores, judges and logs snapshots of a module in training.

It connects the Trainer's hooks to the :class:`SnapshotEngine`. Half of the file documents the arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import pytorch_lightning as pl
from typing_extensions import override

from lis_lightning.monitor.clock import StepClock
from lis_lightning.monitor.engine import SnapshotEngine
from lis_lightning.monitor.handover import Handover
from lis_lightning.monitor.lightning_training import LightningTraining
from lis_lightning.monitor.missing_scores import MissingScores
from lis_lightning.monitor.progress import planned_steps
from lis_lightning.monitor.run_history import RunHistory
from lis_lightning.monitor.stock_callbacks import (
    UniqueKey,
    check_averaging,
    warn_of_stale_counting,
    warn_of_stale_scores,
)
from lis_lightning.monitor.training import Training
from lis_lightning.results.snapshot import Snapshot
from lis_lightning.results.verdict import Judgement
from lis_lightning.tracking import loggers as tracking

Listener = Callable[[pl.Trainer, Judgement], bool]  # returns whether it stops the training


class LISMonitor(SnapshotEngine, pl.Callback):
    """Score the item representations of a module during training, without disturbing the training.

    A snapshot is taken of the raw module before the first step, whenever the schedule is due, and at the end. For each
    snapshot all items of the split are encoded and scored, and the score is compared with the earlier snapshots,
    written to the run's record, logged as ``lis/...`` to the Trainer's loggers at the step of the snapshot, and put
    into ``trainer.callback_metrics``. There stock ``EarlyStopping(monitor="lis/ais", mode="max")`` and
    ``ModelCheckpoint(monitor="lis/ais", mode="max", every_n_train_steps=...)`` find it. Give the ModelCheckpoint the
    `every_n_steps` of the monitor and ``save_on_train_epoch_end=False``, so that no score is stored with later weights
    (the monitor warns of other steps), and a `filename` without a metric, as the slash in its key would make a folder.
    ``Trainer(fast_dev_run=True)`` takes the raw snapshot only, raises if it fails, and writes nothing.

    A failing snapshot, logger or record does not stop the training: failures are recorded, with one warning per kind,
    and counted in the summary. Stock callbacks then read the last score, or a placeholder before the first, and the
    failure is not counted against their patience. What cannot heal, such as a wrong `item_key`, is raised before the
    first step.
    Snapshots score the weights in training, not an average of them: place callbacks that average weights after the
    monitor.

    Several processes, started as for any Trainer (``Trainer(strategy="ddp", num_nodes=4, devices=8)`` under SLURM or
    ``torchrun --nnodes 4 --nproc-per-node 8 --rdzv-endpoint host:port train.py``), each encode a share of the items.
    All compute the same score, and the first one writes. After ``ddp_spawn``, ``ddp_fork`` or ``ddp_notebook`` the
    launching process reads `results`, `best` and `record_path` from the record. With FSDP2, a batch that runs out of
    memory cannot be split.

    A Trainer checkpoint contains the curve. A run resumed from it continues its curve and its record, and is judged as
    if it had not stopped; if the record is missing, pairs of old snapshots can no longer be compared. If the split, the
    ceilings or the schedule have changed, a new curve and a new record start, with a warning.

    Args:
        split: The preference split to score on.
        items: Dicts of one item each (a dataset or a list), or a DataLoader of item batches. With an attribute
            ``item_ids`` only the split's items are read, and missing items are reported before the training starts.
            With an attribute ``lengths`` (such as tokens per row) batches are sorted by it, which reduces padding.
        every_n_steps: Optimizer steps between snapshots; 200 by default if there is no `schedule`.
        schedule: One or several schedules of :mod:`lis_lightning.monitor` that say when snapshots are due, as in
            ``[LogSpaced(10, per_decade=4), OnFile()]``; `every_n_steps` is added to them if it is given too.
        background_steps: Optimizer steps after which the score of a snapshot is read; until then it is computed in the
            background while training goes on. At that step, or at the next snapshot, training waits for the score if
            necessary, so that curves and stops do not depend on timing. The raw and the last snapshot are scored in
            the foreground. None scores all in the foreground. With a background a stock ModelCheckpoint reads scores of
            earlier weights: use `save` instead.
        name: Name that distinguishes several monitors of one Trainer: keys are ``lis/<name>/...``, the record is
            ``record-<name>``.
        encode: Function of the module and an item batch that returns [B, D]; or a submodule with pooling,
            ``Encode("model.text_model", pooling="last")``; or the name of a submodule, which is mean-pooled. Default:
            the module's ``encode_items``.
        item_key: Key of the item id in a batch. None stands for ``item_id``, or for the column of the items in the log
            if the items have no ``item_id``.
        catalogue: Table with the columns `item_key`, ``title`` and ``image`` (a path), to show the items whose gain
            changed most. None shows their ids.
        batch_size: Items per batch, halved if they do not fit into memory; a DataLoader keeps its own.
        collate_fn: Function that makes a batch of a list of items; a DataLoader keeps its own. None takes torch's
            default_collate or, where that fails, the one of the training loader if it makes of items the same batch
            each time, with their ids.
        save: Which snapshots to keep on disk beside the record: ``"best"``, ``"last-3"`` (any number) or ``"all"``; see
            :mod:`lis_lightning.monitor.storage`. None keeps none.
        watch: Keys of metrics that are logged already, as in ``["val/recall@20"]``. Their latest values are kept with
            each snapshot, and the report says what 1 % more of each was worth in AIS. The training loss and the
            companions, such as ``pair_auc``, need not be named.
        save_dtype: Precision of the kept snapshots: ``"float32"``, ``"float16"`` or ``"bfloat16"``.
        artifact: Whether to log the best snapshot to W&B at the end of training; requires `save`.
        alerts: Whether to send a W&B alert when the verdict calls for action or :class:`LISEarlyStopping` stops the
            run.
        log_more: Whether the loggers get all numbers, under ``lis/more/...``, beside the six of the default. The record
            and ``trainer.callback_metrics`` always hold all.
        dirpath: Folder of the record. Default: the run folder of the first logger, where ModelCheckpoint writes too,
            or else ``trainer.default_root_dir``.
        placebo: Whether to score placebo representations, which carry no information, at the first snapshot.
        ceilings: Preference data to compute ceilings for, as in :class:`lis_lightning.scoring.ScoreOptions`.
        aligned_to: Name of the ceiling that the module is aligned to.
        k: Largest number of principal axes of the representation that the probe reads.
        reads: What else to score at each snapshot, as rankers read it: ``["codes", "cosine", "prefix", "search"]``; see
            :class:`lis_lightning.scoring.ScoreOptions`.
        cache_dir: Folder where base ranker and ceilings are cached; see :class:`lis_lightning.scoring.Scorer`.
        rule: Stop rule that judges the run.
        strict: Whether to raise if a snapshot, a logger or the record fails, instead of training on.
        progress: Whether to print a line per snapshot, and a table of all snapshots at the end.

    Raises:
        ConfigError: If an argument is out of range, preference data are malformed, or (when the fit is set up) the
            module cannot encode items.
        SnapshotError: If ``items.item_ids`` lacks items of the split (when the fit is set up).

    Example:
        >>> import polars, pytorch_lightning as pl, tempfile, torch
        >>> from lis_lightning.data.split import PreferenceSplit
        >>> class Tower(pl.LightningModule):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.net = torch.nn.Linear(2, 2)
        ...     def encode_items(self, batch):
        ...         return self.net(batch["x"])
        ...     def training_step(self, batch, batch_idx):
        ...         return self.net(torch.ones(1, 2)).square().mean()
        ...     def configure_optimizers(self):
        ...         return torch.optim.SGD(self.parameters(), lr=0.1)
        >>> log = polars.DataFrame({"user_id": [0, 1] * 20, "item_id": [0, 1, 2, 3] * 10,
        ...                         "timestamp": range(40), "label": [0, 1, 1, 0, 1] * 8})
        >>> items = [{"item_id": item, "x": torch.tensor([item, 1.0])} for item in range(4)]
        >>> monitor = LISMonitor(PreferenceSplit.from_log(log), items, every_n_steps=2, ceilings=(), cache_dir="off",
        ...                      progress=False)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     trainer = pl.Trainer(max_steps=4, callbacks=[monitor], default_root_dir=folder, accelerator="cpu",
        ...                          logger=False, enable_checkpointing=False, enable_progress_bar=False,
        ...                          enable_model_summary=False)
        ...     trainer.fit(Tower(), range(4))
        >>> [result.step for result in monitor.results]
        [0, 2, 4]
    """

    @override
    def _connect(self) -> None:
        self.listeners: list[Listener] = []
        self._set_up = False
        self._handover = Handover()

    @override
    def _reset(self) -> None:
        super()._reset()
        self._clock = StepClock()
        self._missing_scores = MissingScores(self._prefix)
        self._last_metrics: dict[str, Any] = {}  # of the Trainer, whose values stay until they are logged again

    @override
    def _catch_up(self) -> RunHistory:
        """Return the history of the run; if a process that this one launched has trained, read it from its record."""
        received = self._handover.received()
        if received is not None:
            self._reset()
            contents = received.contents
            self._history.adopt(received.record, contents, self.rule)
            failures = [status for status in contents.statuses if status["kind"] == "failure"]
            self._failures.adopt(failures)
        return self._history

    def steps(self, trainer: pl.Trainer) -> int:
        """Return the optimizer steps taken so far; the batches if `trainer.global_step` does not count the steps."""
        return self._clock.steps(trainer)

    @property
    @override
    def state_key(self) -> str:
        key = self._generate_state_key(name=self.name)
        return key if self._set_up else UniqueKey(key, self)

    @override
    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"clock": self._clock.state_dict()}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        if self._history.run_id == state_dict["run_id"]:  # not a new curve
            self._clock.load_state_dict(state_dict["clock"])

    @override
    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        self._history.protect_checkpointed()

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._set_up = True  # a checkpoint holds plain keys
        if stage != "fit":
            return
        self._handover.enter()
        if trainer.is_global_zero:
            self._handover.clear()
        if self.steps(trainer) == 0:  # not a second `fit` that goes on; a checkpoint is loaded after this hook
            self._reset()
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]  # set by Lightning's connector
        check_averaging(callbacks, self)
        warn_of_stale_scores(trainer.checkpoint_callbacks, self._prefix, self._scheduler.schedules)
        dry_run = bool(trainer.fast_dev_run)  # type: ignore[attr-defined]  # set there too
        self._prepare(self._training(trainer), dry_run=dry_run)

    @override
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Not in `setup`: a module may still create submodules after it.
        self._bind(pl_module)

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        warn_of_stale_counting(trainer, self._prefix, self._scheduler.schedules)
        training = self._training(trainer)
        training.epoch = trainer.current_epoch
        self._begin(training, pl_module, planned_steps(trainer, batches=self._clock.counts_batches))
        self._clock.start(pl_module)

    @override
    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *_: Any) -> None:
        self._train_loss.add(outputs)
        self._tick(trainer, pl_module)
        self._look(self._training(trainer), pl_module)

    def _tick(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *, ended: bool = False) -> None:
        """Count batches from now on if the weights change and `trainer.global_step` does not."""
        if self._clock.tick(trainer, pl_module, ended=ended):
            self._max_steps = planned_steps(trainer, batches=True)

    @override
    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._look(self._training(trainer), pl_module, validation=True)

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == "fit" and not (trainer.sanity_checking or self._dry_run):
            training = self._training(trainer)
            self._note_metrics(training, self._fresh_metrics(training))

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self._dry_run:
            self._tick(trainer, pl_module, ended=True)
        self._finish(self._training(trainer), pl_module)

    @override
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._interrupt(self._training(trainer), exception)

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit":
            self._scheduler.stop()

    def _training(self, trainer: pl.Trainer) -> LightningTraining:
        """Return the training as it stands."""
        return LightningTraining(trainer, self._clock)

    @override
    def _fresh_metrics(self, training: Training) -> Mapping[str, Any]:
        if not self.watch:
            return {}
        metrics, before = cast(LightningTraining, training).trainer.callback_metrics, self._last_metrics
        self._last_metrics = dict(metrics)
        # A value that is logged again is another tensor, even if it is equal.
        return {key: value for key, value in metrics.items() if value is not before.get(key)}

    @override
    def _heed(self, training: Training, judgement: Judgement) -> bool:
        stopped = [listener(cast(LightningTraining, training).trainer, judgement) for listener in self.listeners]
        return any(stopped)

    @override
    def _scored(self, training: Training, result: Snapshot) -> None:
        self._missing_scores.scored(
            cast(LightningTraining, training).trainer, set(tracking.metrics(result, self._prefix, more=True))
        )

    @override
    def _failed(self, training: Training) -> None:
        self._missing_scores.failed(cast(LightningTraining, training).trainer)

    @override
    def _write_record(self, training: Training) -> None:
        super()._write_record(training)
        if self._history.record is not None:
            self._handover.put(self._history.record.path)
