"""The jobs of a sweep on disk: what each of them is, how far it came, and what it reached."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lis_lightning.results.leaderboard import Runs
from lis_lightning.results.record import Record
from lis_lightning.results.snapshot import Snapshot

JOB_FILE = "job.json"
WHOLE = {"finished", "paused", "pruned"}  # statuses of jobs that came to what they were asked for


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

    def write(self, folder: Path) -> None:
        """Write the job's file in one step."""
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
    results = [results_of(place, job) for place, job in jobs.items()]
    seen = [[result for result in one if result.step <= until] for one in results]
    best = [max(one, key=lambda result: result.ais) for one in seen if one]
    seconds = sum(job.seconds for job in jobs.values() if not math.isnan(job.seconds))
    pruned = sum(job.status == "pruned" for job in jobs.values())
    return Runs(best=best, seconds=float(seconds), failed=len(jobs) - len(best), pruned=pruned)


def results_of(place: Path, job: Job) -> list[Snapshot]:
    """Return the snapshots of a job that came to what it was asked for; none of another."""
    whole = job.status in WHOLE and job.record is not None
    return Record.read(place / str(job.record))[1] if whole else []
