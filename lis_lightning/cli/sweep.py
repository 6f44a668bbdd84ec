"""The jobs of a sweep: skip the finished ones, record failures, and compare all of them at the end."""

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

from lis_lightning.align.training.console import rank_zero_print
from lis_lightning.align.training.pruning import Rival
from lis_lightning.align.training.run import PAUSED, Run
from lis_lightning.report.rates import rates_text, sweep_rates
from lis_lightning.results.format import format_path
from lis_lightning.results.jobs import COMPLETE, Job, jobs_in, results_of, runs_in
from lis_lightning.results.leaderboard import conclusion, rank_recipes, render_standings, standings_frame
from lis_lightning.tracking.logger_options import leaderboard_destination
from lis_lightning.tracking.loggers import log_leaderboard

TABLE_FILE = "leaderboard.csv"


def run_once(folder: Path, job: Job, action: Callable[[], Run], *, retry: bool, survive: bool) -> float:
    """Run a job unless it ran before; return its best AIS, or NaN if it failed.

    Args:
        folder: Run folder of the job.
        job: Its description.
        action: Trains and scores.
        retry: Whether a job that failed before is run again.
        survive: Whether a failure is recorded instead of raised, so that other jobs go on.
    """
    # The digest identifies the configuration: a job of another one that ran in this folder does not count.
    before = Job.read(folder)
    if before is None or before.digest != job.digest:
        (folder / PAUSED).unlink(missing_ok=True)  # of another configuration
    else:
        if before.reaches(job):
            rank_zero_print(f"{folder} is {before.status} already: best AIS {before.best_ais:+.4f}")
            return before.best_ais
        if before.status == "failed" and not retry:
            rank_zero_print(f"{folder} failed before ({before.error}); retry=true runs it again")
            return math.nan
    # A paused job continues with the steps and seconds that it has spent.
    resumed = before if before is not None and (folder / PAUSED).is_file() else job
    spent = 0.0 if math.isnan(resumed.seconds) else resumed.seconds
    job = replace(job, steps=resumed.steps, seconds=spent)
    _write(job, folder)
    began = time.perf_counter() - spent
    try:
        run = action()
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
        _write(replace(job, status="failed", error=message, seconds=time.perf_counter() - began), folder)
        if not survive:
            raise
        rank_zero_print(f"{folder} FAILED: {message}")
        return math.nan
    _write(_ended(job, run, folder, time.perf_counter() - began), folder)
    return run.best.ais


def _ended(job: Job, run: Run, folder: Path, seconds: float) -> Job:
    """Return the description of a job that ran to its end, was paused, or was pruned."""
    status = "paused" if run.paused else "finished"
    if run.pruned:
        status = "pruned"
    record = None if run.record is None else os.path.relpath(run.record, folder)
    return replace(
        job, status=status, error=run.pruned, steps=run.steps, best_ais=run.best.ais, record=record, seconds=seconds
    )


@rank_zero_only
def _write(job: Job, folder: Path) -> None:
    """Write the file of a job, on the first of several processes."""
    job.write(folder)


def best_finished(folder: Path) -> Rival | None:
    """Return the finished job with the highest AIS in a sweep; None if no job has finished.

    Args:
        folder: Of the sweep.
    """
    finished = [(path, job) for path, job in jobs_in(folder) if job.status == "finished"]
    if not finished:
        return None
    path, best = max(finished, key=lambda entry: entry[1].best_ais)
    return Rival(name=path.name, results=results_of(path, best), num_finished=len(finished))


class SweepReport(Callback):
    """Hydra callback that prints the leaderboard at the end of a sweep, writes it to a file, and logs it to W&B.

    Example:
        >>> config = DictConfig({"hydra": {"sweep": {"dir": "no-jobs-yet"}}})
        >>> SweepReport().on_multirun_end(config)  # prints nothing: there are no jobs
    """

    @override
    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        folder = Path(config.hydra.sweep.dir)
        failed = report(folder)
        if (folder / TABLE_FILE).is_file():
            destination = leaderboard_destination(config.get("logger") or {}, config.sweep_name)
            if destination is not None:
                for failure in log_leaderboard(pl.read_csv(folder / TABLE_FILE), folder=folder, **destination):
                    rank_zero_print(failure)
        if failed:
            raise SystemExit(1)


def report(folder: Path) -> int:
    """Print and write the leaderboard of a sweep; return the number of jobs that failed or were killed.

    Args:
        folder: Of the sweep.
    """
    runs = runs_in(folder)
    places = rank_recipes(runs)
    if not places:
        return 0
    standings_frame(places).write_csv(folder / TABLE_FILE)
    rank_zero_print(f"\n{render_standings(places)}\n{conclusion(places)}")
    rank_zero_print(f"table: {format_path(folder / TABLE_FILE)}; as a page: lis-report {format_path(folder)}")
    rates = sweep_rates([best for of_recipe in runs.values() for best in of_recipe.best])
    if rates is not None:
        rank_zero_print(f"\n{rates_text(rates)}")
    jobs = list(jobs_in(folder))
    for path, job in jobs:
        if job.status == "pruned":
            rank_zero_print(f"pruned: {path} after {job.steps} steps, {job.error}")
    failed = [(path, job) for path, job in jobs if job.status not in COMPLETE]
    for path, job in failed:
        reason = job.error or "killed"
        rank_zero_print(f"not finished: {path} ({reason}); the same command with retry=true runs it again")
    return len(failed)
