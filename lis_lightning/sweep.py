"""The jobs of a sweep on disk: what is finished is not done again, what failed is reported, and all are compared."""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl
from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from pytorch_lightning.utilities import rank_zero_only
from typing_extensions import override

from lis_lightning.align._words import say
from lis_lightning.align.pruning import Rival
from lis_lightning.align.run import PAUSED, Run
from lis_lightning.leaderboard import Runs, conclusion, frame, leaderboard, render
from lis_lightning.record import Record
from lis_lightning.result import LISResult
from lis_lightning.tracking import log_leaderboard

JOB_FILE = "job.json"
TABLE_FILE = "leaderboard.csv"
_WHOLE = {"finished", "paused", "pruned"}  # statuses of jobs that came to what they were asked for


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run of a sweep, as its file tells it.

    Attributes:
        recipe: Name of the recipe.
        seed: Of weights and batches.
        overrides: What the command line said, by key.
        digest: Of the whole configuration.
        status: ``running`` (also of a job that was killed), ``paused``, ``pruned``, ``finished`` or ``failed``.
        stop_at: Optimizer step it is to pause at; None to go on to the end.
        prune: Whether it is to end where it is clearly behind the best finished job.
        steps: Optimizer steps it was trained.
        best_ais: AIS of its best snapshot; NaN until it is finished.
        record: File of the run's own record.
        seconds: What it took.
        error: Why it failed or was pruned, in words.
    """

    recipe: str
    seed: int
    overrides: Mapping[str, str] = field(default_factory=dict)
    digest: str = ""
    status: str = "running"
    stop_at: int | None = None
    prune: bool = False
    steps: int = 0
    best_ais: float = float("nan")
    record: str | None = None
    seconds: float = float("nan")
    error: str = ""

    def reaches(self, other: Job) -> bool:
        """Whether it has been trained as far as another one is to be."""
        paused = self.status == "paused" and other.stop_at is not None and self.steps >= other.stop_at
        return self.status == "finished" or paused or (self.status == "pruned" and other.prune)

    @rank_zero_only
    def write(self, folder: Path) -> None:
        """Write the job's file in one step, on the first of several processes."""
        folder.mkdir(parents=True, exist_ok=True)
        draft = folder / f".{JOB_FILE}.{os.getpid()}"
        draft.write_text(json.dumps(asdict(self), indent=1))
        draft.replace(folder / JOB_FILE)

    @classmethod
    def read(cls, folder: Path) -> Job | None:
        """Return the job of a folder; None where there is none, or its file was cut short."""
        try:
            return cls(**json.loads((folder / JOB_FILE).read_text()))
        except (OSError, ValueError, TypeError):
            return None


def digest(config: Mapping[str, Any]) -> str:
    """Return what tells configurations apart."""
    return hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode()).hexdigest()[:16]


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
        status="pruned" if run.pruned else "paused" if run.paused else "finished",
        error=run.pruned,
        steps=run.steps,
        best_ais=run.best.ais,
        record=None if run.record is None else os.path.relpath(run.record, folder),
        seconds=time.perf_counter() - began,
    )
    finished.write(folder)
    return run.best.ais


def best_finished(folder: Path) -> Rival | None:
    """Return the best of the finished jobs of a sweep; None before the first.

    Args:
        folder: Of the sweep.
    """
    finished = {place: job for place, job in jobs_in(folder) if job.status == "finished"}
    if not finished:
        return None
    place, job = max(finished.items(), key=lambda one: one[1].best_ais)
    return Rival(name=place.name, results=_results(place, job), among=len(finished))


def jobs_in(folder: Path) -> Iterator[tuple[Path, Job]]:
    """Yield the jobs of a sweep with their folders, in the order of their names."""
    for path in sorted(folder.rglob(JOB_FILE)):
        job = Job.read(path.parent)
        if job is not None:
            yield path.parent, job


def runs_in(folder: Path) -> dict[str, Runs]:
    """Return the runs of a sweep by recipe; seeds of one recipe and of one set of overrides go together.

    Args:
        folder: Of the sweep.
    """
    return {name: runs_of(jobs) for name, jobs in by_recipe(dict(jobs_in(folder))).items()}


def by_recipe(jobs: Mapping[Path, Job]) -> dict[str, dict[Path, Job]]:
    """Return jobs by recipe, and by what else differs among them but the seed."""
    values: dict[str, set[str | None]] = {}
    for key in {key for job in jobs.values() for key in job.overrides} - {"seed", "recipe"}:
        values[key] = {job.overrides.get(key) for job in jobs.values()}
    varied = sorted(key for key, seen in values.items() if len(seen) > 1)
    named: dict[str, dict[Path, Job]] = {}
    for place, job in jobs.items():
        told = [f"{key}={job.overrides[key]}" for key in varied if key in job.overrides]
        named.setdefault(", ".join([job.recipe, *told]), {})[place] = job
    return named


def runs_of(jobs: Mapping[Path, Job], until: float = math.inf) -> Runs:
    """Return what jobs came to, by their snapshots up to an optimizer step."""
    results = [_results(place, job) for place, job in jobs.items()]
    seen = [[result for result in one if result.step is not None and result.step <= until] for one in results]
    best = [max(one, key=lambda result: result.ais) for one in seen if one]
    seconds = sum(job.seconds for job in jobs.values() if not math.isnan(job.seconds))
    pruned = sum(job.status == "pruned" for job in jobs.values())
    return Runs(best=best, seconds=float(seconds), failed=len(jobs) - len(best), pruned=pruned)


def _results(place: Path, job: Job) -> list[LISResult]:
    whole = job.status in _WHOLE and job.record is not None
    return Record.read(place / str(job.record))[1] if whole else []


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
    failed = [(place, job) for place, job in jobs_in(folder) if job.status not in _WHOLE]
    for place, job in failed:
        say(f"not finished: {place} ({job.error or 'killed'}); the same command with retry=true tries it again")
    return len(failed)
