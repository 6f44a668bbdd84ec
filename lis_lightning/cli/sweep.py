"""Running the jobs of a sweep: what is finished is not done again, what failed is reported, and all are compared."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from pytorch_lightning.utilities import rank_zero_only
from typing_extensions import override

from lis_lightning.align.training.messages import say
from lis_lightning.align.training.pruning import Rival
from lis_lightning.align.training.run import PAUSED, Run
from lis_lightning.results.jobs import WHOLE, Job, jobs_in, results_of, runs_in
from lis_lightning.results.leaderboard import conclusion, frame, leaderboard, render
from lis_lightning.tracking.loggers import log_leaderboard

TABLE_FILE = "leaderboard.csv"


def run_once(folder: Path, job: Job, action: Callable[[], Run], *, retry: bool, survive: bool) -> float:
    """Run a job unless it ran before, and return its best AIS; NaN where it failed.

    Args:
        folder: Its run folder.
        job: What it is.
        action: Trains and scores.
        retry: Whether a job that failed before is tried again.
        survive: Whether a failure is written down instead of raised, so that other jobs go on.
    """
    before = Job.read(folder)
    if before is None or before.digest != job.digest:
        (folder / PAUSED).unlink(missing_ok=True)  # of another configuration
    else:
        if before.reaches(job):
            say(f"{folder} is {before.status} already: best AIS {before.best_ais:+.4f}")
            return before.best_ais
        if before.status == "failed" and not retry:
            say(f"{folder} failed before ({before.error}); retry=true tries it again")
            return float("nan")
    going_on = before if before is not None and (folder / PAUSED).is_file() else job
    spent = 0.0 if math.isnan(going_on.seconds) else going_on.seconds
    job = replace(job, steps=going_on.steps, seconds=spent)
    _write(job, folder)
    began = time.perf_counter() - spent
    try:
        run = action()
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        _write(replace(job, status="failed", error=text, seconds=time.perf_counter() - began), folder)
        if not survive:
            raise
        say(f"{folder} FAILED: {text}")
        return float("nan")
    finished = replace(
        job,
        status="pruned" if run.pruned else "paused" if run.paused else "finished",
        error=run.pruned,
        steps=run.steps,
        best_ais=run.best.ais,
        record=None if run.record is None else os.path.relpath(run.record, folder),
        seconds=time.perf_counter() - began,
    )
    _write(finished, folder)
    return run.best.ais


@rank_zero_only
def _write(job: Job, folder: Path) -> None:
    """Write a job's file, on the first of several processes."""
    job.write(folder)


def best_finished(folder: Path) -> Rival | None:
    """Return the best of the finished jobs of a sweep; None before the first.

    Args:
        folder: Of the sweep.
    """
    finished = {place: job for place, job in jobs_in(folder) if job.status == "finished"}
    if not finished:
        return None
    place, job = max(finished.items(), key=lambda one: one[1].best_ais)
    return Rival(name=place.name, results=results_of(place, job), among=len(finished))


class SweepReport(Callback):
    """Prints the leaderboard where a sweep ends, and writes it beside the jobs."""

    @override
    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        folder = Path(config.hydra.sweep.dir)
        failed = report(folder)
        wandb: Any = (config.get("logger") or {}).get("wandb")
        if wandb is not None and (folder / TABLE_FILE).is_file():
            group = str(wandb.get("group") or config.sweep_name)
            for failure in log_leaderboard(
                pl.read_csv(folder / TABLE_FILE), group=group, project=wandb.get("project"),
                entity=wandb.get("entity"), folder=folder,
            ):  # fmt: skip
                say(failure)
        if failed:
            raise SystemExit(1)


def report(folder: Path) -> int:
    """Print and write the leaderboard of a sweep; return how many of its jobs failed.

    Args:
        folder: Of the sweep.
    """
    places = leaderboard(runs_in(folder))
    if not places:
        return 0
    frame(places).write_csv(folder / TABLE_FILE)
    say(f"\n{render(places)}\n{conclusion(places)}\ntable: {folder / TABLE_FILE}")
    for place, job in jobs_in(folder):
        if job.status == "pruned":
            say(f"pruned: {place} after {job.steps} steps, {job.error}")
    failed = [(place, job) for place, job in jobs_in(folder) if job.status not in WHOLE]
    for place, job in failed:
        say(f"not finished: {place} ({job.error or 'killed'}); the same command with retry=true tries it again")
    return len(failed)
