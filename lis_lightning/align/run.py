"""One fine-tuning run from its parts: data, split, encoder, objective; train, snapshot, report."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint
from rich.console import Console
from torch.utils.data import Subset

from lis_lightning.align.data import AlignmentData
from lis_lightning.align.events import AlignmentEvents
from lis_lightning.align.examples import ExampleDataModule
from lis_lightning.align.items import ItemTable
from lis_lightning.align.models.base import ItemEncoder
from lis_lightning.align.module import AlignmentModule
from lis_lightning.align.objectives.base import Objective, Regulariser
from lis_lightning.align.pausing import Pause
from lis_lightning.callback import LISMonitor
from lis_lightning.ceiling import ceiling
from lis_lightning.early_stopping import LISEarlyStopping
from lis_lightning.errors import ConfigError
from lis_lightning.preference import Preference
from lis_lightning.report import recorded_run, write_report
from lis_lightning.result import LISResult
from lis_lightning.split import PreferenceSplit

PAUSED = "checkpoints/paused.ckpt"  # in the run folder


def say(text: str) -> None:
    """Print for people: unwrapped, so that paths and tables survive a narrow or piped output."""
    Console().print(text, markup=False, highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class Run:
    """What a finished run leaves.

    Attributes:
        results: Its snapshots.
        best: The one with the highest AIS.
        checkpoint: Weights at the best snapshot; None where none was written.
        record: The run's own record.
        page: The picture of it.
        revealed_gain: In the generated world, the gain of the latents that content reveals; else NaN.
        steps: Optimizer steps trained, those before a pause included.
        paused: Whether it was ended before its last step, to go on later.
    """

    results: list[LISResult]
    best: LISResult
    checkpoint: Path | None
    record: Path | None
    page: Path
    revealed_gain: float
    steps: int
    paused: bool


def prepare_split(data: AlignmentData, options: Mapping[str, Any]) -> PreferenceSplit:
    """Cut the data's log, and say what the split can tell.

    Args:
        data: Log and items.
        options: Further arguments of :meth:`PreferenceSplit.from_log`.
    """
    split = PreferenceSplit.from_log(data.log, **data.columns, **options)
    say(f"{data.name}: the validation preference split\n{split}")
    if data.truth is not None:
        tested = split.log.time[split.log.window == 2]
        bayes = data.truth.bayes_auc(start=float(tested.min()), end=float(tested.max()) + 1)
        say(f"known truth: AUC of the true click probabilities on w2 {bayes:.4f}")
    return split


def align(
    data: AlignmentData,
    build_encoder: Callable[[ItemTable], ItemEncoder],
    *,
    trainer: Callable[..., pl.Trainer],
    loggers: list[Any],
    objectives: Mapping[str, Objective],
    regularisers: Mapping[str, Regulariser],
    training: Mapping[str, Any],
    split_options: Mapping[str, Any],
    every_n_steps: int,
    early_stopping: bool,
    run_dir: Path,
    cache_dir: Path,
    seed: int,
    encode_batch_size: int = 128,
    stop_at: int | None = None,
) -> Run:
    """Fine-tune an encoder for objectives on preference data while its representations are scored.

    Args:
        data: Log and items.
        build_encoder: Makes the encoder for the items.
        trainer: Makes the Trainer, given callbacks and logger.
        loggers: Lightning loggers.
        objectives: What the encoder is trained for, by name. The first that names its preference data is what
            `realised` refers to.
        regularisers: What keeps its representations apart, by name.
        training: `batch_size`, and options of :class:`~lis_lightning.align.module.AlignmentModule`.
        split_options: Further arguments of the split.
        every_n_steps: Optimizer steps between snapshots.
        early_stopping: Whether the evidence may end the run before its last step.
        run_dir: Where record, checkpoints and picture go.
        cache_dir: Where prepared items are kept.
        seed: Of weights and batches.
        encode_batch_size: Items encoded at a time in a snapshot.
        stop_at: Optimizer step to pause at. A later call with this `run_dir` goes on there, bit by bit.

    Returns:
        What the run leaves.

    Raises:
        ConfigError: If the data has no items, or no snapshot could be scored.
    """
    began = time.perf_counter()
    items = data.items
    if items is None:
        raise ConfigError("There are no items to encode: set data.items to a parquet or CSV file with one row an item.")
    split = prepare_split(data, split_options)
    pl.seed_everything(seed, verbose=False)
    encoder = build_encoder(items)
    events = AlignmentEvents.from_split(split, items, seed=seed)
    options = dict(training)
    batch_size = options.pop("batch_size")
    batches = ExampleDataModule(
        {name: objective.examples(events, encoder.output_dim) for name, objective in objectives.items()},
        encoder.prepare(items, cache_dir),
        encoder.collate,
        batch_size={name: objective.batch_size or batch_size for name, objective in objectives.items()},
        seed=seed,
    )
    module = AlignmentModule(encoder, objectives, regularisers=regularisers, **options)
    say(_announcement(encoder, batches))
    ceilings, aligned_to = _ceilings(objectives)
    for name, preference in ceilings.items():
        limit = ceiling(split, preference)
        say(f"ceiling of {name}: {limit.value:+.4f} [{limit.low:+.4f}, {limit.high:+.4f}]")
    # Not prepared anew: with a large processor the images are the long part of the start.
    scored = Subset(batches.items, items.rows(split.item_ids).tolist())
    monitor = LISMonitor(
        split, scored, every_n_steps=every_n_steps, collate_fn=encoder.collate, batch_size=encode_batch_size,
        dirpath=run_dir, cache_dir=cache_dir, ceilings=ceilings, aligned_to=aligned_to,
    )  # fmt: skip
    checkpoint = ModelCheckpoint(
        run_dir / "checkpoints", filename="best-{step}", monitor="lis/ais", mode="max",
        every_n_train_steps=every_n_steps, save_on_train_epoch_end=False,
    )  # fmt: skip
    stopping = [LISEarlyStopping()] if early_stopping else []
    paused = run_dir / PAUSED
    pauses = [] if stop_at is None else [Pause(stop_at, paused)]
    callbacks = [monitor, *stopping, checkpoint, *pauses]
    fit = trainer(callbacks=callbacks, logger=loggers, default_root_dir=str(run_dir))
    fit.fit(module, datamodule=batches, ckpt_path=str(paused) if paused.is_file() else None, weights_only=False)
    pausing = any(pause.reached for pause in pauses)
    if not pausing:
        paused.unlink(missing_ok=True)
    if monitor.best is None:
        if fit.fast_dev_run:  # type: ignore[attr-defined]  # set by Lightning's connector
            raise SystemExit(0)
        raise ConfigError(f"No snapshot could be scored: {monitor.last_error}. There is no result to show.")
    revealed = math.nan
    if data.truth:
        revealed = split.score(data.truth.content_latents[items.rows(split.item_ids)], ceilings=(), placebo=False).ais
    references = {} if math.isnan(revealed) else {"latents that content reveals": revealed}
    run = Run(
        results=monitor.results,
        best=monitor.best,
        checkpoint=_checkpoint_of(checkpoint, monitor.best),
        record=monitor.record_path,
        page=write_report(
            [recorded_run(monitor.record_path, monitor.results)],
            run_dir / "report.html",
            title=f"{run_dir.parent.name} on {data.name}",
            references=references,
        ),
        revealed_gain=revealed,
        steps=fit.global_step,
        paused=pausing,
    )
    say(_summary(run, time.perf_counter() - began))
    return run


def _checkpoint_of(checkpoint: ModelCheckpoint, best: LISResult) -> Path | None:
    """Return the checkpoint of the best snapshot; None where the best one is raw, or fell between two checkpoints."""
    path = Path(checkpoint.best_model_path)
    return path if path.stem == f"best-step={best.step}" else None


def _ceilings(objectives: Mapping[str, Objective]) -> tuple[dict[str, Preference], str]:
    """Return the preference data whose ceilings are shown, and the one that is aligned to: that of the objectives."""
    found: dict[str, Preference] = {"pairs": "pairs", "ids": "ids"}
    aligned_to = "pairs"
    for name, objective in reversed(list(objectives.items())):
        own = objective.preference
        if isinstance(own, str):
            aligned_to = own
        elif own is not None:
            aligned_to = f"trained_{name}"
            found[aligned_to] = own
    return found, aligned_to


def _announcement(encoder: ItemEncoder, batches: ExampleDataModule) -> str:
    """Return what is about to be trained, on what."""
    trained = sum(parameter.numel() for parameter in encoder.parameters() if parameter.requires_grad)
    told = ", ".join(
        f"{name} ({int((~given.held_out).sum()):,} examples, {int(given.held_out.sum()):,} more held out)"
        for name, given in batches.examples.items()
    )
    return (
        f"aligning {type(encoder).__name__} ({trained:,} trained parameters, {encoder.output_dim} dimensions) by {told}"
    )


def _summary(run: Run, seconds: float) -> str:
    """Return the end of a run's output: best step, what it means, and where everything is."""
    best = run.best
    lines = [f"best step {best.step}: AIS {best.ais:+.4f} [{best.ais_low:+.4f}, {best.ais_high:+.4f}]"]
    if not math.isnan(run.revealed_gain) and run.revealed_gain > 0:
        lines.append(
            f"known truth: the latents that content reveals gain {run.revealed_gain:+.4f}; the best snapshot reaches "
            f"{best.ais / run.revealed_gain:.0%} of it (raw: {run.results[0].ais / run.revealed_gain:.0%})"
        )
    placebo = run.results[0].placebo
    if placebo is not None:
        lines.append(
            f"placebo {'passed' if placebo.passed else 'FAILED'}: rows permuted {placebo.permuted.value:+.4f} "
            f"(SE {placebo.permuted.se:.4f}), random vectors {placebo.random.value:+.4f} (SE {placebo.random.se:.4f})"
        )
    if run.paused:
        lines.append(f"paused at step {run.steps}")
    lines += [
        f"checkpoint: {run.checkpoint or 'none of the best step; checkpoints are written every lis.every_n_steps'}",
        f"report: {run.page}",
        f"took {seconds:.0f} s",
    ]
    return "\n".join(lines)
