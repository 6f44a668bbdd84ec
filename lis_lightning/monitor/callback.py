"""When to take a snapshot of a module in training, and who is told of its score.

How to encode, to score, to judge, to record and to log is said elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from typing_extensions import override

from lis_lightning.data.split import PreferenceSplit
from lis_lightning.data.tables import Table
from lis_lightning.monitor import snapshot
from lis_lightning.monitor.announcer import Teller, check_told
from lis_lightning.monitor.background import Background
from lis_lightning.monitor.batches import Items, make_batches
from lis_lightning.monitor.encoding import Encode, Encoder, check_encode, resolve
from lis_lightning.monitor.failures import Failures
from lis_lightning.monitor.processes import on_first, share_of, together
from lis_lightning.monitor.run_history import History, judged
from lis_lightning.monitor.schedule import Schedule
from lis_lightning.monitor.scheduler import agenda, check_when
from lis_lightning.monitor.snapshot_scorer import Measure, Scored, restore, waiting
from lis_lightning.monitor.stock_callbacks import check_averaging, warn_of_stale_counting, warn_of_stale_scores
from lis_lightning.monitor.storage import Retention
from lis_lightning.results import record
from lis_lightning.results.movers import Catalogue
from lis_lightning.results.snapshot import Snapshot
from lis_lightning.results.stopping import Judgement, StopRule
from lis_lightning.scoring.options import ScoreOptions
from lis_lightning.scoring.preferences import Preference
from lis_lightning.tracking import loggers as tracking

Listener = Callable[[pl.Trainer, Judgement], bool]  # returns whether it stops the training


class LISMonitor(pl.Callback):
    """Score the item representations of the module in training, without disturbing the training.

    A snapshot is taken of the raw module before the first step, whenever the schedule says so, and at the end: all
    items of the split are encoded, scored, compared with the snapshots before, written to the run's record, logged as
    ``lis/...`` to the Trainer's loggers at the snapshot's own step, and put into
    ``trainer.callback_metrics``, where stock ``EarlyStopping(monitor="lis/ais", mode="max")`` and
    ``ModelCheckpoint(monitor="lis/ais", mode="max", every_n_train_steps=...)`` find them. Give the ModelCheckpoint our
    `every_n_steps` and ``save_on_train_epoch_end=False``, so that a score is never stored with later weights (other
    steps are warned of), and a `filename` without a metric in it (the slash would make a folder).
    ``Trainer(fast_dev_run=True)`` takes the raw snapshot, raises if it fails, and writes nothing.

    A snapshot, a logger or a record that fails never stops the training: the failure is recorded and warned of, once
    for each kind. Scored are the weights in training, not an average of them: callbacks that average weights stand
    behind the monitor.
    Several processes, started as for any Trainer (``Trainer(strategy="ddp", num_nodes=4, devices=8)`` under SLURM or
    ``torchrun --nnodes 4 --nproc-per-node 8 --rdzv-endpoint host:port train.py``), encode a share of the items each,
    score alike and wait for none; the first writes. With FSDP2 a batch that runs out of memory cannot be tried again.

    A checkpoint of the Trainer brings the curve along: resumed from it, a run continues its curve and its record, and
    judges as if it had never stopped; without its record, only pairs of old snapshots cannot be compared any more.
    Where the split, the ceilings or the schedule have changed, a new curve and record start, with a warning.

    Args:
        split: The preference split to score on.
        items: Dicts of one item each (a dataset or a list), or a DataLoader of item batches. With an attribute
            ``item_ids`` only the split's items are read, and missing ones are found before the training starts; by one
            ``lengths`` (tokens of each row, say) batches are sorted, which saves padding.
        every_n_steps: Optimizer steps between snapshots; 200 where there is no `schedule`.
        schedule: When snapshots are due, instead of or besides `every_n_steps`: one or several of
            :mod:`lis_lightning.monitor.schedule`, as in ``[LogSpaced(10, per_decade=4), OnFile()]``.
        background_steps: Score in the background while the training goes on, and read the score so many optimizer steps
            after its snapshot (or at the next snapshot), waiting for it if need be: curves and stops do not depend on
            timing. The raw and the last snapshot are scored at once. None scores all at once. A stock ModelCheckpoint
            then finds scores of earlier weights: use `save`.
        name: Tells several monitors of one Trainer apart: keys are ``lis/<name>/...``, the record ``record-<name>``.
        encode: Called with the module and an item batch; returns [B, D]. Or a submodule, with pooling:
            ``Encode("model.text_model", pooling="last")``, by name the mean. Default: the module's ``encode_items``.
        item_key: Key of the item id in a batch.
        catalogue: Table of items to show those that moved: `item_key`, ``title`` and ``image``, a path. None: by ids.
        batch_size: Items per batch, halved where they do not fit into memory; a DataLoader keeps its own.
        collate_fn: Makes a batch of a list of items; a DataLoader keeps its own.
        save: Which snapshots to keep on disk beside the record, ``"best"``, ``"last-3"`` (any number) or ``"all"``; see
            :mod:`lis_lightning.monitor.storage`. Default: none.
        save_dtype: Their precision, ``"float32"``, ``"float16"`` or ``"bfloat16"``.
        artifact: Log the best snapshot to W&B when the training ends; `save` has to keep it.
        alerts: Send a W&B alert where the verdict becomes one to act on, or :class:`LISEarlyStopping` stops the run.
        dirpath: Folder of the record. Default: the run folder of the first logger, where ModelCheckpoint writes too,
            else ``trainer.default_root_dir``.
        placebo: Also score representations that know nothing at the first snapshot.
        ceilings: Preference data to compute ceilings for, as :class:`lis_lightning.scoring.ScoreOptions` takes them.
        aligned_to: The one that the module is aligned to.
        k: Principal axes of the representation that the probe reads.
        cache_dir: Folder where base and ceilings are kept; see :class:`lis_lightning.scoring.Scorer`.
        rule: When a run is judged finished.
        strict: Raise where a snapshot, a logger or the record fails, instead of going on.
        progress: Report each snapshot in a line, and all of them in a table at the end.

    Raises:
        ConfigError: If an argument is out of range or preference data malformed, or the module cannot encode items
            (when the fit is set up).
        SnapshotError: If ``items.item_ids`` lacks items of the split (when the fit is set up).
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
        k: int = 16,
        cache_dir: str | Path | None = None,
        rule: StopRule | None = None,
        strict: bool = False,
        progress: bool = True,
    ) -> None:
        check_when(every_n_steps, schedule, background_steps)
        check_encode(encode)
        check_told(name, artifact, save)
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
        options = ScoreOptions(ceilings=ceilings, aligned_to=aligned_to, k=k)
        self._measure = Measure(split, options, cache_dir)
        self._reset()

    def _reset(self) -> None:
        """Forget the runs before."""
        self._history = History(self.name, self._retention, self._catalogue)
        self._results = self._history.results
        self._agenda = agenda(self.every_n_steps, self.schedule)
        self._background: Background[Scored] = Background(self.background_steps or 0)
        self._last_step = -1  # of the last attempt, failed or not: a step is tried once
        self._folder: Path | None = None  # of the record, on the process that writes it
        self._concluded = False
        self._failures = Failures(self._history.note)
        self._teller = Teller(self._prefix, self._failures, alerts=self.alerts, progress=self.progress)

    @property
    def results(self) -> list[Snapshot]:
        """The snapshots so far, by step; those before a resume included."""
        return list(self._results)

    @property
    def best(self) -> Snapshot | None:
        """The best snapshot so far, None before the first."""
        return self._history.best

    @property
    def best_step(self) -> int | None:
        """Optimizer step of the best snapshot so far."""
        return self._history.best_step

    @property
    def record_path(self) -> Path | None:
        """File of the run's record, on the first process; None before the fit, and where it could not be made."""
        record = self._history.record
        return None if record is None else record.path

    @property
    def last_error(self) -> str | None:
        """The last failure that the training survived, in words."""
        return self._failures.last

    @property
    @override
    def state_key(self) -> str:
        return self._generate_state_key(name=self.name)

    @override
    def state_dict(self) -> dict[str, Any]:
        state = self._history.state(self.rule.plateau_patience)
        state |= {"last_step": self._last_step, "agenda": self._agenda.state_dict(), "evaluator": self._evaluator()}
        return {**state, "waiting": waiting(self._background)}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self._history.load(state_dict, self._evaluator()):
            self._last_step = state_dict["last_step"]
            self._agenda.load_state_dict(state_dict["agenda"])
            restore(self._background, state_dict["waiting"])

    @override
    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        self._history.checkpointed()

    def _evaluator(self) -> dict[str, Any]:
        """Return what makes the points of one curve comparable, in plain values."""
        return {
            "split": self.split.hash,
            "ceilings": sorted(self.ceilings),
            "aligned_to": self.aligned_to,
            "k": self.k,
            "encode": repr(self.encode) if isinstance(self.encode, Encode | str) else None,
            "schedule": self._agenda.describe(),
        }

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        if trainer.global_step == 0:  # not a second `fit` that goes on; a checkpoint is loaded after this hook
            self._reset()
        self._dry_run = bool(trainer.fast_dev_run)  # type: ignore[attr-defined]  # set by Lightning's connector
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]  # set there too
        check_averaging(callbacks, self)
        self._failures.strict = self.strict or self._dry_run
        warn_of_stale_scores(trainer.checkpoint_callbacks, self._prefix, self._agenda.schedules)
        self._batches = make_batches(
            self.items, self.split.item_ids, batch_size=self.batch_size, collate_fn=self.collate_fn,
            item_key=self.item_key, **share_of(trainer),
        )  # fmt: skip

    @override
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Not in `setup`, after which a module may still make its submodules.
        self._encoder = resolve(self.encode, pl_module, self.item_key)
        snapshot.check(self._encoder, pl_module, self._batches)

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._concluded = False
        if not self._dry_run:
            folder = Path(trainer.strategy.broadcast(str(self.dirpath or tracking.run_folder(trainer))))
            self._folder = folder if trainer.is_global_zero else None
            if self._folder is not None:
                self._history.recover(self._folder)
            self._results[:] = trainer.strategy.broadcast(self._results)  # others may not see the folder
            log = partial(self._teller.start, trainer, self._measure.scorer.describe())
            on_first(trainer, self._write, log, strict=self._failures.strict)
            self._agenda.start(
                folder, step=trainer.global_step, epoch=trainer.current_epoch, shared=trainer.world_size > 1
            )
        warn_of_stale_counting(trainer, self._prefix, self._agenda.schedules)
        if self._results:
            # A stock EarlyStopping raises where its metric is missing.
            tracking.publish(trainer, self._results[-1], self._prefix)
            self._teller.verdict = self._results[-1].verdict
        else:
            self._teller.judged(trainer, self._snapshot(trainer, pl_module))

    @override
    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        self._take_if_due(trainer, pl_module)

    @override
    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._take_if_due(trainer, pl_module, validation=True)

    def _take_if_due(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *, validation: bool = False) -> None:
        """Read a score that is due, take a snapshot if a schedule says so, and let the listeners know."""
        if self._dry_run:
            return

        def decide(due: bool) -> bool:
            return trainer.strategy.reduce_boolean_decision(due and trainer.is_global_zero, all=False)

        epochs = trainer.current_epoch + trainer.is_last_batch
        due = self._agenda.due(trainer.global_step, epochs, decide, validation=validation)
        judgements = []
        if self._background.step is not None and (due or self._background.due(trainer.global_step)):
            judgements.append(self._read(trainer, pl_module))
        if due:
            judgements.append(self._snapshot(trainer, pl_module, background=self.background_steps is not None))
        for judgement in filter(None, judgements):
            stopped = [listener(trainer, judgement) for listener in self.listeners]
            self._teller.judged(trainer, judgement, stopped=any(stopped))

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._dry_run:
            return
        if self._background.step is not None:
            self._teller.judged(trainer, self._read(trainer, pl_module))
        if trainer.global_step > self._last_step:
            self._teller.judged(trainer, self._snapshot(trainer, pl_module))
        self._conclude(trainer)

    @override
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._agenda.stop()
        self._failures.strict = False  # the error that ends the run is the one to see
        if self._background.step is not None:  # the other processes may be gone: nobody is asked
            last = partial(self._finished, trainer, self._background.take)
            self._teller.judged(trainer, self._tell(trainer, self._failures.survived("snapshot", last)))
        if self._folder is not None and self._results and not self._concluded:
            self._conclude(trainer, type(exception).__name__)

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit":
            self._agenda.stop()

    def _conclude(self, trainer: pl.Trainer, cut_short_by: str | None = None) -> None:
        """Say what the run has come to, once, whether it reached its end or not."""
        self._concluded = True
        if (best := self.best) is None:
            return
        log = partial(self._teller.end, trainer, self._history, self.artifact)
        end = partial(self._failures.survived, "record", partial(self._history.end, cut_short_by))
        on_first(trainer, log, end, strict=self._failures.strict)
        self._teller.conclude(trainer, self._results, best, self.record_path)

    def _snapshot(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *, background: bool = False
    ) -> Judgement | None:
        """Measure, and tell everybody; None where it failed, or is still to be scored."""
        step = self._last_step = self._failures.step = trainer.global_step
        encode = partial(
            self._measure.scoring, trainer, pl_module, self._batches, self._encoder, self.item_key,
            first=not self._results, placebo=self.placebo and not self._results, background=background,
        )  # fmt: skip
        with self._agenda.taking(step), snapshot.undisturbed(pl_module):
            scoring = self._failures.survived("snapshot", encode)
            if scoring is None:
                return None
            if background:
                self._background.submit(step, scoring)
                return None
            return self._tell(trainer, self._failures.survived("snapshot", partial(self._agreed, trainer, scoring)))

    def _read(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> Judgement | None:
        """Wait for the score in the background, and tell everybody; None where it failed."""
        with self._agenda.waiting(), snapshot.undisturbed(pl_module):
            read = partial(self._agreed, trainer, self._background.take)
            return self._tell(trainer, self._failures.survived("snapshot", read))

    def _agreed(self, trainer: pl.Trainer, scoring: Callable[[], Scored]) -> Snapshot:
        """Return the score that the first process came to, on every process."""
        result = self._finished(trainer, partial(together, trainer, scoring))
        # Another machine may round otherwise, and all must judge alike.
        return trainer.strategy.broadcast(result)

    def _finished(self, trainer: pl.Trainer, scoring: Callable[[], Scored]) -> Snapshot:
        """Return a score as it is recorded, its representations put on disk."""
        scored = scoring()
        if scored.embeddings is not None:
            keep = partial(self._history.keep, self.split, scored.result, scored.embeddings, scored.model)
            on_first(trainer, partial(self._failures.survived, "file", keep), strict=self._failures.strict)
        return record.as_recorded(scored.result)

    def _tell(self, trainer: pl.Trainer, result: Snapshot | None) -> Judgement | None:
        """Judge a result, and put it wherever one looks for it."""
        if result is None:
            return None
        said = self._failures.survived("verdict", partial(judged, self._results, result, self.rule))
        judgement, result = said or (None, result)
        self._results.append(result)
        self._teller.found(trainer, result)
        if not self._dry_run:
            log = partial(self._teller.scored, trainer, self._results, self._history.best or result)
            on_first(trainer, self._write, log, strict=self._failures.strict)
        return judgement

    def _write(self) -> None:
        """Make the record hold the run so far, on the process that writes it."""
        if self._folder is not None:
            config = {"schedule": self._agenda.describe(), "placebo": self.placebo, "rule": vars(self.rule)}
            self._failures.survived("record", partial(self._history.write, self._folder, self._measure.scorer, config))
