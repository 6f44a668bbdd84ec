"""The jobs of a sweep on disk: configuration, status and results of each."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lis_lightning.results.leaderboard import Runs
from lis_lightning.results.record import Record
from lis_lightning.results.selection import corrected_best
from lis_lightning.results.snapshot import Snapshot

JOB_FILE = "job.json"
_PATH_STARTS = ("/", "./", "../", "~/")
COMPLETE = {"finished", "paused", "pruned"}  # statuses of jobs that ended as planned


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run of a sweep, as stored in its ``job.json``.

    Attributes:
        recipe: Name of the recipe.
        seed: Seed of the weights and batches.
        overrides: Hydra overrides of the command line, by key.
        digest: Hash of the whole configuration.
        status: ``running`` (also after the job was killed), ``paused``, ``pruned``, ``finished`` or ``failed``.
        stop_at: Optimizer step to pause at; None trains to the end.
        prune: Whether to stop the job once it is clearly behind the best finished job.
        steps: Optimizer steps trained so far.
        best_ais: AIS of its best snapshot; NaN until the job is finished.
        record: File of the run's record.
        seconds: Duration.
        error: Why the job failed or was pruned.

    Example:
        >>> job = Job(recipe="infonce", seed=1, status="paused", steps=100)
        >>> job.reaches(Job(recipe="infonce", seed=1, stop_at=50)), job.reaches(Job(recipe="infonce", seed=1))
        (True, False)
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
        """Return whether this job has been trained as far as another job requires."""
        if self.status == "paused":
            return other.stop_at is not None and self.steps >= other.stop_at
        return self.status == "finished" or (self.status == "pruned" and other.prune)

    def write(self, folder: Path) -> None:
        """Write ``job.json`` atomically."""
        folder.mkdir(parents=True, exist_ok=True)
        draft = folder / f".{JOB_FILE}.{os.getpid()}"
        draft.write_text(json.dumps(asdict(self), indent=1))
        draft.replace(folder / JOB_FILE)

    @classmethod
    def read(cls, folder: Path) -> Job | None:
        """Return the job of a folder; None if there is none or its file is damaged."""
        try:
            return cls(**json.loads((folder / JOB_FILE).read_text()))
        except (OSError, ValueError, TypeError):
            return None


def digest(config: Mapping[str, Any]) -> str:
    """Return a hash of a configuration."""
    return hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode()).hexdigest()[:16]


def jobs_in(folder: Path) -> Iterator[tuple[Path, Job]]:
    """Yield the jobs of a sweep with their folders, in the order of their paths.

    Args:
        folder: Folder of the sweep.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Job(recipe="infonce", seed=1).write(Path(folder) / "0")
        ...     [job.recipe for _, job in jobs_in(Path(folder))]
        ['infonce']
    """
    for path in sorted(folder.rglob(JOB_FILE)):
        job = Job.read(path.parent)
        if job is not None:
            yield path.parent, job


def runs_in(folder: Path) -> dict[str, Runs]:
    """Return the runs of a sweep by recipe; runs that differ only in their seed are grouped.

    Args:
        folder: Folder of the sweep.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Job(recipe="infonce", seed=1, status="failed").write(Path(folder) / "0")
        ...     runs_in(Path(folder))["infonce"].failed
        1
    """
    return {name: runs_of(jobs) for name, jobs in by_recipe(dict(jobs_in(folder))).items()}


def by_recipe(jobs: Mapping[Path, Job]) -> dict[str, dict[Path, Job]]:
    """Return jobs grouped by recipe and by the overrides in which they differ, except the seed."""
    keys = {key for job in jobs.values() for key in job.overrides} - {"seed", "recipe"}
    varying = {}
    for key in sorted(keys):
        values = {job.overrides.get(key) for job in jobs.values()}
        if len(values) > 1:
            varying[key] = short_names([value for value in values if value is not None])
    last = Counter(key.rpartition(".")[2] for key in ["seed", "recipe", *varying])
    names = {key: name if last[name := key.rpartition(".")[2]] == 1 else key for key in varying}
    groups: dict[str, dict[Path, Job]] = {}
    for folder, job in jobs.items():
        differing = [
            f"{names[key]}={short[job.overrides[key]]}" for key, short in varying.items() if key in job.overrides
        ]
        groups.setdefault(", ".join([job.recipe, *differing]), {})[folder] = job
    return groups


def short_names(values: Sequence[str]) -> dict[str, str]:
    """Return how each value is shown: the last parts of a path, or three digits of a number, if these tell it apart.

    Args:
        values: Values of an option. Names on a hub, such as ``org/model``, and all other values stay as they are.

    Example:
        >>> short_names(["/models/clip", "org/clip", "/a/v1/bert", "/a/v2/bert"])
        {'/models/clip': 'clip', 'org/clip': 'org/clip', '/a/v1/bert': 'v1/bert', '/a/v2/bert': 'v2/bert'}
    """
    paths = {value: Path(value.strip("'\"")).parts for value in values if value.strip("'\"").startswith(_PATH_STARTS)}
    names = _short_numbers(values)
    for value in values:
        parts = paths.get(value, ())
        others = [other for other in paths.values() if other != parts]
        for depth in range(len(parts), 0, -1):
            if any(other[-depth:] == parts[-depth:] for other in others):
                break
            names[value] = "/".join(parts[-depth:])
    return names


def _short_numbers(values: Sequence[str]) -> dict[str, str]:
    """Return numbers with three significant digits, where that is shorter and they stay distinct; other texts as is."""
    short = {value: _three_digits(value) for value in values}
    counts = Counter(short.values())
    return {value: text if counts[text] == 1 else value for value, text in short.items()}


def _three_digits(value: str) -> str:
    try:
        text = f"{float(value):.3g}"
    except ValueError:
        return value
    return min(text, value, key=len)


def runs_of(jobs: Mapping[Path, Job], until: float = math.inf) -> Runs:
    """Return the runs of some jobs, with their best snapshots up to an optimizer step."""
    best, start, corrected = [], [], []
    for folder, job in jobs.items():
        results = [result for result in results_of(folder, job) if result.step <= until]
        if results:
            best.append(max(results, key=lambda result: result.ais))
            start += untrained(results)
            corrected.append(corrected_best(results).value)
    seconds = sum(job.seconds for job in jobs.values() if not math.isnan(job.seconds))
    pruned = sum(job.status == "pruned" for job in jobs.values())
    return Runs(
        best=best, start=start, corrected=corrected, seconds=float(seconds), failed=len(jobs) - len(best), pruned=pruned
    )


def untrained(results: Sequence[Snapshot]) -> list[Snapshot]:
    """Return the snapshot before any training, if there is one with a score.

    Args:
        results: The snapshots of a run, by step.

    Example:
        >>> untrained([])
        []
    """
    return [result for result in results[:1] if result.step == 0 and math.isfinite(result.ais)]


def results_of(folder: Path, job: Job) -> list[Snapshot]:
    """Return the snapshots of a job that ended as planned; empty for any other job.

    Args:
        folder: Folder of the job.
        job: The job.

    Example:
        >>> results_of(Path("0"), Job(recipe="infonce", seed=1, status="failed"))
        []
    """
    complete = job.status in COMPLETE and job.record is not None
    return Record.read(folder / str(job.record))[1] if complete else []
