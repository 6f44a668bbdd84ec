"""The past of a run: a little in each checkpoint, the rest in its record; and the two made to agree.

A result holds a number for each user, and a curve of hundreds of them would outgrow the checkpoint of a small model. A
checkpoint keeps every number that is logged, and the users' numbers only of those results that the stop rule will look
at again; :func:`recovered` reads the others back from the record, to the bit.
"""

from __future__ import annotations

import dataclasses
import math
import uuid
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor

from lis_lightning.data.split import PreferenceSplit
from lis_lightning.errors import LisWarning, RecordError
from lis_lightning.monitor.storage import Retention, Store
from lis_lightning.results import record
from lis_lightning.results.movers import Catalogue, Mover, movers
from lis_lightning.results.record import FILENAME, Record
from lis_lightning.results.result import LISResult
from lis_lightning.results.snapshot import Snapshot
from lis_lightning.results.stopping import Judgement, StopRule, judge
from lis_lightning.scoring.scorer import Scorer

NO_USERS = NO_ITEMS = np.zeros(0)
AnyResult = TypeVar("AnyResult", bound=LISResult)


class RunHistory:
    """The results of one run and its record, which may come into being late, fail, or be found again.

    Snapshots on disk lie beside the record, in a folder that is named like it.

    Args:
        name: Of the monitor.
        retention: Which snapshots to keep on disk; None keeps none.
        catalogue: How its items are shown.

    Attributes:
        results: The results so far, by step.
        run_id: Names the run, through all its resumes.
        record: The record, on the process that writes it; None before :meth:`open`.
    """

    def __init__(
        self, name: str | None = None, retention: Retention | None = None, catalogue: Catalogue | None = None
    ) -> None:
        self.results: list[Snapshot] = []
        self.run_id = uuid.uuid4().hex
        self.record: Record | None = None
        self._stem = Path(FILENAME).stem + (f"-{name}" if name else "")
        self._retention = retention
        self._catalogue = catalogue
        self._checkpointed: set[int] = set()
        self._checkpoint_record: Path | None = None

    def state(self, patience: int) -> dict[str, Any]:
        """Return what a checkpoint keeps, in plain values; see :func:`packed`."""
        path = None if self.record is None else str(self.record.path.absolute())
        return {"run_id": self.run_id, "record": path, "results": packed(self.results, patience)}

    def load(self, state: Mapping[str, Any], evaluator: Mapping[str, Any]) -> bool:
        """Take over what :meth:`state` returned, unless (with a warning) its results were measured otherwise.

        Args:
            state: The state of a checkpoint, with ``evaluator`` beside what :meth:`state` returns.
            evaluator: What makes the results of this run comparable, in plain values.

        Returns:
            Whether the run goes on from there.
        """
        if differs := changed(state["evaluator"], evaluator):
            rank_zero_warn(
                f"LISMonitor: the checkpoint's curve was measured otherwise: {differs}. Its snapshots stay in "
                f"{state['record']}; a new curve and a new record start here.",
                category=LisWarning,
            )
            return False
        self.run_id = state["run_id"]
        self.results[:] = record.unpack(state["results"])
        self._checkpoint_record = state["record"] and Path(state["record"])
        self.protect_checkpointed()
        return True

    def recover(self, folder: Path) -> None:
        """Complete the results of a checkpoint from the run's record in a folder, or where the checkpoint says."""
        self.results[:] = recovered(self.results, Record.find(folder, self.run_id) or self._checkpoint_record)

    def write(self, folder: Path, scorer: Scorer, config: Mapping[str, Any]) -> None:
        """Make the disk hold what the run holds: its newest result, and those that the disk refused before.

        Args:
            folder: Where the record lies, or will lie.
            scorer: What the results are measured by.
            config: Plain values that describe how the run is monitored.

        Raises:
            RecordError: If the record cannot be read or written.
        """
        if self.record is None:
            self.record = self._open(folder, scorer, config)
            if self._catalogue is not None:
                self._catalogue.write(Catalogue.beside(self.record.path))
        known = set(self.record.steps)
        for result in self.results:
            if result.step not in known:
                self.record.append(result)

        store = self._store
        if store is not None:
            store.prune(self.results, self.best_step, self._checkpointed)

    def save_embeddings(self, split: PreferenceSplit, result: Snapshot, embeddings: Tensor, model: type) -> None:
        """Put a snapshot on disk, if it is one to keep and there is a record to keep it by.

        Args:
            split: The split it was scored on.
            result: Its score, with its step; not yet among the results.
            embeddings: The representations, rows as ``split.item_ids``.
            model: Class of the module.

        Raises:
            OSError: If the disk refuses.
            ConfigError: If the precision cannot hold the representations.
        """
        store = self._store
        best = math.isfinite(result.ais) and all(not one.ais >= result.ais for one in self.results)
        if store is not None and (store.retention.keep != "best" or best):
            about = {"model": f"{model.__module__}.{model.__qualname__}", "run_id": self.run_id}
            store.write(embeddings, split, result, about)

    def protect_checkpointed(self) -> None:
        """Keep the snapshots wanted now until the next checkpoint: a run that is killed goes on from this one."""
        if self._retention is not None:
            self._checkpointed = self._retention.wanted(self.results, self.best_step)

    @property
    def _store(self) -> Store | None:
        if self._retention is None or self.record is None:
            return None
        path = self.record.path
        return Store(path.with_name(path.stem.replace("record", "snapshots", 1)), self._retention)

    @property
    def best(self) -> Snapshot | None:
        """The result with the highest AIS; the first if none has one, None if there is none."""
        scored = [result for result in self.results if math.isfinite(result.ais)]
        return max(scored or self.results[:1], key=lambda result: result.ais, default=None)

    @property
    def best_step(self) -> int | None:
        """Step of the best result."""
        return None if self.best is None else self.best.step

    @property
    def movers(self) -> list[Mover]:
        """The items whose gain rose or fell most from the first result to the best; none where they are not known."""
        if self._catalogue is None or self.best is None:
            return []
        return movers(self.results[0], self.best, self._catalogue)

    @property
    def best_file(self) -> Path | None:
        """The file of the best result's representations, if it is on disk."""
        path = None if self._store is None or self.best_step is None else self._store.path(self.best_step)
        return path if path is not None and path.exists() else None

    def end(self, cut_short_by: str | None) -> None:
        """Close the record, if there is one.

        Args:
            cut_short_by: Kind of the error that ended the run; None where it reached its end.

        Raises:
            RecordError: If the disk refuses.
        """
        if self.record is not None:
            verdict = self.results[-1].verdict
            self.record.status("end", best_step=self.best_step, verdict=verdict, cut_short_by=cut_short_by)

    def record_failure(self, **failure: Any) -> None:
        """Record a failure, if there is a record.

        Raises:
            RecordError: If the disk refuses.
        """
        if self.record is not None:
            self.record.status("failure", **failure)

    def _open(self, folder: Path, scorer: Scorer, config: Mapping[str, Any]) -> Record:
        """Continue the run's record up to where it says the same, or start one under a name that is free."""
        path = Record.find(folder, self.run_id)
        if path is None:
            names = (f"{self._stem}-v{number}.jsonl" if number else f"{self._stem}.jsonl" for number in count())
            free = next(folder / name for name in names if not (folder / name).exists())
            facts = scorer.describe()
            return Record.create(free, run_id=self.run_id, split_hash=facts["hash"], split=facts, config=config)
        found = Record.open(path, split_hash=scorer.split.hash)
        recorded = {result.step: result for result in Record.read(path)[1]}
        kept = -1
        for result in self.results:
            if not _same(result, recorded.get(result.step)):
                break
            kept = result.step
        found.rewind(kept)  # the rest belongs to abandoned weights
        return found


def packed(results: Sequence[Snapshot], patience: int) -> list[str]:
    """Return results for a checkpoint: without the users' numbers where no later judgement reads them.

    What stays whole are the last `patience` results, the first one and the best before them, of each task.

    Args:
        results: The results of a run, by step.
        patience: How many of the last results the stop rule compares with the newest.
    """
    before = results[: max(len(results) - patience, 0)]
    whole = set(range(len(before), len(results)))
    for task in [None, *(results[-1].tasks if results else ())]:
        gains = [result.ais if task is None else result.tasks[task].ais for result in before]
        if gains and not np.isnan(gains).all():
            whole |= {int(np.nanargmax(gains)), int(np.flatnonzero(~np.isnan(gains))[0])}
    return record.pack(
        without_items(result) if index in whole else without_users(result) for index, result in enumerate(results)
    )


def without_users(result: AnyResult) -> AnyResult:
    """Return a result without what pairs it with others; its ceilings stay, as all results of a run share them."""
    return dataclasses.replace(
        without_items(result),
        influence=NO_USERS,
        tasks={name: without_users(task) for name, task in result.tasks.items()},
        periods=tuple(without_users(period) for period in result.periods),
    )


def without_items(result: AnyResult) -> AnyResult:
    """Return a result without the gains of single items, which no judgement reads."""
    tasks = {name: without_items(task) for name, task in result.tasks.items()}
    return dataclasses.replace(result, item_gains=NO_ITEMS, item_errors=NO_ITEMS, tasks=tasks)


def recovered(results: Sequence[Snapshot], path: Path | None) -> list[Snapshot]:
    """Return results of a checkpoint whole, where the record at `path` holds the same ones.

    Args:
        results: What :func:`packed` kept.
        path: The run's record; None, or one that is gone or damaged, changes nothing.
    """
    try:
        recorded = {} if path is None else {result.step: result for result in Record.read(path)[1]}
    except RecordError:
        return list(results)
    return [recorded[one.step] if _same(one, recorded.get(one.step)) else one for one in results]


def judge_result(past: Sequence[Snapshot], result: Snapshot, rule: StopRule) -> tuple[Judgement, Snapshot]:
    """Return what a run says so far, and its newest result with its verdict and those of its other tasks."""
    tasks = {}
    for name, task in result.tasks.items():
        before = [earlier.tasks[name] for earlier in past if name in earlier.tasks]
        tasks[name] = task.judged(judge([*before, task], rule), {})
    judgement = judge([*past, result], rule)
    return judgement, result.judged(judgement, tasks)


def changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return how two evaluators differ, in words; empty if they do not."""
    names = [name for name in now if before.get(name) != now[name]]
    return ", ".join(f"{name} {before.get(name)!r} became {now[name]!r}" for name in names)


def _same(one: Snapshot, other: Snapshot | None) -> bool:
    """Whether two results are of one snapshot: every number that is logged is the same, timings included."""
    return other is not None and {name: repr(value) for name, value in one.scalars().items()} == {
        name: repr(value) for name, value in other.scalars().items()
    }
