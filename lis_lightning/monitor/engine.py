"""What every monitor does, whatever loop it watches: schedule, take, score, judge, record, log and store snapshots.

The monitor of one kind of training is a :class:`SnapshotEngine` that is told where the training stands, by the hooks of
a Trainer or by the user's own loop.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn
from torch.utils.data import DataLoader

from lis_lightning.data.split import PreferenceSplit
from lis_lightning.data.tables import Table
from lis_lightning.errors import ConfigError, ItemError, LisError, LogError, ShapeError
from lis_lightning.monitor.announcer import Announcer, check_logging
from lis_lightning.monitor.background import Background
from lis_lightning.monitor.batches import Items, make_batches
from lis_lightning.monitor.digest import unchanged
from lis_lightning.monitor.encoder import Encoder, check_encode, resolve_encoder
from lis_lightning.monitor.encoding import check_encoder
from lis_lightning.monitor.failures import Failures, permanent_error
from lis_lightning.monitor.inference import (
    infer_collate,
    infer_item_key,
    joined,
    missing_key,
    own_collates,
    uncollatable,
)
from lis_lightning.monitor.isolation import check_initialized, undisturbed
from lis_lightning.monitor.processes import on_first, together
from lis_lightning.monitor.progress import MeanLoss
from lis_lightning.monitor.run_history import RunHistory, judge_result
from lis_lightning.monitor.schedule import Schedule
from lis_lightning.monitor.scheduler import check_schedule, make_scheduler
from lis_lightning.monitor.snapshot_scorer import (
    ScoredSnapshot,
    SnapshotScorer,
    background_state,
    restore_background,
)
from lis_lightning.monitor.storage import Retention
from lis_lightning.monitor.submodule_encoder import Encode
from lis_lightning.monitor.training import Training
from lis_lightning.monitor.watching import Watch, check_watch
from lis_lightning.results import record_contents
from lis_lightning.results.movers import Catalogue
from lis_lightning.results.snapshot import Snapshot, ranked
from lis_lightning.results.stopping import StopRule
from lis_lightning.results.verdict import Judgement
from lis_lightning.scoring.options import ScoreOptions
from lis_lightning.scoring.preferences import Preference
from lis_lightning.scoring.reads.naming import Reads


class SnapshotEngine:
    """Base class of monitors: takes, scores, judges, records and logs snapshots of a module, and restores the run.

    A subclass connects it to a training. It calls `_prepare` and `_bind` before the first step, `_begin` when training
    starts, `_look` after each optimizer step and before each validation, and `_finish` at the end, on every process. It
    may override `_heed`, which acts on judgements, and `_scored` and `_failed`, which hear of each snapshot.

    Args: those of :class:`lis_lightning.monitor.LISMonitor`, which documents them.
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
        item_key: str | None = None,
        catalogue: str | Path | Table | None = None,
        batch_size: int = 64,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        save: str | None = None,
        save_dtype: str = "float32",
        artifact: bool = False,
        watch: Sequence[str] = (),
        alerts: bool = True,
        log_more: bool = False,
        dirpath: str | Path | None = None,
        placebo: bool = True,
        ceilings: Sequence[str] | Mapping[str, Preference] = ("pairs", "ids"),
        aligned_to: str = "pairs",
        k: int = 64,
        reads: Reads = (),
        cache_dir: str | Path | None = None,
        rule: StopRule | None = None,
        strict: bool = False,
        progress: bool = True,
    ) -> None:
        check_schedule(every_n_steps, schedule, background_steps)
        check_encode(encode)
        check_logging(name, artifact, save)
        check_watch(watch)
        self.split = split
        self.items = items
        self.name = name
        self._prefix = "lis" if name is None else f"lis/{name}"
        self.every_n_steps = every_n_steps
        self.schedule = schedule
        self.background_steps = background_steps
        self.encode = encode
        self.item_key = item_key or infer_item_key(items, str(split.settings["item"]))
        self.catalogue = catalogue
        self._catalogue = Catalogue.of(split.item_ids, catalogue, item=self.item_key)
        _ = self._catalogue.parquet  # now, as a forked process could not
        self.batch_size = batch_size
        self.collate_fn = collate_fn
        self.save = save
        self.save_dtype = save_dtype
        self.artifact = artifact
        self.watch = watch
        self.alerts = alerts
        self.log_more = log_more
        self._retention = None if save is None else Retention(save, save_dtype)
        self.dirpath = dirpath
        self.placebo = placebo
        self.ceilings = ceilings
        self.aligned_to = aligned_to
        self.k = k
        self.reads = reads
        self.cache_dir = cache_dir
        self.rule = rule or StopRule()
        self.strict = strict
        self.progress = progress
        options = ScoreOptions(ceilings=ceilings, aligned_to=aligned_to, k=k, reads=reads)
        for reader in options.readers.values():
            reader.check(split)
        self._snapshot_scorer = SnapshotScorer(split, options, cache_dir, progress=progress)
        self._dry_run = self._collate_inferred = False
        self._connect()
        self._reset()

    def _connect(self) -> None:
        """Make what a subclass needs for all of its trainings; called once."""

    def _reset(self) -> None:
        """Start from an empty run."""
        self._history = RunHistory(self.name, self._retention, self._catalogue)
        self._results = self._history.results
        self._scheduler = make_scheduler(self.every_n_steps, self.schedule)
        self._background: Background[ScoredSnapshot] = Background(self.background_steps or 0)
        self._train_loss = MeanLoss()
        self._watch = Watch(self.watch)
        self._max_steps: int | None = None
        self._last_step = -1  # of the last attempt, failed or not: no step is tried twice
        self._folder: Path | None = None  # of the record, on the process that writes it
        self._concluded = False
        self._failures = Failures(self._history.record_failure)
        self._announcer = Announcer(
            self._prefix, self._failures, alerts=self.alerts, log_more=self.log_more, progress=self.progress
        )

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for a pickle, which a spawned process gets; a fit makes the rest anew."""
        return {name: value for name, value in vars(self).items() if name not in {"_encoder", "_batches"}}

    def _catch_up(self) -> RunHistory:
        """Return the history of the run."""
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

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the run for a checkpoint, in plain values."""
        state = self._catch_up().state(self.rule.window)
        return state | {
            "last_step": self._last_step,
            "train_loss": self._train_loss.state_dict(),
            "watch": self._watch.state_dict(),
            "scheduler": self._scheduler.state_dict(),
            "evaluator": self._evaluator(),
            "background": background_state(self._background),
            "failures": self._failures.state_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore a state, unless its results are not comparable with those of this monitor; then warn."""
        if self._history.load(state_dict, self._evaluator()):
            self._last_step = state_dict["last_step"]
            self._train_loss.load_state_dict(state_dict["train_loss"])
            self._watch.load_state_dict(state_dict["watch"])
            self._scheduler.load_state_dict(state_dict["scheduler"])
            restore_background(self._background, state_dict["background"])
            self._failures.load_state_dict(state_dict["failures"])

    def _evaluator(self) -> dict[str, Any]:
        """Return the settings that must be equal for two snapshots to be comparable, in plain values."""
        return {
            "split": self.split.hash,
            "ceilings": sorted(self.ceilings),
            "aligned_to": self.aligned_to,
            "k": self.k,
            "reads": repr(self._snapshot_scorer.options.readers),
            "encode": repr(self.encode) if isinstance(self.encode, Encode | str) else None,
            "schedule": self._scheduler.describe(),
        }

    def _prepare(self, training: Training, *, dry_run: bool = False) -> None:
        """Make the item batches of this process; a dry run only takes the raw snapshot, raises, and writes nothing."""
        self._dry_run = dry_run
        self._failures.strict = self.strict or dry_run
        self._make_batches(training, self.collate_fn)

    def _make_batches(self, training: Training, collate_fn: Callable[[list[Any]], Any] | None) -> None:
        self._batches = make_batches(
            self.items, self.split.item_ids, batch_size=self.batch_size, collate_fn=collate_fn,
            item_key=self.item_key, **training.share,
        )  # fmt: skip

    def _bind(self, module: nn.Module) -> None:
        """Find the encoder of the module and check that it gets what it needs; raise all that is wrong at once."""
        check_initialized(module)
        try:
            self._encoder = resolve_encoder(self.encode, module, self.item_key)
        except ConfigError as error:
            others = [missing_key(self.items, self.item_key)]
            others += [uncollatable(self.items)] if self.collate_fn is None else []
            raise joined([error, *(ConfigError(other) for other in others if other)]) from None
        check_encoder(self._encoder, module, self._batches, self.split.item_ids, self.item_key)

    def _complete(self, training: Training, module: nn.Module) -> None:
        """Take the collate function of the training, whose loaders are known by now, if the items need it."""
        if self.collate_fn is not None:
            return
        collate = infer_collate(self.items, training.loaders, self.item_key)
        self._collate_inferred = collate is not None
        if collate is not None:
            self._make_batches(training, collate)
            check_encoder(self._encoder, module, self._batches, self.split.item_ids, self.item_key)

    def _begin(self, training: Training, module: nn.Module, max_steps: int | None) -> None:
        """Open the record and take the raw snapshot, or go on with a resumed run.

        Args:
            training: The training that begins.
            module: The module in training.
            max_steps: Optimizer steps that are planned; None if there is no plan.
        """
        self._concluded = False
        self._max_steps = max_steps
        self._complete(training, module)
        if not self._dry_run:
            self._open_run(training)
        if self._results:
            # A stock EarlyStopping raises where its metric is missing.
            training.publish(self._results[-1], self._prefix)
            self._announcer.verdict = self._results[-1].verdict
        else:
            with self._announcer.first_snapshot(self.split.num_items, self.ceilings):
                judgement = self._take_snapshot(training, module, raw=True)
            self._announcer.alert(training, judgement)

    def _open_run(self, training: Training) -> None:
        """Complete a resumed run's results from its record, log the split, and start the schedules."""
        folder = Path(training.broadcast(str(self.dirpath or training.run_folder())))
        self._folder = folder if training.is_first else None
        if self._folder is not None:
            self._history.recover(self._folder)
        # The other processes may not see the folder.
        self._results[:] = training.broadcast(self._results)
        with on_first(training, strict=self._failures.strict):
            self._write_record(training)
            self._announcer.log_config(training, self._snapshot_scorer.scorer.describe())
        self._scheduler.start(folder, step=training.step, epoch=training.epoch, shared=training.world_size > 1)

    def _look(self, training: Training, module: nn.Module, *, validation: bool = False, required: bool = False) -> None:
        """Read a background score that is due, take a snapshot that is due, and act on the judgements.

        Args:
            training: The training in progress.
            module: The module in training.
            validation: Whether a validation run begins.
            required: Whether a snapshot of this step is needed whatever the schedule says.
        """
        if self._dry_run:
            return

        def first_process_says(due: bool) -> bool:
            return training.any(due and training.is_first)

        due = self._scheduler.due(training.step, training.epoch, first_process_says, validation=validation)
        due = due or (required and training.step > self._last_step)
        judgements = []
        # Before a new snapshot the pending score is read early: there is at most one.
        if self._background.step is not None and (due or self._background.due(training.step)):
            judgements.append(self._read_background(training, module))
        if due:
            background = self.background_steps is not None and not required
            judgements.append(self._take_snapshot(training, module, background=background))
        for judgement in filter(None, judgements):
            self._announcer.alert(training, judgement, stopped=self._heed(training, judgement))

    def _heed(self, training: Training, judgement: Judgement) -> bool:
        """Act on the judgement of a snapshot taken during the training; return whether the training is stopped."""
        return False

    def _finish(self, training: Training, module: nn.Module, *, last: bool = True) -> None:
        """Read a pending score, take the last snapshot, and conclude the run.

        Args:
            training: The training that ends.
            module: The module in training.
            last: Whether the module still has the weights of the last step.
        """
        if self._dry_run:
            return
        if self._background.step is not None:
            self._announcer.alert(training, self._read_background(training, module))
        if last and training.step > self._last_step:
            self._announcer.alert(training, self._take_snapshot(training, module))
        self._conclude(training)

    def _interrupt(self, training: Training, exception: BaseException) -> None:
        """Save what an exception leaves of the run, without a collective call: the other processes may be gone."""
        self._scheduler.stop()
        self._failures.strict = False  # the exception that ends the run must not be replaced by another
        if self._background.step is not None:
            result = None
            with self._failures.tolerate("snapshot"):
                result = self._save_embeddings(training, self._background.take())
            self._announcer.alert(training, self._add_result(training, result))
        attempted = bool(self._results or self._failures.num_snapshots)
        if self._folder is not None and attempted and not self._concluded:
            self._conclude(training, type(exception).__name__)

    def _conclude(self, training: Training, cut_short_by: str | None = None) -> None:
        """Log and print the outcome of the run and close its record, also after an exception."""
        self._concluded = True
        self._watch.report_missing()
        if cut_short_by is None and self._results:  # a run that an exception ended may be resumed
            with self._failures.tolerate("verdict"):
                *past, last = self._results
                self._results[-1] = judge_result(past, last, self.rule, self._max_steps, ended=True)[1]
        with on_first(training, strict=self._failures.strict):
            self._announcer.log_end(training, self._history, self.artifact)
            with self._failures.tolerate("record"):
                self._history.end(cut_short_by)
        self._announcer.print_summary(training, self._history)

    def _take_snapshot(
        self, training: Training, module: nn.Module, *, raw: bool = False, background: bool = False
    ) -> Judgement | None:
        """Encode and score all items and return the judgement; None if that failed or the score is pending.

        The raw snapshot raises what cannot heal.
        """

        def refusal(error: Exception) -> LisError | None:
            problems = [missing_key(self.items, self.item_key), self._collate_hint(training)]
            return permanent_error(error, " ".join(filter(None, problems))) if raw else None

        self._last_step = self._failures.step = training.step
        self._note_metrics(training, self._fresh_metrics(training))
        self._watch.begin(training.step)
        first = not self._results
        checked = unchanged(module) if raw else contextlib.nullcontext()
        score: Callable[[], ScoredSnapshot] | None = None
        with self._scheduler.taking(training.step), checked, self._undisturbed(training, module):
            with self._failures.tolerate("snapshot", unless=refusal):
                score = self._snapshot_scorer.encode_to_score(
                    training, module, self._batches, self._encoder, self.item_key,
                    first=first, train_loss=self._train_loss.read(), placebo=self.placebo and first,
                    background=background,
                )  # fmt: skip
            if score is None:
                return self._add_result(training, None)
            if background:
                self._background.submit(training.step, score)
                return None
            return self._add_result(training, self._shared_result(training, score, raw=raw))

    def _collate_hint(self, training: Training) -> str:
        """Return that a collate function is missing, in a sentence; empty if the training has none to offer."""
        given = self.collate_fn is not None or self._collate_inferred or isinstance(self.items, DataLoader)
        if given or not own_collates(training.loaders):
            return ""
        return (
            "Your training loader uses a collate_fn, which is not taken over: it does not make the same batch of the "
            "items, with their ids, each time. Give LISMonitor(collate_fn=...)."
        )

    def _undisturbed(self, training: Training, module: nn.Module) -> contextlib.AbstractContextManager[None]:
        """Return a context that restores what the training depends on."""
        return undisturbed(module, self._batches, self.encode, *training.loaders)

    def _read_background(self, training: Training, module: nn.Module) -> Judgement | None:
        """Wait for the score in the background and return the judgement; None if scoring failed."""
        with self._scheduler.waiting(), self._undisturbed(training, module):
            return self._add_result(training, self._shared_result(training, self._background.take))

    def _shared_result(
        self, training: Training, score: Callable[[], ScoredSnapshot], *, raw: bool = False
    ) -> Snapshot | None:
        """Return the first process's score on every process; None if scoring failed.

        Of the raw snapshot a wrong option is raised: every later one would fail too.
        """

        def refusal(error: Exception) -> LisError | None:
            return error if raw and isinstance(error, ConfigError | ItemError | LogError | ShapeError) else None

        with self._failures.tolerate("snapshot", unless=refusal):
            result = self._save_embeddings(training, together(training, score))
            # Another machine may round differently, and all processes must reach the same verdict.
            return training.broadcast(result)
        return None

    def _save_embeddings(self, training: Training, scored: ScoredSnapshot) -> Snapshot:
        """Write the representations of a snapshot to disk if the retention keeps them, and return its result."""
        if scored.embeddings is not None:
            with on_first(training, strict=self._failures.strict), self._failures.tolerate("file"):
                self._history.save_embeddings(self.split, scored.result, scored.embeddings, scored.model)
        return record_contents.as_recorded(scored.result)

    def _add_result(self, training: Training, result: Snapshot | None) -> Judgement | None:
        """Judge a new result, then publish, record and log it; None stands for a failed snapshot."""
        if result is None:
            self._failed(training)
            return None
        self._scored(training, result)
        result = replace(result, watched=self._watch.of(result.step))
        result = ranked(self._results, result)
        judgement: Judgement | None = None
        with self._failures.tolerate("verdict"):
            judgement, result = judge_result(self._results, result, self.rule, self._max_steps)
        self._results.append(result)
        with self._failures.tolerate("logger"):
            self._announcer.publish(training, result)
        if not self._dry_run:
            with on_first(training, strict=self._failures.strict):
                self._write_record(training)
                self._announcer.log_result(training, self._results, self._history.best or result)
        return judgement

    def _fresh_metrics(self, training: Training) -> Mapping[str, Any]:
        """Return what was logged since the last call, at the time of a snapshot; none where metrics are told."""
        return {}

    def _note_metrics(self, training: Training, metrics: Mapping[str, Any]) -> None:
        """Note freshly logged metrics, also those of the step of a snapshot that was taken and written already."""
        values = self._watch.note(training.step, metrics)
        if self.watch and self._results and self._results[-1].step == training.step:
            with on_first(training, strict=self._failures.strict), self._failures.tolerate("record"):
                if values:
                    self._history.add_watched(values)

    def _scored(self, training: Training, result: Snapshot) -> None:
        """Hear of a snapshot that was scored, before it is published."""

    def _failed(self, training: Training) -> None:
        """Hear of a snapshot that failed."""

    def _write_record(self, training: Training) -> None:
        """Write the results so far to the record, on the process that has one."""
        if self._folder is not None:
            config = {"schedule": self._scheduler.describe(), "placebo": self.placebo, "rule": vars(self.rule)}
            config |= {"max_steps": self._max_steps}
            if self._history.record is None:
                with self._failures.tolerate("logger"):
                    config["run_name"] = training.run_name()
            with self._failures.tolerate("record"):
                self._history.write(self._folder, self._snapshot_scorer.scorer, config)
