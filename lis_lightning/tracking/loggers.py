"""Logging of results to experiment trackers: the same keys for every Lightning logger, and more for W&B.

Curves, at the snapshot's own optimizer step: ``lis/ais``, ``lis/ais_low``, ``lis/ais_high``, ``lis/headroom``,
``lis/realised`` and ``lis/best_ais``, the best AIS so far. With ``log_more=True`` also all other numbers that change,
under ``lis/more/...``: ``ais_geometry``, ``auc``, ``gain_z``, ``slice/...``, ``companion/...`` and so on. A split with
several labels adds ``lis/task/<name>/ais`` with its interval for the labels after the first, and rolling windows
``lis/period/<number>/ais``. A monitor with a name inserts the name after ``lis/`` in all keys.

W&B also gets the summaries ``lis/verdict``, ``lis/message``, ``lis/best_step``, ``lis/best_headroom``,
``lis/best_realised``, ``lis/best_ais_corrected`` (with ``_low`` and ``_high``); at the end ``lis/worth/...``, what 1 %
more of a metric was worth in AIS (with ``_low``, ``_high`` and ``_broke_at``); the constants of the run, the AUC of the
base and the ceilings, as ``lis/more/auc_base``, ``lis/more/ceiling_pairs`` and so on; if snapshots failed
``lis/failures`` ("0 of 3 snapshots scored") and ``lis/last_error``; the config ``lis`` (the split); the panel
``lis/curve`` during the run; the tables ``lis/snapshots`` (all numbers), ``lis/slices`` and ``lis/movers`` at its end;
alerts for verdicts that call for action; and, if requested, the best snapshot as an artifact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from lis_lightning.results.keys import nest
from lis_lightning.results.movers import Mover
from lis_lightning.results.snapshot import Snapshot
from lis_lightning.results.verdict import Judgement
from lis_lightning.tracking import wandb_run
from lis_lightning.tracking.trackio_logger import TrackioLogger
from lis_lightning.tracking.wandb_tables import movers_table

FINISH_SECONDS = 30.0  # maximum wait for W&B's server at the end of a training

Loggers = Iterable[Any]


def metrics(result: Snapshot, prefix: str = "lis", *, more: bool = False) -> dict[str, float]:
    """Return the logged values of a result by key.

    Args:
        result: The result.
        prefix: Prefix of the keys.
        more: Whether to return the keys ``more/...`` too.

    Example:
        >>> from lis_lightning.results.snapshot import Snapshot
        >>> result = Snapshot(ais=0.003, ais_low=0.001, ais_high=0.005, ais_geometry=0.002, auc_base=0.7, auc=0.703,
        ...                   step=0)
        >>> list(metrics(result))
        ['lis/ais', 'lis/ais_low', 'lis/ais_high', 'lis/headroom', 'lis/realised', 'lis/best_ais']
    """
    return nest(prefix, result.scalars(more=more))


def start(loggers: Loggers, config: Mapping[str, Any], *, prefix: str = "lis") -> list[str]:
    """Set the x-axis of the curves in W&B loggers, and log the configuration of the split.

    Args:
        loggers: The Trainer's loggers.
        config: Plain values, shown under `prefix` in the run's config.
        prefix: Prefix of the keys.

    Returns:
        The failures, one sentence per logger.
    """
    return _each_wandb(loggers, lambda run: wandb_run.begin(run, config, prefix))


def log_result(
    loggers: Loggers, results: Sequence[Snapshot], best: Snapshot, *, prefix: str = "lis", more: bool = False
) -> list[str]:
    """Log the newest snapshot to every logger, at its own step.

    Args:
        loggers: The Trainer's loggers.
        results: The snapshots so far, by step; the newest has one.
        best: The best of them, for W&B's summary.
        prefix: Prefix of the keys.
        more: Whether to log the keys ``more/...`` too.

    Returns:
        The failures, one sentence per logger; a logger that raises does not affect the others.
    """

    def log(logger: Any) -> None:
        logger.log_metrics(metrics(results[-1], prefix, more=more), step=results[-1].step)
        logger.save()
        if wandb_run.is_wandb(logger):
            wandb_run.snapshot(logger.experiment, results, best, prefix)

    return _each(loggers, log)


def log_alert(
    loggers: Loggers, judgement: Judgement, *, previous: str, step: int, stopped: bool, prefix: str = "lis"
) -> list[str]:
    """Send an alert through W&B loggers if a verdict is new and calls for action, or the training is stopped.

    Args:
        loggers: The Trainer's loggers.
        judgement: The newest judgement.
        previous: The verdict before it; empty if there was none.
        step: Optimizer step of the judgement.
        stopped: Whether the training is stopped on it.
        prefix: Prefix of the keys and of the alert's title.

    Returns:
        The failures, one sentence per logger.
    """
    alert = wandb_run.new_alert(previous, judgement, step=step, stopped=stopped, prefix=prefix)
    return [] if alert is None else _each_wandb(loggers, lambda run: wandb_run.send(run, alert))


def sync_hint(loggers: Loggers) -> str | None:
    """Return how to upload the run of an offline W&B logger, in a sentence; None without such a logger."""
    return wandb_run.sync_hint(loggers)


def log_movers(loggers: Loggers, movers: Sequence[Mover], *, prefix: str = "lis", num: int = 10) -> list[str]:
    """Log the table ``lis/movers`` with thumbnails to W&B loggers; waits at most FINISH_SECONDS.

    Args:
        loggers: The Trainer's loggers.
        movers: Items by change of gain, the largest rise first; if there are more than ``2 * num``, those in the middle
            are omitted.
        prefix: Prefix of the keys.
        num: Number of items at either end.

    Returns:
        The failures, one sentence per logger.
    """
    logged = list(movers) if len(movers) <= 2 * num else [*movers[:num], *movers[-num:]]

    def log(run: Any) -> None:
        wandb_run.within(FINISH_SECONDS, lambda: run.log({f"{prefix}/movers": movers_table(logged)}))

    return _each_wandb(loggers, log) if logged else []


def finish(
    loggers: Loggers, results: Sequence[Snapshot], best: Snapshot, artifact: Path | None = None,
    *, prefix: str = "lis",
) -> list[str]:  # fmt: skip
    """Log the tables ``lis/snapshots`` and ``lis/slices`` and an artifact to W&B loggers, at the end of the run.

    All are files, for which W&B waits for its server: if the server does not respond, the training ends without them
    after at most FINISH_SECONDS. The process itself ends when W&B finishes: see ``WANDB_FINISH_TIMEOUT``.

    Args:
        loggers: The Trainer's loggers.
        results: The snapshots, by step.
        best: The best of them.
        artifact: File of the representations to log as an artifact; None logs none.
        prefix: Prefix of the keys.

    Returns:
        The failures, one sentence per logger.
    """

    def end(run: Any) -> None:
        wandb_run.within(FINISH_SECONDS, lambda: wandb_run.end(run, results, best, artifact, prefix))

    return _each_wandb(loggers, end)


def log_failures(loggers: Loggers, scored: int, failed: int, error: str, *, prefix: str = "lis") -> list[str]:
    """Write the number of failed snapshots and the last error to the summary of W&B loggers.

    Args:
        loggers: The Trainer's loggers.
        scored: Number of snapshots that were scored.
        failed: Number of snapshots that failed.
        error: The last error.
        prefix: Prefix of the keys.

    Returns:
        The failures, one sentence per logger.
    """
    summary = {"failures": f"{scored} of {scored + failed} snapshots scored", "last_error": error}
    values = {f"{prefix}/{name}": value for name, value in summary.items()}
    return _each_wandb(loggers, lambda run: run.summary.update(values))


def close(loggers: Loggers, *, failed: bool = False) -> list[str]:
    """End the W&B runs, so that the next job of this process starts a new one; waits at most FINISH_SECONDS.

    Args:
        loggers: Lightning loggers of the job.
        failed: Whether the job failed, which marks its run as failed.

    Returns:
        The failures, one sentence per logger.
    """

    def end(run: Any) -> None:
        wandb_run.within(FINISH_SECONDS, lambda: run.finish(exit_code=int(failed)))

    return _each_wandb(loggers, end)


def log_leaderboard(
    table: Any, *, group: str, project: str | None, folder: Path, entity: str | None = None
) -> list[str]:
    """Log the leaderboard of a sweep as ``lis/leaderboard``, in a separate run beside the runs of the jobs.

    The run's id is derived from the group, so that a continued sweep writes to the same run.

    Args:
        table: Polars table with one row per recipe.
        group: W&B group of the jobs.
        project: W&B project of the jobs.
        folder: Folder of the sweep.
        entity: W&B entity of the jobs.

    Returns:
        The failure in a sentence, if there was one.
    """
    log = partial(wandb_run.leaderboard, table, group=group, project=project, folder=folder, entity=entity)
    try:
        wandb_run.within(FINISH_SECONDS, log)
    except Exception as error:
        return [f"The leaderboard is not in W&B: {type(error).__name__}: {error}"]
    return []


def publish(trainer: pl.Trainer, result: Snapshot, prefix: str = "lis") -> None:
    """Put all keys of a result into ``trainer.callback_metrics``, which stock callbacks read."""
    for name, value in metrics(result, prefix, more=True).items():
        trainer.callback_metrics[name] = torch.tensor(value, dtype=torch.float32)


def run_folder(trainer: pl.Trainer) -> Path:
    """Return the folder of the run, in which ModelCheckpoint creates its ``checkpoints``."""
    if not trainer.loggers:
        return Path(trainer.default_root_dir)
    logger = trainer.loggers[0]
    version = logger.version if isinstance(logger.version, str) else f"version_{logger.version}"
    return Path(logger.save_dir or trainer.default_root_dir) / str(logger.name) / version


def run_name(loggers: Loggers) -> str:
    """Return the name of a run as its first named logger shows it: of W&B, Trackio, or a numbered version.

    Args:
        loggers: The Trainer's loggers.

    Returns:
        The name; empty if no logger has one.

    Example:
        >>> from pytorch_lightning.loggers import CSVLogger
        >>> run_name([CSVLogger("runs", name="news", version=3)])
        'news/version_3'
    """
    for logger in loggers:
        name = None
        if wandb_run.is_wandb(logger):
            name = logger.experiment.name
        elif isinstance(logger, TrackioLogger):
            name = logger.version
        elif isinstance(getattr(logger, "version", None), int):
            name = f"{logger.name}/version_{logger.version}" if logger.name else None
        if isinstance(name, str) and name:
            return name
    return ""


def _each(loggers: Loggers, action: Callable[[Any], None]) -> list[str]:
    """Apply an action to every logger and return the failures, since a tracker must not stop a training."""
    failures = []
    for logger in loggers:
        try:
            action(logger)
        except Exception as error:
            failures.append(f"{type(logger).__name__} raised {type(error).__name__}: {error}")
    return failures


def _each_wandb(loggers: Loggers, action: Callable[[Any], None]) -> list[str]:
    """Apply an action to the run of every W&B logger and return the failures."""
    return _each((logger for logger in loggers if wandb_run.is_wandb(logger)), lambda logger: action(logger.experiment))
