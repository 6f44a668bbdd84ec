"""Lightning callback that takes, scores, judges and logs snapshots of a module in training.

It connects the Trainer's hooks to the modules of this package, which schedule, encode, score, record and log. Half of
the file documents the arguments.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from typing_extensions import override

from lis_lightning.data.split import PreferenceSplit
from lis_lightning.data.tables import Table
from lis_lightning.errors import LisError
from lis_lightning.monitor.announcer import Announcer, check_logging
from lis_lightning.monitor.background import Background
from lis_lightning.monitor.batches import Items, collate_hint, make_batches, training_loaders
from lis_lightning.monitor.clock import StepClock
from lis_lightning.monitor.digest import unchanged
from lis_lightning.monitor.encoder import Encoder, check_encode, resolve_encoder
from lis_lightning.monitor.encoding import check_encoder
from lis_lightning.monitor.failures import Failures, permanent_error
from lis_lightning.monitor.handover import Handover
from lis_lightning.monitor.isolation import check_initialized, undisturbed
from lis_lightning.monitor.missing_scores import MissingScores
from lis_lightning.monitor.processes import data_parallel_rank, on_first, together
from lis_lightning.monitor.progress import MeanLoss, planned_steps
from lis_lightning.monitor.run_history import RunHistory, judge_result
from lis_lightning.monitor.schedule import Schedule
from lis_lightning.monitor.scheduler import check_schedule, make_scheduler
from lis_lightning.monitor.snapshot_scorer import (
    ScoredSnapshot,
    SnapshotScorer,
    background_state,
    restore_background,
)
from lis_lightning.monitor.stock_callbacks import (
    UniqueKey,
    check_averaging,
    warn_of_stale_counting,
    warn_of_stale_scores,
)
from lis_lightning.monitor.storage import Retention
from lis_lightning.monitor.submodule_encoder import Encode
from lis_lightning.results import record_contents
from lis_lightning.results.movers import Catalogue
from lis_lightning.results.snapshot import Snapshot
from lis_lightning.results.stopping import StopRule
from lis_lightning.results.verdict import Judgement
from lis_lightning.scoring.options import ScoreOptions
from lis_lightning.scoring.preferences import Preference
from lis_lightning.tracking import loggers as tracking

Listener = Callable[[pl.Trainer, Judgement], bool]  # returns whether it stops the training


class LISMonitor(pl.Callback):
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
        item_key: Key of the item id in a batch.
        catalogue: Table with the columns `item_key`, ``title`` and ``image`` (a path), to show the items whose gain
            changed most. None shows their ids.
        batch_size: Items per batch, halved if they do not fit into memory; a DataLoader keeps its own.
        collate_fn: Function that makes a batch of a list of items; a DataLoader keeps its own.
        save: Which snapshots to keep on disk beside the record: ``"best"``, ``"last-3"`` (any number) or ``"all"``; see
            :mod:`lis_lightning.monitor.storage`. None keeps none.
        save_dtype: Precision of the kept snapshots: ``"float32"``, ``"float16"`` or ``"bfloat16"``.
        artifact: Whether to log the best snapshot to W&B at the end of training; requires `save`.
        alerts: Whether to send a W&B alert when the verdict calls for action or :class:`LISEarlyStopping` stops the
            run.
        dirpath: Folder of the record. Default: the run folder of the first logger, where ModelCheckpoint writes too,
            or else ``trainer.default_root_dir``.
        placebo: Whether to score placebo representations, which carry no information, at the first snapshot.
        ceilings: Preference data to compute ceilings for, as in :class:`lis_lightning.scoring.ScoreOptions`.
        aligned_to: Name of the ceiling that the module is aligned to.
        k: Largest number of principal axes of the representation that the probe reads.
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

    def __init__(
        self,
        split: PreferenceSplit,
        items: Items,
        *,
        every_n_steps: int | None = None,
        schedule: Schedule | Sequence[Schedule] | None = None,
        background_steps: int | None = None,
        name: str | None = None,
        encode: Encoder | Encode | str | None = None,
        item_key: str = "item_id",
        catalogue: str | Path | Table | None = None,
        batch_size: int = 64,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        save: str | None = None,
        save_dtype: str = "float32",
        artifact: bool = False,
        alerts: bool = True,
        dirpath: str | Path | None = None,
        placebo: bool = True,
        ceilings: Sequence[str] | Mapping[str, Preference] = ("pairs", "ids"),
        aligned_to: str = "pairs",
        k: int = 64,
        cache_dir: str | Path | None = None,
        rule: StopRule | None = None,
        strict: bool = False,
        progress: bool = True,
    ) -> None:
        check_schedule(every_n_steps, schedule, background_steps)
        check_encode(encode)
        check_logging(name, artifact, save)
        self.split = split
        self.items = items
        self.name = name
        self._prefix = "lis" if name is None else f"lis/{name}"
        self.every_n_steps = every_n_steps
        self.schedule = schedule
        self.background_steps = background_steps
        self.encode = encode
        self.item_key = item_key
        self.catalogue = catalogue
        self._catalogue = Catalogue.of(split.item_ids, catalogue, item=item_key)
        _ = self._catalogue.parquet  # now, as a forked process could not
        self.batch_size = batch_size
        self.collate_fn = collate_fn
        self.save = save
        self.save_dtype = save_dtype
        self.artifact = artifact
        self.alerts = alerts
        self._retention = None if save is None else Retention(save, save_dtype)
        self.dirpath = dirpath
        self.placebo = placebo
        self.ceilings = ceilings
        self.aligned_to = aligned_to
        self.k = k
        self.cache_dir = cache_dir
        self.rule = rule or StopRule()
        self.strict = strict
        self.progress = progress
        self.listeners: list[Listener] = []
        self._set_up = False
        self._handover = Handover()
        options = ScoreOptions(ceilings=ceilings, aligned_to=aligned_to, k=k)
        self._snapshot_scorer = SnapshotScorer(split, options, cache_dir)
        self._reset()

    def _reset(self) -> None:
        """Start from an empty run."""
        self._history = RunHistory(self.name, self._retention, self._catalogue)
        self._results = self._history.results
        self._scheduler = make_scheduler(self.every_n_steps, self.schedule)
        self._background: Background[ScoredSnapshot] = Background(self.background_steps or 0)
        self._clock = StepClock()
        self._train_loss = MeanLoss()
        self._max_steps: int | None = None
        self._last_step = -1  # of the last attempt, failed or not: no step is tried twice
        self._folder: Path | None = None  # of the record, on the process that writes it
        self._concluded = False
        self._failures = Failures(self._history.record_failure)
        self._missing_scores = MissingScores(self._prefix)
        self._announcer = Announcer(self._prefix, self._failures, alerts=self.alerts, progress=self.progress)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for a pickle, which a spawned process gets; a fit makes the rest anew."""
        return {name: value for name, value in vars(self).items() if name not in {"_encoder", "_batches"}}

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

    @property
    def results(self) -> list[Snapshot]:
        """The snapshots so far, by step, including those before a resume."""
        return list(self._catch_up().results)

    @property
    def best(self) -> Snapshot | None:
        """The best snapshot so far, None before the first."""
        return self._catch_up().best

    @property
    def best_step(self) -> int | None:
        """Optimizer step of the best snapshot so far."""
        return self._catch_up().best_step

    @property
    def record_path(self) -> Path | None:
        """File of the run's record on the first process; None before the fit, or if it could not be made."""
        record = self._catch_up().record
        return None if record is None else record.path

    @property
    def last_error(self) -> str | None:
        """The last tolerated failure as text; None if there was none."""
        self._catch_up()
        return self._failures.last

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
        state = self._catch_up().state(self.rule.window)
        return state | {
            "last_step": self._last_step,
            "train_loss": self._train_loss.state_dict(),
            "scheduler": self._scheduler.state_dict(),
            "clock": self._clock.state_dict(),
            "evaluator": self._evaluator(),
            "background": background_state(self._background),
            "failures": self._failures.state_dict(),
        }

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self._history.load(state_dict, self._evaluator()):
            self._last_step = state_dict["last_step"]
            self._train_loss.load_state_dict(state_dict["train_loss"])
            self._scheduler.load_state_dict(state_dict["scheduler"])
            self._clock.load_state_dict(state_dict["clock"])
            restore_background(self._background, state_dict["background"])
            self._failures.load_state_dict(state_dict["failures"])

    @override
    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        self._history.protect_checkpointed()

    def _evaluator(self) -> dict[str, Any]:
        """Return the settings that must be equal for two snapshots to be comparable, in plain values."""
        return {
            "split": self.split.hash,
            "ceilings": sorted(self.ceilings),
            "aligned_to": self.aligned_to,
            "k": self.k,
            "encode": repr(self.encode) if isinstance(self.encode, Encode | str) else None,
            "schedule": self._scheduler.describe(),
        }

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
        self._dry_run = bool(trainer.fast_dev_run)  # type: ignore[attr-defined]  # set by Lightning's connector
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]  # set there too
        check_averaging(callbacks, self)
        self._failures.strict = self.strict or self._dry_run
        warn_of_stale_scores(trainer.checkpoint_callbacks, self._prefix, self._scheduler.schedules)
        self._batches = make_batches(
            self.items, self.split.item_ids, batch_size=self.batch_size, collate_fn=self.collate_fn,
            item_key=self.item_key, **data_parallel_rank(trainer),
        )  # fmt: skip

    @override
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Not in `setup`: a module may still create submodules after it.
        check_initialized(pl_module)
        self._encoder = resolve_encoder(self.encode, pl_module, self.item_key)
        check_encoder(self._encoder, pl_module, self._batches, self.split.item_ids, self.item_key)

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._concluded = False
        self._max_steps = planned_steps(trainer, batches=self._clock.counts_batches)
        if not self._dry_run:
            self._open_run(trainer)
        warn_of_stale_counting(trainer, self._prefix, self._scheduler.schedules)
        if self._results:
            # A stock EarlyStopping raises where its metric is missing.
            tracking.publish(trainer, self._results[-1], self._prefix)
            self._announcer.verdict = self._results[-1].verdict
        else:
            with self._announcer.first_snapshot(self.split.num_items, self.ceilings):
                judgement = self._take_snapshot(trainer, pl_module, raw=True)
            self._alert(trainer, judgement)
        self._clock.start(pl_module)

    def _open_run(self, trainer: pl.Trainer) -> None:
        """Complete a resumed run's results from its record, log the split, and start the schedules."""
        folder = Path(trainer.strategy.broadcast(str(self.dirpath or tracking.run_folder(trainer))))
        self._folder = folder if trainer.is_global_zero else None
        if self._folder is not None:
            self._history.recover(self._folder)
        # The other processes may not see the folder.
        self._results[:] = trainer.strategy.broadcast(self._results)
        with on_first(trainer, strict=self._failures.strict):
            self._write_record()
            self._announcer.log_config(trainer, self._snapshot_scorer.scorer.describe())
        self._scheduler.start(
            folder, step=self.steps(trainer), epoch=trainer.current_epoch, shared=trainer.world_size > 1
        )

    @override
    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *_: Any) -> None:
        self._train_loss.add(outputs)
        self._tick(trainer, pl_module)
        self._take_if_due(trainer, pl_module)

    def _tick(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *, ended: bool = False) -> None:
        """Count batches from now on if the weights change and `trainer.global_step` does not."""
        if self._clock.tick(trainer, pl_module, ended=ended):
            self._max_steps = planned_steps(trainer, batches=True)

    @override
    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._take_if_due(trainer, pl_module, validation=True)

    def _take_if_due(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *, validation: bool = False) -> None:
        """Read a background score that is due, take a snapshot that is due, and pass judgements to the listeners."""
        if self._dry_run:
            return

        def first_process_says(due: bool) -> bool:
            return trainer.strategy.reduce_boolean_decision(due and trainer.is_global_zero, all=False)

        step, epochs = self.steps(trainer), trainer.current_epoch + trainer.is_last_batch
        due = self._scheduler.due(step, epochs, first_process_says, validation=validation)
        judgements = []
        # Before a new snapshot the pending score is read early: there is at most one.
        if self._background.step is not None and (due or self._background.due(step)):
            judgements.append(self._read_background(trainer, pl_module))
        if due:
            background = self.background_steps is not None
            judgements.append(self._take_snapshot(trainer, pl_module, background=background))
        for judgement in filter(None, judgements):
            stopped = [listener(trainer, judgement) for listener in self.listeners]
            self._alert(trainer, judgement, stopped=any(stopped))

    def _alert(self, trainer: pl.Trainer, judgement: Judgement | None, *, stopped: bool = False) -> None:
        """Send an alert if the judgement calls for one."""
        self._announcer.alert(trainer, judgement, step=self.steps(trainer), stopped=stopped)

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._dry_run:
            return
        if self._background.step is not None:
            self._alert(trainer, self._read_background(trainer, pl_module))
        self._tick(trainer, pl_module, ended=True)
        if self.steps(trainer) > self._last_step:
            self._alert(trainer, self._take_snapshot(trainer, pl_module))
        self._conclude(trainer)

    @override
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._scheduler.stop()
        self._failures.strict = False  # the exception that ends the run must not be replaced by another
        if self._background.step is not None:
            result = None
            with self._failures.tolerate("snapshot"):
                # Without a collective call: the other processes may be gone.
                result = self._save_embeddings(trainer, self._background.take())
            self._alert(trainer, self._add_result(trainer, result))
        attempted = bool(self._results or self._failures.num_snapshots)
        if self._folder is not None and attempted and not self._concluded:
            self._conclude(trainer, type(exception).__name__)

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit":
            self._scheduler.stop()

    def _conclude(self, trainer: pl.Trainer, cut_short_by: str | None = None) -> None:
        """Log and print the outcome of the run and close its record, also after an exception."""
        self._concluded = True
        if cut_short_by is None and self._results:  # a run that an exception ended may be resumed
            with self._failures.tolerate("verdict"):
                *past, last = self._results
                self._results[-1] = judge_result(past, last, self.rule, self._max_steps, ended=True)[1]
        with on_first(trainer, strict=self._failures.strict):
            self._announcer.log_end(trainer, self._history, self.artifact)
            with self._failures.tolerate("record"):
                self._history.end(cut_short_by)
        self._announcer.print_summary(trainer, self._history)

    def _take_snapshot(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *, raw: bool = False, background: bool = False
    ) -> Judgement | None:
        """Encode and score all items and return the judgement; None if that failed or the score is pending.

        The raw snapshot raises what cannot heal.
        """

        def refusal(error: Exception) -> LisError | None:
            hint = collate_hint(trainer, self.items, self.collate_fn)
            return permanent_error(error, hint) if raw else None

        step = self._last_step = self._failures.step = self.steps(trainer)
        first = not self._results
        checked = unchanged(pl_module) if raw else contextlib.nullcontext()
        score: Callable[[], ScoredSnapshot] | None = None
        with self._scheduler.taking(step), checked, self._undisturbed(trainer, pl_module):
            with self._failures.tolerate("snapshot", unless=refusal):
                score = self._snapshot_scorer.encode_to_score(
                    trainer, pl_module, self._batches, self._encoder, self.item_key,
                    step=step, first=first, train_loss=self._train_loss.read(), placebo=self.placebo and first,
                    background=background,
                )  # fmt: skip
            if score is None:
                return self._add_result(trainer, None)
            if background:
                self._background.submit(step, score)
                return None
            return self._add_result(trainer, self._shared_result(trainer, score))

    def _undisturbed(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> contextlib.AbstractContextManager[None]:
        """Return a context that restores what the training depends on."""
        return undisturbed(pl_module, self._batches, self.encode, *training_loaders(trainer))

    def _read_background(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> Judgement | None:
        """Wait for the score in the background and return the judgement; None if scoring failed."""
        with self._scheduler.waiting(), self._undisturbed(trainer, pl_module):
            return self._add_result(trainer, self._shared_result(trainer, self._background.take))

    def _shared_result(self, trainer: pl.Trainer, score: Callable[[], ScoredSnapshot]) -> Snapshot | None:
        """Return the first process's score on every process; None if scoring failed."""
        with self._failures.tolerate("snapshot"):
            result = self._save_embeddings(trainer, together(trainer, score))
            # Another machine may round differently, and all processes must reach the same verdict.
            return trainer.strategy.broadcast(result)
        return None

    def _save_embeddings(self, trainer: pl.Trainer, scored: ScoredSnapshot) -> Snapshot:
        """Write the representations of a snapshot to disk if the retention keeps them, and return its result."""
        if scored.embeddings is not None:
            with on_first(trainer, strict=self._failures.strict), self._failures.tolerate("file"):
                self._history.save_embeddings(self.split, scored.result, scored.embeddings, scored.model)
        return record_contents.as_recorded(scored.result)

    def _add_result(self, trainer: pl.Trainer, result: Snapshot | None) -> Judgement | None:
        """Judge a new result, then publish, record and log it; None stands for a failed snapshot."""
        if result is None:
            self._missing_scores.failed(trainer)
            return None
        self._missing_scores.scored(trainer, set(tracking.metrics(result, self._prefix)))
        judgement: Judgement | None = None
        with self._failures.tolerate("verdict"):
            judgement, result = judge_result(self._results, result, self.rule, self._max_steps)
        self._results.append(result)
        self._announcer.publish(trainer, result)
        if not self._dry_run:
            with on_first(trainer, strict=self._failures.strict):
                self._write_record()
                self._announcer.log_result(trainer, self._results, self._history.best or result)
        return judgement

    def _write_record(self) -> None:
        """Write the results so far to the record, on the process that has one."""
        if self._folder is not None:
            config = {"schedule": self._scheduler.describe(), "placebo": self.placebo, "rule": vars(self.rule)}
            config["max_steps"] = self._max_steps
            with self._failures.tolerate("record"):
                self._history.write(self._folder, self._snapshot_scorer.scorer, config)
                if self._history.record is not None:
                    self._handover.put(self._history.record.path)
