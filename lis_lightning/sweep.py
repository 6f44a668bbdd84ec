"""Running the jobs of a sweep: what is finished is not done again, what failed is reported, and all are compared."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from typing_extensions import override

from lis_lightning.align.run import PAUSED, Run, say
from lis_lightning.jobs import Job, jobs_in, runs_in
from lis_lightning.leaderboard import conclusion, frame, leaderboard, render

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
    job.write(folder)
    began = time.perf_counter() - spent
    try:
        run = action()
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        replace(job, status="failed", error=text, seconds=time.perf_counter() - began).write(folder)
        if not survive:
            raise
        say(f"{folder} FAILED: {text}")
        return float("nan")
    finished = replace(
        job,
        status="paused" if run.paused else "finished",
        steps=run.steps,
        best_ais=run.best.ais,
        record=None if run.record is None else os.path.relpath(run.record, folder),
        seconds=time.perf_counter() - began,
    )
    finished.write(folder)
    return run.best.ais


class SweepReport(Callback):
    """Prints the leaderboard where a sweep ends, and writes it beside the jobs."""

    @override
    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        if report(Path(config.hydra.sweep.dir)):
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
    failed = [(place, job) for place, job in jobs_in(folder) if job.status not in {"finished", "paused"}]
    for place, job in failed:
        say(f"not finished: {place} ({job.error or 'killed'}); the same command with retry=true tries it again")
    return len(failed)
