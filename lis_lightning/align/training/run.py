"""One fine-tuning run: build the parts, train with snapshots, and report."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch.utils.data import Subset

from lis_lightning.align.data.alignment_data import AlignmentData, cut_split
from lis_lightning.align.data.data_module import ExampleDataModule
from lis_lightning.align.data.events import AlignmentEvents
from lis_lightning.align.data.item_table import ItemTable
from lis_lightning.align.models.item_encoder import ItemEncoder
from lis_lightning.align.objectives.objective import Objective
from lis_lightning.align.objectives.regularisers import Regulariser
from lis_lightning.align.training.best_checkpoint import BestSnapshot
from lis_lightning.align.training.console import announcement, rank_zero_print
from lis_lightning.align.training.learning_rate import find_learning_rate
from lis_lightning.align.training.module import AlignmentModule
from lis_lightning.align.training.pausing import Pause
from lis_lightning.align.training.pruning import Pruning, Rival
from lis_lightning.align.training.throughput import ItemThroughput
from lis_lightning.data.split import PreferenceSplit
from lis_lightning.data.split_folder import is_saved_split
from lis_lightning.errors import ConfigError
from lis_lightning.monitor.callback import LISMonitor
from lis_lightning.monitor.early_stopping import LISEarlyStopping
from lis_lightning.monitor.schedule import Schedule
from lis_lightning.monitor.scheduler import check_schedule
from lis_lightning.monitor.storage import Retention
from lis_lightning.monitor.watching import check_watch
from lis_lightning.report import recorded_run, write_report
from lis_lightning.results.format import format_estimate
from lis_lightning.results.snapshot import Snapshot
from lis_lightning.scoring.options import ScoreOptions
from lis_lightning.scoring.preferences import Preference
from lis_lightning.scoring.reads.naming import Reads, reads_by_name
from lis_lightning.scoring.scorer import Scorer

PAUSED = "checkpoints/paused.ckpt"  # in the run folder


@dataclass(frozen=True, kw_only=True)
class Monitoring:
    """When snapshots of a run are taken, and which of them are saved; see :class:`LISMonitor`.

    Attributes:
        every_n_steps: Optimizer steps between snapshots; None if the schedule alone decides.
        schedule: Schedules of further snapshots; one or several of :mod:`lis_lightning.monitor`.
        background_steps: Score in the background, and read the score this many optimizer steps later; None scores at
            once.
        log_more: Log all numbers, under ``lis/more/...``, beside the six of the default.
        save: Which representations to save, "best", "last-3" or "all"; None for none.
        watch: Keys of logged metrics whose worth in AIS is reported, such as ``"val/loss"``.
        encode_batch_size: Items encoded at a time.
        reads: What else to score, as rankers read it; see :class:`lis_lightning.scoring.ScoreOptions`.
        early_stopping: Whether the run may end before its last step, if the evidence says that training should stop.

    Raises:
        ConfigError: If a value is out of range.

    Example:
        >>> Monitoring(every_n_steps=0)
        Traceback (most recent call last):
        ...
        lis_lightning.errors.ConfigError: `every_n_steps` must be at least 1 optimizer step, got 0.
    """

    every_n_steps: int | None = 50
    schedule: Schedule | Sequence[Schedule] | None = None
    background_steps: int | None = None
    log_more: bool = False
    save: str | None = None
    watch: Sequence[str] | None = None
    encode_batch_size: int = 128
    reads: Reads | None = None
    early_stopping: bool = False

    def __post_init__(self) -> None:
        check_schedule(self.every_n_steps, self.schedule, self.background_steps)  # before a model is loaded
        check_watch(self.watch or ())
        if self.save is not None:
            Retention(self.save, "float32")
        reads_by_name(self.reads or ())

    def options(self) -> dict[str, Any]:
        """Return the arguments of the monitor."""
        names = ("every_n_steps", "schedule", "background_steps", "log_more", "save")
        renamed = {"batch_size": self.encode_batch_size, "reads": self.reads or (), "watch": self.watch or ()}
        return {name: getattr(self, name) for name in names} | renamed


@dataclass(frozen=True)
class Run:
    """The results and files of a finished run.

    Attributes:
        results: Its snapshots.
        best: The one with the highest AIS.
        checkpoint: Weights at the best snapshot; None if there are none.
        record: File with the record of the run.
        page: The report.
        revealed_gain: Gain of the latents that content reveals, in the simulated world; else NaN.
        steps: Optimizer steps trained, including those before a pause.
        paused: Whether it was paused before its last step.
        pruned: Reason why it was ended as behind another job of its sweep; empty if it was not.
        seconds: Its duration; NaN if unknown.

    Example:
        >>> numbers = {"ais": 0.003, "ais_low": 0.001, "ais_high": 0.005, "ais_geometry": 0.002}
        >>> best = Snapshot(**numbers, auc_base=0.7, auc=0.703, step=0)
        >>> run = Run([best], best, None, None, Path("report.html"), revealed_gain=math.nan, steps=200, paused=False)
        >>> run.best.ais
        0.003
    """

    results: list[Snapshot]
    best: Snapshot
    checkpoint: Path | None
    record: Path | None
    page: Path
    revealed_gain: float
    steps: int
    paused: bool
    pruned: str = ""
    seconds: float = math.nan


def prepare_split(data: AlignmentData, options: Mapping[str, Any], cache_dir: str | Path | None = None) -> Scorer:
    """Split the log, and print the split.

    Args:
        data: Log and items.
        options: Further arguments of :meth:`PreferenceSplit.from_log`.
        cache_dir: Folder where the base ranker and the ceilings are cached; see :class:`lis_lightning.scoring.Scorer`.

    Returns:
        The scorer of the split.
    """
    split = cut_split(data, options)
    scorer = Scorer(split, cache_dir=cache_dir)
    origin = f", saved in {data.log}; lis.split is as it was cut" if is_saved_split(data.log) else ""
    rank_zero_print(f"{data.name}: the validation preference split{origin}\n{scorer.summary()}")
    if data.truth is not None:
        tested = split.log.time[split.log.window == 2]
        bayes = data.truth.bayes_auc(start=float(tested.min()), end=float(tested.max()) + 1)
        rank_zero_print(f"known truth: AUC of the true click probabilities on w2 {bayes:.4f}")
    return scorer


def align(
    data: AlignmentData,
    build_encoder: Callable[[ItemTable], ItemEncoder],
    *,
    trainer: Callable[..., pl.Trainer],
    loggers: Callable[[], list[Any]],
    objectives: Mapping[str, Objective],
    regularisers: Mapping[str, Regulariser],
    training: Mapping[str, Any],
    split_options: Mapping[str, Any],
    monitoring: Monitoring,
    run_dir: Path,
    cache_dir: Path,
    seed: int,
    stop_at: int | None = None,
    rival: Callable[[], Rival | None] | None = None,
) -> Run:
    """Fine-tune an encoder for objectives on preference data, and score its representations during training.

    Args:
        data: Log and items.
        build_encoder: Makes the encoder for the items.
        trainer: Makes the Trainer, given callbacks and logger.
        loggers: Opens the Lightning loggers, once the model is loaded: a run that cannot start leaves none behind.
        objectives: What the encoder is trained for, by name. `realised` refers to the preference data of the first
            objective that has any.
        regularisers: Losses that keep its representations apart, by name.
        training: `batch_size`, `micro_batch`, `find_learning_rate`, and options of
            :class:`~lis_lightning.align.training.AlignmentModule`.
        split_options: Further arguments of the split.
        monitoring: When it is scored.
        run_dir: Folder of record, checkpoints and report.
        cache_dir: Folder of prepared items.
        seed: Seed of weights and batches.
        stop_at: Optimizer step to pause at. A later call with the same `run_dir` continues there, bit for bit.
        rival: Returns the best finished job of the sweep; a run that is significantly behind it is ended. None: never.

    Returns:
        The results and files of the run.

    Raises:
        ConfigError: If the seed or the step is out of range, the data has no items, or no snapshot could be scored.

    Example:
        >>> log_alone = AlignmentData("log alone", None, {}, items=None)
        >>> align(log_alone, None, trainer=None, loggers=list, objectives={}, regularisers={}, training={},
        ...       split_options={}, monitoring=Monitoring(), run_dir=Path("run"), cache_dir=Path("cache"), seed=0)
        ... # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        lis_lightning.errors.ConfigError: There are no items to encode: set data.items to ...
    """
    began = time.perf_counter()
    items = _checked_items(data, seed, stop_at)
    scorer = prepare_split(data, split_options, cache_dir)
    split = scorer.split
    pl.seed_everything(seed, verbose=False)  # weights do not depend on earlier draws
    encoder, options = build_encoder(items), dict(training)
    find_rate = options.pop("find_learning_rate", False)
    sizes = {name: options.pop(name) for name in ("batch_size", "micro_batch") if name in options}
    batches = _batches(items, encoder, split, objectives, cache_dir, seed, **sizes)
    module = AlignmentModule(encoder, objectives, regularisers=regularisers, **options)
    rank_zero_print(announcement(encoder, batches))
    # The prepared items of the training are scored: with a large image processor, preparing them again takes long.
    scored = Subset(batches.items, items.rows(split.item_ids).tolist())
    monitor = LISMonitor(
        split, scored, collate_fn=encoder.collate, catalogue=items.catalogue(), dirpath=run_dir,
        cache_dir=cache_dir, **monitoring.options(), **_ceiling_options(scorer, objectives),
    )  # fmt: skip
    best, paused = BestSnapshot(run_dir / "checkpoints", monitor), run_dir / PAUSED
    pause = Pause(stop_at, paused)
    pruning = None if rival is None else Pruning(monitor, rival)
    stopping = LISEarlyStopping() if monitoring.early_stopping else None
    if find_rate and not paused.is_file():  # a resumed run has its rate from the checkpoint
        _use_learning_rate(module, find_learning_rate(trainer, module, batches, run_dir), seed)
    optional = (ItemThroughput(monitor), monitor, stopping, pruning, best, pause)
    callbacks = [callback for callback in optional if callback is not None]
    fit = trainer(callbacks=callbacks, logger=loggers(), default_root_dir=str(run_dir))
    fit.fit(module, datamodule=batches, ckpt_path=str(paused) if paused.is_file() else None, weights_only=False)
    # A paused run keeps its checkpoint; any other end removes it.
    pruned = "" if pruning is None else pruning.reason
    pausing = pause.reached and not pruned
    if not pausing and fit.is_global_zero:
        paused.unlink(missing_ok=True)
    if monitor.best is None:
        if fit.fast_dev_run:  # type: ignore[attr-defined]  # set by Lightning's connector
            raise SystemExit(0)
        reason = monitor.last_error or f"the Trainer ended at once (trainer.max_steps is {fit.max_steps})"
        raise ConfigError(f"No snapshot could be scored: {reason}. There is no result to show.")
    revealed, page = _write_report(data, scorer, monitor, run_dir, write=fit.is_global_zero)
    return Run(
        results=monitor.results, best=monitor.best, checkpoint=best.path_of(monitor.best), record=monitor.record_path,
        page=page, revealed_gain=revealed, steps=fit.global_step, paused=pausing, pruned=pruned,
        seconds=time.perf_counter() - began,
    )  # fmt: skip


def _checked_items(data: AlignmentData, seed: int, stop_at: int | None) -> ItemTable:
    """Return the items of the data; raise for a missing item table, and for a seed or step that is out of range."""
    if not 0 <= seed < 2**32:
        raise ConfigError(f"`seed` must be from 0 to {2**32 - 1}, but got {seed}.")
    if stop_at is not None and (not isinstance(stop_at, int) or stop_at < 1):
        raise ConfigError(f"`stop_at` must be an optimizer step, 1 or more, or null, but got {stop_at!r}.")
    if data.items is None:
        raise ConfigError(
            "There are no items to encode: set data.items to a parquet or CSV file with one row per item."
        )
    return data.items


def _use_learning_rate(module: AlignmentModule, rate: float | None, seed: int) -> None:
    """Set the learning rate of the range test, and seed again, so that the run draws what it would without the test."""
    if rate is not None:
        module.use_learning_rate(rate)
    pl.seed_everything(seed, verbose=False)


def _batches(
    items: ItemTable, encoder: ItemEncoder, split: PreferenceSplit, objectives: Mapping[str, Objective],
    cache_dir: Path, seed: int, *, batch_size: int, micro_batch: int | None = None,
) -> ExampleDataModule:  # fmt: skip
    """Return the batches of all objectives, with prepared items."""
    events = AlignmentEvents.from_split(split, items, seed=seed)
    examples = {name: objective.examples(events, encoder.output_dim) for name, objective in objectives.items()}
    batch_sizes = {name: objective.batch_size or batch_size for name, objective in objectives.items()}
    prepared = encoder.prepare(items, cache_dir)
    return ExampleDataModule(
        examples, prepared, encoder.collate, batch_size=batch_sizes, micro_batch=micro_batch, seed=seed
    )


def _write_report(
    data: AlignmentData, scorer: Scorer, monitor: LISMonitor, run_dir: Path, *, write: bool
) -> tuple[float, Path]:
    """Write the report; return the gain of the latents that content reveals, NaN for real data, and the page."""
    path, revealed = run_dir / "report.html", math.nan
    if not write:
        return revealed, path
    if data.truth is not None and data.items is not None:
        latents = data.truth.content_latents[data.items.rows(scorer.split.item_ids)]
        revealed = scorer.score(latents, ScoreOptions(ceilings=(), placebo=False)).ais
    references = {} if math.isnan(revealed) else {"latents that content reveals": revealed}
    run = recorded_run(monitor.record_path, monitor.results)
    return revealed, write_report([run], path, title=f"{run.name} on {data.name}", references=references)


def _ceiling_options(scorer: Scorer, objectives: Mapping[str, Objective]) -> dict[str, Any]:
    """Print the ceilings of the preference data, and return the monitor's arguments `ceilings` and `aligned_to`."""
    preferences: dict[str, Preference] = {"pairs": "pairs", "ids": "ids"}
    aligned_to = "pairs"
    # In reverse, so that `aligned_to` is the preference data of the first objective that has any.
    for name, objective in reversed(list(objectives.items())):
        trained_on = objective.preference
        if isinstance(trained_on, str):
            aligned_to = trained_on
        elif trained_on is not None:
            aligned_to = f"trained_{name}"
            preferences[aligned_to] = trained_on
    limits = [f"{name} {format_estimate(scorer.ceiling(preference))}" for name, preference in preferences.items()]
    rank_zero_print(f"LIS (an estimate of what this preference data carries): {', '.join(limits)}")
    return {"ceilings": preferences, "aligned_to": aligned_to}
