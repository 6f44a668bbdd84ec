"""History of a run: its results so far, their record on disk, and their state in a checkpoint.

A result holds a number per user, so a curve of hundreds of results would outgrow the checkpoint of a small model. A
checkpoint holds every logged number, but per-user numbers only for the results that the stop rule can compare again;
:func:`recovered` reads the others back from the record, bit for bit.
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
from lis_lightning.results import record_contents
from lis_lightning.results.movers import Catalogue, Mover, movers
from lis_lightning.results.reading import with_churn
from lis_lightning.results.record import FILENAME, Record
from lis_lightning.results.record_contents import RecordContents
from lis_lightning.results.result import LISResult
from lis_lightning.results.selection import corrected_best, simultaneous_band
from lis_lightning.results.snapshot import Snapshot
from lis_lightning.results.stopping import MIN_SNAPSHOTS, StopRule
from lis_lightning.results.verdict import Judgement, judge
from lis_lightning.scoring.scorer import Scorer

NO_USERS = NO_ITEMS = np.zeros(0)
MAX_COMPLETE = 16  # results with per-user numbers in a checkpoint, but for the first and the best
AnyResult = TypeVar("AnyResult", bound=LISResult)


class RunHistory:
    """The results of one run and its record, which is opened at the first write or continued after a resume.

    Snapshots on disk are stored next to the record, in a folder named after it.

    Args:
        name: Name of the monitor.
        retention: Which snapshots to keep on disk; None keeps none.
        catalogue: Titles and images of the items, for the table of movers; None computes no movers.

    Attributes:
        name: The same.
        results: The results so far, by step.
        run_id: Identifier of the run, the same after each resume.
        record: The record, on the process that writes it; None before the first :meth:`write`.
    """

    def __init__(
        self, name: str | None = None, retention: Retention | None = None, catalogue: Catalogue | None = None
    ) -> None:
        self.name = name
        self.results: list[Snapshot] = []
        self.run_id = uuid.uuid4().hex
        self.record: Record | None = None
        self._stem = Path(FILENAME).stem + (f"-{name}" if name else "")
        self._retention = retention
        self._catalogue = catalogue
        self._checkpointed: set[int] = set()
        self._checkpoint_record: Path | None = None

    def state(self, window: float) -> dict[str, Any]:
        """Return the state for a checkpoint, in plain values; see :func:`packed`."""
        path = None if self.record is None else str(self.record.path.absolute())
        return {"run_id": self.run_id, "record": path, "results": packed(self.results, window)}

    def load(self, state: Mapping[str, Any], evaluator: Mapping[str, Any]) -> bool:
        """Restore a saved state; if its results are not comparable with those of this run, warn and restore nothing.

        Args:
            state: What :meth:`state` returned, with the ``evaluator`` of that run added.
            evaluator: Settings of this run that make results comparable, in plain values.

        Returns:
            Whether the state was restored.
        """
        if differences := changed(state["evaluator"], evaluator):
            rank_zero_warn(
                f"LISMonitor: the checkpoint's curve was measured with other settings: {differences}. Its snapshots "
                f"stay in {state['record']}; a new curve and a new record start here.",
                category=LisWarning,
            )
            return False
        self.run_id = state["run_id"]
        self.results[:] = record_contents.unpack(state["results"])
        self._checkpoint_record = state["record"] and Path(state["record"])
        self.protect_checkpointed()
        return True

    def adopt(self, record: Record, contents: RecordContents, rule: StopRule) -> None:
        """Take over the run of a record that another process has written.

        Args:
            record: The record.
            contents: Its contents.
            rule: Stop rule that judges a run that has ended, as the process did.
        """
        self.record = record
        self.run_id = record.header["run_id"]
        self.results[:] = contents.results
        ends = [status for status in contents.statuses if status["kind"] == "end"]
        if self.results and ends and ends[-1]["cut_short_by"] is None:
            *past, last = self.results
            max_steps = record.header["config"].get("max_steps")
            self.results[-1] = judge_result(past, last, rule, max_steps, ended=True)[1]

    def recover(self, folder: Path) -> None:
        """Complete the results of a checkpoint from the run's record in `folder`, or at the path in the checkpoint."""
        self.results[:] = recovered(self.results, Record.find(folder, self.run_id) or self._checkpoint_record)

    def write(self, folder: Path, scorer: Scorer, config: Mapping[str, Any]) -> None:
        """Write the results that are not in the record yet, and delete snapshots that are no longer kept.

        Args:
            folder: Folder of the record.
            scorer: The scorer of the results; its description goes into a new record.
            config: Settings of the monitor, in plain values.

        Raises:
            RecordError: If the record cannot be read or written.
        """
        if self.record is None:
            self.record = self._open(folder, scorer, config)
            if self._catalogue is not None:
                self._catalogue.write(Catalogue.beside(self.record.path))
        recorded_steps = set(self.record.steps)
        for result in self.results:
            if result.step not in recorded_steps:
                self.record.append(result)

        store = self._store
        if store is not None:
            store.prune(self.results, self.best_step, self._checkpointed)

    def add_watched(self, values: Mapping[str, float]) -> None:
        """Add values of watched metrics to the newest result, and to its line in the record.

        Args:
            values: By key.

        Raises:
            RecordError: If the record cannot be written.
        """
        last = self.results[-1]
        self.results[-1] = dataclasses.replace(last, watched={**last.watched, **values})
        if self.record is not None and last.step in self.record.steps:
            self.record.add_watched(last.step, values)

    def save_embeddings(self, split: PreferenceSplit, result: Snapshot, embeddings: Tensor, model: type) -> None:
        """Write the representations of a snapshot to disk, if there is a record and the retention may keep them.

        Args:
            split: The split it was scored on.
            result: Its score, with its step; not yet among the results.
            embeddings: The representations, rows as ``split.item_ids``.
            model: Class of the module.

        Raises:
            OSError: If the file cannot be written.
            ConfigError: If the precision cannot hold the representations.
        """
        store = self._store
        # Not `<`: a NaN of an earlier result does not keep this one from being the best.
        best = math.isfinite(result.ais) and all(not earlier.ais >= result.ais for earlier in self.results)
        if store is not None and (store.retention.keep != "best" or best):
            about = {"model": f"{model.__module__}.{model.__qualname__}", "run_id": self.run_id}
            store.write(embeddings, split, result, about)

    def protect_checkpointed(self) -> None:
        """Keep the present snapshots on disk until the next checkpoint, as a killed run resumes from this one."""
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
        """The items whose gain rose or fell most from the first result to the best; empty without a catalogue."""
        if self._catalogue is None or self.best is None:
            return []
        return movers(self.results[0], self.best, self._catalogue)

    @property
    def best_file(self) -> Path | None:
        """The file of the best result's representations, if it is on disk."""
        path = None if self._store is None or self.best_step is None else self._store.path(self.best_step)
        return path if path is not None and path.exists() else None

    def end(self, cut_short_by: str | None) -> None:
        """Write the end of the run to the record, if there is one.

        Args:
            cut_short_by: Type of the exception that ended the run; None if it reached its end.

        Raises:
            RecordError: If the record cannot be written.
        """
        if self.record is None:
            return
        corrected, verdict = None, ""
        if self.results:
            best = corrected_best(self.results)
            corrected = {"value": best.value, "low": best.low, "high": best.high}
            verdict = self.results[-1].verdict
        self.record.status(
            "end", best_step=self.best_step, best_ais_corrected=corrected, verdict=verdict, cut_short_by=cut_short_by,
            band=self._band(),
        )  # fmt: skip

    def _band(self) -> dict[str, list[float]]:
        """Return the simultaneous 95 % band of AIS over all snapshots: steps, lower and upper ends."""
        band = simultaneous_band(self.results)
        return {
            "steps": [result.step for result in self.results],
            "low": [estimate.low for estimate in band],
            "high": [estimate.high for estimate in band],
        }

    def record_failure(self, **failure: Any) -> None:
        """Write a failure to the record, if there is one.

        Raises:
            RecordError: If the record cannot be written.
        """
        if self.record is not None:
            self.record.status("failure", **failure)

    def _open(self, folder: Path, scorer: Scorer, config: Mapping[str, Any]) -> Record:
        """Continue the run's record from the last result they share, or create one under an unused name."""
        path = Record.find(folder, self.run_id)
        if path is None:
            unused = folder / f"{self._stem}.jsonl"
            versions = count(1)
            while unused.exists():
                unused = folder / f"{self._stem}-v{next(versions)}.jsonl"
            facts = scorer.describe()
            return Record.create(unused, run_id=self.run_id, split_hash=facts["hash"], split=facts, config=config)
        continued = Record.open(path, split_hash=scorer.split.hash)
        recorded = {result.step: result for result in Record.read(path)[1]}
        last_shared = -1
        for result in self.results:
            if not _same(result, recorded.get(result.step)):
                break
            last_shared = result.step
        continued.rewind(last_shared)  # later results are of weights that the resume discards
        return continued


def packed(results: Sequence[Snapshot], window: float) -> list[str]:
    """Return results for a checkpoint, without per-user numbers where later judgements hardly need them.

    For each task, the results in the window of the stop rule, and the first and the best result before them, stay
    complete. Of a window with more than :data:`MAX_COMPLETE` results, as many are taken, evenly spaced.

    Args:
        results: The results of a run, by step.
        window: Share of the steps so far that the stop rule looks at.
    """
    start = (1 - window) * results[-1].step if results else 0.0
    num_recent = max(MIN_SNAPSHOTS, sum(result.step >= start for result in results))
    before = results[: max(len(results) - num_recent, 0)]
    recent = np.linspace(len(before), len(results) - 1, min(MAX_COMPLETE, len(results) - len(before)))
    whole = {round(index) for index in recent}
    for task in [None, *(results[-1].tasks if results else ())]:
        gains = _gains(before, task)
        if gains and not np.isnan(gains).all():
            whole |= {int(np.nanargmax(gains)), int(np.flatnonzero(~np.isnan(gains))[0])}
    reduced = []
    for index, result in enumerate(results):
        reduced.append(without_items(result) if index in whole else without_users(result))
    return record_contents.pack(reduced)


def _gains(results: Sequence[Snapshot], task: str | None) -> list[float]:
    """Return the AIS of a task, or of the first task if None, in each result."""
    if task is None:
        return [result.ais for result in results]
    return [result.tasks[task].ais for result in results]


def without_users(result: AnyResult) -> AnyResult:
    """Return a result without its per-user numbers; the ceilings stay, since all results of a run share them."""
    tasks = {name: without_users(task) for name, task in result.tasks.items()}
    periods = tuple(without_users(period) for period in result.periods)
    return dataclasses.replace(without_items(result), influence=NO_USERS, tasks=tasks, periods=periods)


def without_items(result: AnyResult) -> AnyResult:
    """Return a result without its per-item gains, which no judgement needs."""
    tasks = {name: without_items(task) for name, task in result.tasks.items()}
    return dataclasses.replace(result, item_gains=NO_ITEMS, item_errors=NO_ITEMS, tasks=tasks)


def recovered(results: Sequence[Snapshot], path: Path | None) -> list[Snapshot]:
    """Return the results of a checkpoint, completed from the record where it holds the same ones.

    Args:
        results: The results of the checkpoint, from :func:`packed`.
        path: The run's record; if None, missing or damaged, the results are returned as they are.
    """
    if path is None:
        return list(results)
    try:
        recorded = {result.step: result for result in Record.read(path)[1]}
    except RecordError:
        return list(results)
    return [_if_same(recorded.get(result.step), result) for result in results]


def judge_result(
    past: Sequence[Snapshot], result: Snapshot, rule: StopRule, max_steps: int | None, *, ended: bool = False
) -> tuple[Judgement, Snapshot]:
    """Return the judgement on a run, and its newest result with the verdicts of all its tasks filled in."""
    tasks = {}
    for name, task in result.tasks.items():
        before = [earlier.tasks[name] for earlier in past if name in earlier.tasks]
        tasks[name] = task.judged(judge([*before, task], rule, max_steps=max_steps, ended=ended), {})
    if past:
        reads = {name: with_churn(reading, past[-1].reads.get(name)) for name, reading in result.reads.items()}
        result = dataclasses.replace(result, reads=reads)
    judgement = judge([*past, result], rule, max_steps=max_steps, ended=ended)
    return judgement, result.judged(judgement, tasks)


def changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return the differences between two evaluators as text; empty if there are none."""
    names = [name for name in now if before.get(name) != now[name]]
    return ", ".join(f"{name} {before.get(name)!r} became {now[name]!r}" for name in names)


def _if_same(recorded: Snapshot | None, result: Snapshot) -> Snapshot:
    """Return the recorded result of a snapshot if it is the same, else `result`."""
    return recorded if recorded is not None and _same(result, recorded) else result


def _same(left: Snapshot, right: Snapshot | None) -> bool:
    """Return whether two results are of the same snapshot: all numbers are equal, timings included."""
    # By `repr`, since NaN does not equal itself.
    return right is not None and repr(sorted(left.numbers().items())) == repr(sorted(right.numbers().items()))
