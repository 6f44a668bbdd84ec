"""Runs found below a folder, read from their records, Hydra overrides and item catalogues."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from lis_lightning.errors import ConfigError, LisError, LisWarning
from lis_lightning.functional.intervals import Estimate
from lis_lightning.report.snapshot_text import failed_line
from lis_lightning.results.jobs import JOB_FILE, Job, by_recipe, jobs_in
from lis_lightning.results.movers import Catalogue, Mover, movers
from lis_lightning.results.record import FILENAME, Record
from lis_lightning.results.selection import corrected_best
from lis_lightning.results.snapshot import Snapshot
from lis_lightning.results.stopping import StopRule
from lis_lightning.results.verdict import Judgement, judge


@dataclass(frozen=True, eq=False, kw_only=True)
class RecordedRun:
    """One run up to its newest snapshot.

    Attributes:
        name: Display name, unique among the runs of a report: recipe and seed in a run of lis-align, or the name in its
            tracker (W&B, Trackio, Lightning), or the folder.
        recipe: Name of its recipe with the settings in which it differs, which runs of other seeds share; outside of
            lis-align its name.
        path: The file it was read from.
        results: Its snapshots by step; at least one.
        split: Facts of the split it was scored on.
        settings: Settings of the monitor, by name.
        overrides: Hydra overrides of the command line, ``key=value`` each.
        failures: Failures that the training tolerated, as text.
        unscored: What is beside it without a score, for the first run of a report: one sentence each, with the reason.
        ended: Whether the run has ended.
        times: When the snapshot of each step was written; empty where unknown.
        versions: Versions of the packages that can change a number.
        job: Its job in a sweep; None outside a sweep.
        paired: Whether its snapshots hold the per-user values of a paired comparison. Records do, W&B's files do not.
        catalogue: Titles and images of its items; None if there is no catalogue.

    Example:
        >>> from lis_lightning.results import LISResult, Snapshot
        >>> result = LISResult(ais=0.003, ais_low=0.001, ais_high=0.005, ais_geometry=0.002, auc_base=0.7, auc=0.703)
        >>> run = RecordedRun(name="mine", path=Path("record.jsonl"), results=[Snapshot.of(result, step=200)])
        >>> run.best.step, run.best.ais
        (200, 0.003)
    """

    name: str
    path: Path
    results: Sequence[Snapshot]
    recipe: str = ""
    split: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    overrides: Sequence[str] = ()
    failures: Sequence[str] = ()
    unscored: Sequence[str] = ()
    ended: bool = False
    times: Mapping[int, datetime] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    job: Job | None = None
    paired: bool = True
    catalogue: Catalogue | None = None

    @property
    def split_hash(self) -> str:
        """Hash of the split it was scored on; empty if unknown."""
        return self.results[-1].split_hash or str(self.split.get("hash", ""))

    @cached_property
    def judgement(self) -> Judgement:
        """Judgement by the run's own stop rule; without per-user values, the verdict that was logged."""
        last = self.results[-1]
        if not self.paired:
            best = max(range(len(self.results)), key=lambda index: self.results[index].ais)
            return Judgement(
                verdict=last.verdict, message=last.message, stop=False, reason="", best=best, gain_z=last.gain_z
            )
        rule = self.settings.get("rule")
        return judge(
            self.results, StopRule(**rule) if rule else None, max_steps=self.settings.get("max_steps"), ended=self.ended
        )

    @property
    def best(self) -> Snapshot:
        """Its snapshot with the highest AIS."""
        return self.results[self.judgement.best]

    @cached_property
    def corrected(self) -> Estimate:
        """AIS of the best snapshot, corrected for having been picked; NaN without per-user values."""
        return corrected_best(self.results)

    @property
    def movers(self) -> list[Mover]:
        """Items whose gain rose from the first snapshot to the best, the most first, then those whose gain fell."""
        if self.catalogue is None:
            return []
        return movers(self.results[0], self.best, self.catalogue, num=self.catalogue.ids.size)


RunReader = Callable[[Path], RecordedRun | None]  # reads a file; None if it has no snapshot


def find_runs(paths: Iterable[str | Path], readers: Mapping[str, RunReader] | None = None) -> list[RecordedRun]:
    """Return all runs below some paths, read from their records or, without a record, by a reader of another format.

    Args:
        paths: Folders, which are searched recursively, and files: ``record*.jsonl`` or a pattern of `readers`.
        readers: Readers of other file formats, by file name pattern, such as
            :data:`lis_lightning.tracking.OFFLINE_READERS`. In a folder, they read runs without a record only.

    Returns:
        Runs with at least one snapshot, in the order of their paths. Those without one are named in `unscored` of the
        first, with the reason. What W&B holds of a run that has a record is left out.

    Raises:
        ConfigError: If a path does not exist, or there is no run in any.
        RecordError: If a given file cannot be read. In a folder, damaged files are skipped with a warning.

    Example:
        >>> import tempfile
        >>> from lis_lightning.results import Record, Snapshot
        >>> snapshot = Snapshot(
        ...     ais=0.003, ais_low=0.001, ais_high=0.005, ais_geometry=0.002, auc_base=0.7, auc=0.703, step=200
        ... )
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Record.create(Path(folder) / "mine" / "record.jsonl", run_id="a1", split_hash="c0ffee").append(snapshot)
        ...     [(run.name, run.best.step) for run in find_runs([folder])]
        [('mine', 200)]
    """
    readers = readers or {}
    roots = [Path(path).expanduser() for path in paths]
    for path in roots:
        if not path.exists():
            files = " or ".join(["record.jsonl", *readers])
            raise ConfigError(f"{path} does not exist. Give a folder of runs, or a file {files}.")
    runs: dict[Path, RecordedRun] = {}
    problems: list[str] = []
    unscored: list[str] = []
    for path in roots:
        if path.is_file():
            _add_run(path, readers, runs, unscored)
            continue
        for file in _files_in(path, readers):
            try:
                _add_run(file, readers, runs, unscored)
            except LisError as error:
                problems.append(str(error))
    if not runs:
        reasons = "".join(f"\n{problem}" for problem in [*problems, *unscored])
        formats = " or ".join(["a record.jsonl", *readers])
        raise ConfigError(
            f"There is no run with a snapshot in {', '.join(map(str, roots))}. Looked for {formats}; LISMonitor writes "
            f"the record to its `dirpath` or the first logger's folder.{reasons}"
        )
    for problem in problems:
        warnings.warn(f"Skipped: {problem}", LisWarning, stacklevel=2)
    unscored += _failed_jobs(roots)
    lead, *others = _named(_without_copies(list(runs.values())))
    return [replace(lead, unscored=unscored), *others]


def recorded_run(record: Path | None, results: Sequence[Snapshot]) -> RecordedRun:
    """Return the run of a record or, if no record could be written, a run of its snapshots alone.

    Args:
        record: File of the record; None if there is none.
        results: The snapshots, by step.

    Example:
        >>> from lis_lightning.results import LISResult, Snapshot
        >>> result = LISResult(ais=0.003, ais_low=0.001, ais_high=0.005, ais_geometry=0.002, auc_base=0.7, auc=0.703)
        >>> recorded_run(None, [Snapshot.of(result, step=200)]).best.step
        200
    """
    run = None if record is None else _read_record(record)
    if run is None:
        return RecordedRun(name="run", path=record or Path("no record"), results=results, recipe="run")
    (named,) = _named([run])
    return named


def find_run(path: str | Path, readers: Mapping[str, RunReader] | None = None) -> RecordedRun:
    """Return the only run below a path; see :func:`find_runs`.

    Raises:
        ConfigError: If there is no run, or more than one.
        RecordError: If the file cannot be read.
    """
    runs = find_runs([path], readers)
    if len(runs) > 1:
        listed = "".join(f"\n  {run.name}: {run.path}" for run in runs)
        raise ConfigError(f"Expected one run, got {path} with {len(runs)}; give one of these:{listed}")
    return runs[0]


def _files_in(folder: Path, patterns: Iterable[str]) -> list[Path]:
    """Return the records below a folder, and the files of other formats of runs that have no record."""
    records = sorted(folder.rglob("record*.jsonl"))
    recorded_folders = [record.parent for record in records]
    candidates = [file for pattern in patterns for file in sorted(folder.rglob(pattern))]
    recorded_ids = {recorded.name for recorded in recorded_folders}  # WandbLogger names the folder by the run's id
    foreign = [
        file
        for file in candidates
        if not any(map(file.is_relative_to, recorded_folders)) and file.stem.partition("-")[2] not in recorded_ids
    ]
    return [*records, *foreign]


def _read(file: Path, readers: Mapping[str, RunReader]) -> RecordedRun | None:
    """Return the run of a file; None if it has no snapshot yet."""
    for pattern, reader in readers.items():
        if file.match(pattern):
            return reader(file)
    return _read_record(file)


def _read_record(file: Path) -> RecordedRun | None:
    contents = Record.contents(file)  # read once: a run in training appends to it
    if not contents.results:
        return None
    statuses, settings = contents.statuses, dict(contents.header["config"])
    failures = [_failure(status) for status in statuses if status["kind"] == "failure"]
    job_file = file.parent / JOB_FILE
    job = Job.read(file.parent) if job_file.is_file() else None
    return RecordedRun(
        name=_own_name(file, settings.pop("run_name", ""), job),
        path=file,
        results=contents.results,
        split=contents.header["split"],
        settings=settings,
        overrides=_overrides(file.parent),
        failures=failures,
        ended=bool(statuses) and statuses[-1]["kind"] == "end",
        times=contents.times,
        versions=contents.header["versions"],
        job=job,
        catalogue=_catalogue(file),
    )


def _add_run(file: Path, readers: Mapping[str, RunReader], runs: dict[Path, RecordedRun], unscored: list[str]) -> None:
    """Add the run of a file to `runs`, or what became of it to `unscored` if its snapshots all failed."""
    run = _read(file, readers)
    if run is not None:
        runs.setdefault(file.resolve(), run)
    elif file.match("record*.jsonl"):
        unscored.append(_without_score(file))


def _without_score(record: Path) -> str:
    """Return in a sentence why a record holds no snapshot."""
    statuses = Record.statuses(record)
    failed = [status for status in statuses if status["kind"] == "failure" and status["what"] == "snapshot"]
    name = record.stem.removeprefix(Path(FILENAME).stem).strip("-") or record.parent.name
    if failed:
        return failed_line(name, 0, len(failed), failed[-1]["error"])
    job = Job.read(record.parent) if (record.parent / JOB_FILE).is_file() else None
    if job is not None and job.status == "failed":
        return f"{name}: no snapshot was scored: {job.error}"
    ended = any(status["kind"] == "end" for status in statuses)
    reason = "it ended before the first" if ended else "it goes on, or was killed before the first"
    return f"{name}: no snapshot was scored: {reason}"


def _failed_jobs(roots: Sequence[Path]) -> list[str]:
    """Return the jobs of sweeps that ended in an error before they had a record, with the error."""
    jobs = {folder.resolve(): job for root in roots if root.is_dir() for folder, job in jobs_in(root)}
    return [
        f"{folder.name}: no snapshot was scored: {job.error}"
        for folder, job in jobs.items()
        if job.status == "failed" and not any(folder.glob("record*.jsonl"))
    ]


def _without_copies(runs: Sequence[RecordedRun]) -> list[RecordedRun]:
    """Return the runs without those that were read from W&B and have a record too: the same steps and scores."""
    recorded = [_scores(run) for run in runs if run.paired]
    return [run for run in runs if run.paired or not any(_scores(run) <= scores for scores in recorded)]


def _scores(run: RecordedRun) -> set[tuple[int, float]]:
    return {(result.step, result.ais) for result in run.results}


def _failure(status: Mapping[str, Any]) -> str:
    facts = {key: value for key, value in status.items() if key not in {"kind", "time"}}
    return ", ".join(f"{key} {value}" for key, value in facts.items())


def _overrides(folder: Path) -> list[str]:
    """Return the overrides of a job that Hydra ran; empty for other runs."""
    from omegaconf import OmegaConf

    with contextlib.suppress(OSError, ValueError):
        return [str(override) for override in OmegaConf.load(folder / ".hydra" / "overrides.yaml")]
    return []


def _catalogue(record: Path) -> Catalogue | None:
    """Return the item catalogue beside a record; None if it cannot be read, so that a report has no movers then."""
    path = Catalogue.beside(record)
    with contextlib.suppress(OSError, pl.exceptions.PolarsError, LisError):
        return Catalogue.read(path)
    return None


def _named(runs: list[RecordedRun]) -> list[RecordedRun]:
    """Return the runs with their recipes, and unique names with as many parent folders in front as necessary."""
    jobs = {run.path: run.job for run in runs if run.job is not None}
    recipes = {path: recipe for recipe, members in by_recipe(jobs).items() for path in members}
    runs = [_with_recipe(run, recipes.get(run.path, "")) for run in runs]
    for depth in range(8):
        names = [_name(run, depth) for run in runs]
        if len(set(names)) == len(names):
            break
    else:
        names = [str(run.path) for run in runs]
    return [replace(run, name=name, recipe=run.recipe or name) for run, name in zip(runs, names, strict=True)]


def _with_recipe(run: RecordedRun, recipe: str) -> RecordedRun:
    """Return a run of a sweep named after its recipe, with the settings in which it differs; others as they are."""
    if run.job is None:
        return run
    return replace(run, recipe=recipe, name=_own_name(run.path, "", replace(run.job, recipe=recipe)))


def _name(run: RecordedRun, depth: int) -> str:
    if depth == 0:
        return run.name
    folder = run.path.parent.resolve()
    folders = "/".join(folder.parts[-depth:])
    if run.name.startswith(folder.name):  # named after its folder
        return "/".join(folder.parts[-1 - depth : -1]) + f"/{run.name}"
    return f"{run.name} ({folders})"


def _own_name(record: Path, tracked: str, job: Job | None) -> str:
    """Return the name of a run: its recipe and seed, or its name in a tracker, or its folder; and its monitor's."""
    name = f"{job.recipe} seed {job.seed}" if job is not None else tracked or record.parent.resolve().name
    monitor = record.stem.removeprefix(Path(FILENAME).stem).strip("-")
    return f"{name} {monitor}".rstrip()


def by_split(runs: Sequence[RecordedRun]) -> list[list[RecordedRun]]:
    """Return the runs grouped by split, the largest group first: scores on different splits cannot be compared."""
    groups: dict[str, list[RecordedRun]] = {}
    for run in runs:
        groups.setdefault(run.split_hash, []).append(run)
    return sorted(groups.values(), key=len, reverse=True)


def same_split(runs: Sequence[RecordedRun]) -> list[RecordedRun]:
    """Return the runs that can be compared by user: those with a record, on the split of the first of them."""
    paired = [run for run in runs if run.paired]
    return [run for run in paired if run.best.split_hash == paired[0].best.split_hash]
