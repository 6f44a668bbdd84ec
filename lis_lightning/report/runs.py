"""Runs as they lie on disk: their records, what they were told, and their items; or, without a record, W&B's file."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from lis_lightning.errors import ConfigError, LisError, LisWarning
from lis_lightning.results.jobs import JOB_FILE, Job
from lis_lightning.results.movers import Catalogue, Mover, movers
from lis_lightning.results.record import Record
from lis_lightning.results.snapshot import Snapshot
from lis_lightning.results.stopping import Judgement, StopRule, judge
from lis_lightning.tracking.wandb_offline import read_offline


@dataclass(frozen=True, eq=False, kw_only=True)
class RecordedRun:
    """One run, as far as it has come.

    Attributes:
        name: What tells it from the others.
        path: Its record, or W&B's file.
        results: Its snapshots by step; at least one.
        split: Facts of the split it was measured on.
        settings: How it was monitored, by name.
        overrides: What the command line said, ``key=value`` each.
        failures: What the training survived, in words.
        ended: Whether it has come to its end.
        times: When the snapshot of each step was on disk; empty where nobody knows.
        versions: Of the packages that can change a number.
        job: What a sweep knows of it; None outside one.
        paired: Whether it can be compared by user: a record can, what W&B keeps cannot.
        catalogue: Its items; None where they are not known.
    """

    name: str
    path: Path
    results: Sequence[Snapshot]
    split: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    overrides: Sequence[str] = ()
    failures: Sequence[str] = ()
    ended: bool = False
    times: Mapping[int, datetime] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    job: Job | None = None
    paired: bool = True
    catalogue: Catalogue | None = None

    @property
    def recipe(self) -> str:
        """What it shares with runs of other seeds."""
        return self.name if self.job is None else self.job.recipe

    @cached_property
    def judgement(self) -> Judgement:
        """What its results say, by its own stop rule. What W&B keeps is not judged anew: its verdict stands."""
        last = self.results[-1]
        if not self.paired:
            best = max(range(len(self.results)), key=lambda index: self.results[index].ais)
            return Judgement(
                verdict=last.verdict, message=last.message, stop=False, reason="", best=best, gain_z=last.gain_z
            )
        rule = self.settings.get("rule")
        return judge(self.results, StopRule(**rule) if rule else None)

    @property
    def best(self) -> Snapshot:
        """Its snapshot with the highest AIS."""
        return self.results[self.judgement.best]

    @property
    def movers(self) -> list[Mover]:
        """Items whose gain rose or fell most from the first snapshot to the best; none where items are not known."""
        return [] if self.catalogue is None else movers(self.results[0], self.best, self.catalogue)


def find_runs(paths: Iterable[str | Path]) -> list[RecordedRun]:
    """Return all runs in folders, by their records; a W&B run without a record is read from W&B's offline file.

    Args:
        paths: Folders, which are searched through and through, and files: ``record*.jsonl`` or ``run-*.wandb``.

    Returns:
        Runs with at least one snapshot, in the order of their paths.

    Raises:
        ConfigError: If a path does not exist, or there is no run in any.
        RecordError: If a file that was named cannot be read. In a folder, damaged ones are passed over with a warning.
    """
    given = [Path(path).expanduser() for path in paths]
    for path in given:
        if not path.exists():
            raise ConfigError(f"{path} does not exist. Name a folder of runs, a record.jsonl or a run-*.wandb.")
    found: dict[Path, RecordedRun] = {}
    problems: list[str] = []
    for path in given:
        for file in [path] if path.is_file() else _files_in(path):
            try:
                run = _read(file)
            except LisError as error:
                if file == path:
                    raise
                problems.append(str(error))
                continue
            if run is not None:
                found.setdefault(file.resolve(), run)
    if not found:
        reasons = "".join(f"\n{problem}" for problem in problems)
        raise ConfigError(
            f"There is no run with a snapshot in {', '.join(map(str, given))}. A run has a record.jsonl where its "
            f"LISMonitor wrote it (`dirpath`, or the first logger's folder), or W&B's run-*.wandb.{reasons}"
        )
    for problem in problems:
        warnings.warn(f"Passed over: {problem}", LisWarning, stacklevel=2)
    return _named(list(found.values()))


def recorded_run(record: Path | None, results: Sequence[Snapshot]) -> RecordedRun:
    """Return the run of a record; where the disk refused one, what is known without it.

    Args:
        record: The file; None where there is none.
        results: The snapshots, by step.
    """
    run = None if record is None else _read(record)
    return run or RecordedRun(name="run", path=record or Path("no record"), results=results)


def _files_in(folder: Path) -> list[Path]:
    """Return the records below a folder, and the W&B files of runs that have none."""
    records = sorted(folder.rglob("record*.jsonl"))
    offline = [
        file
        for file in sorted(folder.rglob("run-*.wandb"))
        if not any(file.is_relative_to(record.parent) for record in records)
    ]
    return [*records, *offline]


def _read(file: Path) -> RecordedRun | None:
    """Return the run of a file; None where it has no snapshot yet, or nothing of ours."""
    if file.suffix == ".wandb":
        logged = read_offline(file)
        if not logged.results:
            return None
        return RecordedRun(
            name=logged.name or file.stem, path=file, results=logged.results, split=logged.split, paired=False,
            ended=logged.ended,
        )  # fmt: skip
    found = Record.contents(file)  # once: a run that trains goes on writing
    if not found.results:
        return None
    statuses = found.statuses
    return RecordedRun(
        name=file.parent.name,
        path=file,
        results=found.results,
        split=found.header["split"],
        settings=found.header["config"],
        overrides=_overrides(file.parent),
        failures=[_failure(status) for status in statuses if status["kind"] == "failure"],
        ended=bool(statuses) and statuses[-1]["kind"] == "end",
        times=found.times,
        versions=found.header["versions"],
        job=Job.read(file.parent) if (file.parent / JOB_FILE).is_file() else None,
        catalogue=_catalogue(file),
    )


def _failure(status: Mapping[str, Any]) -> str:
    said = {key: value for key, value in status.items() if key not in {"kind", "time"}}
    return ", ".join(f"{key} {value}" for key, value in said.items())


def _overrides(folder: Path) -> list[str]:
    """Return what Hydra was told, where it ran the job."""
    from omegaconf import OmegaConf

    with contextlib.suppress(OSError, ValueError):
        return [str(one) for one in OmegaConf.load(folder / ".hydra" / "overrides.yaml")]
    return []


def _catalogue(record: Path) -> Catalogue | None:
    """Return the items beside a record, or None: a page is better without movers than not at all."""
    path = Catalogue.beside(record)
    with contextlib.suppress(OSError, pl.exceptions.PolarsError, LisError):
        return Catalogue.read(path)
    return None


def _named(runs: list[RecordedRun]) -> list[RecordedRun]:
    """Return the runs with names that tell them apart: as much of their folders as it takes."""

    def name(run: RecordedRun, depth: int) -> str:
        if run.job is not None and depth == 0:
            return f"{run.recipe} seed {run.job.seed}"
        folders = run.path.parent.resolve().parts[-1 - depth :]
        stem = run.path.stem.removeprefix("record").strip("-")
        return "/".join(folders) + (f" {stem}" if stem and run.path.suffix == ".jsonl" else "")

    for depth in range(8):
        names = [run.name if run.path.suffix == ".wandb" and depth == 0 else name(run, depth) for run in runs]
        if len(set(names)) == len(names):
            break
    else:
        names = [str(run.path) for run in runs]
    return [replace(run, name=said) for run, said in zip(runs, names, strict=True)]


def same_split(runs: Sequence[RecordedRun]) -> list[RecordedRun]:
    """Return the runs that can be paired with the first that can: those with a record on its split."""
    able = [run for run in runs if run.paired]
    return [run for run in able if run.best.split_hash == able[0].best.split_hash]
