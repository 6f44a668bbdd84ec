"""Results to experiment trackers: the same keys for every Lightning logger, and more of it for W&B.

Curves, at the snapshot's own optimizer step: ``lis/ais``, ``lis/ais_low``, ``lis/ais_high``, ``lis/ais_geometry``,
``lis/auc_base``, ``lis/auc``, ``lis/gauc_gain``, ``lis/ceiling_pairs``, ``lis/ceiling_ids``, ``lis/realised`` and
``lis/headroom`` (these five with ``_low`` and ``_high``), ``lis/gain_z``, ``lis/ais_seen``, ``lis/ais_unseen``,
``lis/encode_seconds``, ``lis/score_seconds``, ``lis/slice/...``, ``lis/companion/...`` and ``lis/verdict`` (its place
in VERDICTS). A split with a weight adds ``lis/ais_weighted`` (with ``_low`` and ``_high``), one of several labels
``lis/task/<name>/...`` for those after the first, and one of rolling windows ``lis/period/<number>/...``.
A monitor with a name puts it after ``lis/`` in all of these.

W&B also gets the summaries ``lis/verdict`` (as text), ``lis/message``, ``lis/best_step``, ``lis/best_ais``,
``lis/best_realised``, ``lis/final_realised`` and the ceilings; the config ``lis`` (the split); the panel ``lis/curve``
as the run goes on; the tables ``lis/snapshots``, ``lis/slices`` and ``lis/movers`` at its end; alerts where a verdict
asks for something; and, if wanted, the best snapshot as an artifact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from lis_lightning.results.movers import Mover
from lis_lightning.results.snapshot import Snapshot
from lis_lightning.results.stopping import VERDICTS, Judgement
from lis_lightning.tracking import wandb_run as _wandb
from lis_lightning.tracking.wandb_tables import movers_table

FINISH_SECONDS = 30.0  # that the end of a training waits for W&B's server

Loggers = Iterable[Any]


def metrics(result: Snapshot, prefix: str = "lis") -> dict[str, float]:
    """Return what is logged of a result: every scalar under its key, the verdict as its place in VERDICTS.

    Example:
        >>> from lis_lightning.results.snapshot import Snapshot
        >>> result = Snapshot(ais=0.003, ais_low=0.001, ais_high=0.005, ais_geometry=0.002, auc_base=0.7, auc=0.703,
        ...                   step=0)
        >>> metrics(result)["lis/ais"]
        0.003
    """
    values = result.scalars() | {"verdict": float(VERDICTS.index(result.verdict))}
    values |= {f"task/{name}/verdict": float(VERDICTS.index(task.verdict)) for name, task in result.tasks.items()}
    return {f"{prefix}/{name}": value for name, value in values.items()}


def start(loggers: Loggers, config: Mapping[str, Any], *, prefix: str = "lis") -> list[str]:
    """Tell W&B loggers the x-axis of our curves, and the split they are measured on.

    Args:
        loggers: The Trainer's loggers.
        config: Plain values, shown under `prefix` in the run's config.
        prefix: What the keys start with.

    Returns:
        What failed, a sentence for each logger.
    """
    return _each_wandb(loggers, lambda run: _wandb.begin(run, config, prefix))


def log_result(loggers: Loggers, results: Sequence[Snapshot], best: Snapshot, *, prefix: str = "lis") -> list[str]:
    """Log the newest snapshot to every logger, at its own step.

    Args:
        loggers: The Trainer's loggers.
        results: The snapshots so far, by step; the newest has one.
        best: The best of them, for W&B's summary.
        prefix: What the keys start with.

    Returns:
        What failed, a sentence for each logger; a logger that raises keeps no other from being written.
    """

    def log(logger: Any) -> None:
        logger.log_metrics(metrics(results[-1], prefix), step=results[-1].step)
        logger.save()
        if _wandb.is_wandb(logger):
            _wandb.snapshot(logger.experiment, results, best, prefix)

    return _each(loggers, log)


def log_alert(
    loggers: Loggers, judgement: Judgement, *, previous: str, step: int, stopped: bool, prefix: str = "lis"
) -> list[str]:
    """Send an alert through W&B loggers where a verdict is new and calls for action, or the training is stopped.

    Args:
        loggers: The Trainer's loggers.
        judgement: The newest judgement.
        previous: The verdict before it; empty if there was none.
        step: Optimizer step of the judgement.
        stopped: Whether the training is stopped on it.
        prefix: What the keys start with, and the alert's title.

    Returns:
        What failed, a sentence for each logger.
    """
    alert = _wandb.news(previous, judgement, step=step, stopped=stopped, prefix=prefix)
    return [] if alert is None else _each_wandb(loggers, lambda run: _wandb.send(run, alert))


def sync_hint(loggers: Loggers) -> str | None:
    """Return the sentence that says how to upload what W&B loggers kept offline; None where nothing was."""
    return _wandb.sync_hint(loggers)


def log_movers(loggers: Loggers, movers: Sequence[Mover], *, prefix: str = "lis", num: int = 10) -> list[str]:
    """Log the table ``lis/movers`` to W&B loggers, with small images; waits FINISH_SECONDS at most.

    Args:
        loggers: The Trainer's loggers.
        movers: Items that rose most, then those that fell most; of more than ``2 * num`` the middle is left out.
        prefix: What the keys start with.
        num: Items at either end.

    Returns:
        What failed, a sentence for each logger.
    """
    shown = list(movers) if len(movers) <= 2 * num else [*movers[:num], *movers[-num:]]

    def log(run: Any) -> None:
        _wandb.within(FINISH_SECONDS, lambda: run.log({f"{prefix}/movers": movers_table(shown)}))

    return _each_wandb(loggers, log) if shown else []


def finish(
    loggers: Loggers, results: Sequence[Snapshot], best: Snapshot, artifact: Path | None = None,
    *, prefix: str = "lis",
) -> list[str]:  # fmt: skip
    """Log what W&B shows once, when the run ends: the tables ``lis/snapshots`` and ``lis/slices``, and an artifact.

    Both are files, and W&B asks its server before it takes one: where that is dead, the training ends after
    FINISH_SECONDS at most, without them. (The process ends when W&B says so: set ``WANDB_FINISH_TIMEOUT``.)

    Args:
        loggers: The Trainer's loggers.
        results: The snapshots, by step.
        best: The best of them.
        artifact: File of its representations, to log as an artifact; None logs none.
        prefix: What the keys start with.

    Returns:
        What failed, a sentence for each logger.
    """

    def end(run: Any) -> None:
        _wandb.within(FINISH_SECONDS, lambda: _wandb.end(run, results, best, artifact, prefix))

    return _each_wandb(loggers, end)


def close(loggers: Loggers, *, failed: bool = False) -> list[str]:
    """End the W&B runs, so that the next job of this process has one of its own; waits FINISH_SECONDS at most.

    Args:
        loggers: Lightning loggers of the job.
        failed: Whether the job failed; its run is marked so.

    Returns:
        What failed, a sentence for each logger.
    """

    def end(run: Any) -> None:
        _wandb.within(FINISH_SECONDS, lambda: run.finish(exit_code=int(failed)))

    return _each_wandb(loggers, end)


def log_leaderboard(
    table: Any, *, group: str, project: str | None, folder: Path, entity: str | None = None
) -> list[str]:
    """Log the leaderboard of a sweep as ``lis/leaderboard``, in a run of its own beside those of the jobs.

    The run's id follows from the group: a sweep that goes on writes the same run again.

    Args:
        table: Of polars, a row a recipe.
        group: The W&B group of the jobs.
        project: That of the jobs.
        folder: Of the sweep.
        entity: That of the jobs.

    Returns:
        What failed, in a sentence.
    """
    log = partial(_wandb.leaderboard, table, group=group, project=project, folder=folder, entity=entity)
    try:
        _wandb.within(FINISH_SECONDS, log)
    except Exception as error:
        return [f"The leaderboard is not in W&B: {type(error).__name__}: {error}"]
    return []


def publish(trainer: pl.Trainer, result: Snapshot, prefix: str = "lis") -> None:
    """Put a result where stock EarlyStopping and ModelCheckpoint look for what they monitor."""
    for name, value in metrics(result, prefix).items():
        trainer.callback_metrics[name] = torch.tensor(value, dtype=torch.float32)


def run_folder(trainer: pl.Trainer) -> Path:
    """Return the folder of the run: the one that ModelCheckpoint makes its ``checkpoints`` in."""
    if not trainer.loggers:
        return Path(trainer.default_root_dir)
    logger = trainer.loggers[0]
    version = logger.version if isinstance(logger.version, str) else f"version_{logger.version}"
    return Path(logger.save_dir or trainer.default_root_dir) / str(logger.name) / version


def _each(loggers: Loggers, action: Callable[[Any], None]) -> list[str]:
    """Do the same with every logger and return what failed; a tracker must not stop a training."""
    failures = []
    for logger in loggers:
        try:
            action(logger)
        except Exception as error:
            failures.append(f"{type(logger).__name__} raised {type(error).__name__}: {error}")
    return failures


def _each_wandb(loggers: Loggers, action: Callable[[Any], None]) -> list[str]:
    """Do the same with the run of every W&B logger and return what failed."""
    return _each((logger for logger in loggers if _wandb.is_wandb(logger)), lambda logger: action(logger.experiment))
