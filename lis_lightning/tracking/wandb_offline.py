"""Reader of W&B's offline files, for runs without a record; it uses W&B's own command."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from lis_lightning.errors import ConfigError, RecordError
from lis_lightning.functional.intervals import Z95
from lis_lightning.report.runs import RecordedRun
from lis_lightning.results.keys import number_name
from lis_lightning.results.result import Ceiling, LISResult, SliceEstimate
from lis_lightning.results.snapshot import Snapshot

_PREFIX = "lis/"
_STEP = "trainer/global_step"
_SECONDS = 120


def read_offline(file: Path) -> RecordedRun | None:
    """Read a ``run-*.wandb`` file; a truncated file gives the snapshots before the cut.

    Args:
        file: W&B's transaction log of the run.

    Returns:
        The run, without per-user values; None if no snapshot was logged to it.

    Raises:
        ConfigError: If the command ``wandb`` is not installed.
        RecordError: If it cannot read the file.

    Example:
        >>> try:
        ...     read_offline(Path("run-missing.wandb"))
        ... except RecordError as error:
        ...     print(str(error).partition(":")[0])
        run-missing.wandb cannot be read by `wandb leet inspect`
    """
    read = _Read()
    for record in _records(file):
        kind, body = str(record.get("type")), record.get(str(record.get("type")), {})
        if kind == "run":
            read.name = body.get("display_name") or body.get("run_id", "")
        elif kind == "config":
            read.split |= body.get("update", {}).get("lis", {})
        elif kind == "summary":
            read.add_summary(body.get("update", {}))
        elif kind == "history":
            read.add_history(body.get("item", {}))
        read.ended = read.ended or kind == "exit"
    if not read.rows:
        return None
    rows = read.complete_rows(file.parent / "files")
    results = [_snapshot(step, row) for step, row in sorted(rows.items())]
    return RecordedRun(
        name=read.name or file.stem, path=file, results=results, split=read.split, paired=False, ended=read.ended
    )


OFFLINE_READERS = {"run-*.wandb": read_offline}  # for `find_runs`


def _records(file: Path) -> list[dict[str, Any]]:
    command = shutil.which("wandb", path=str(Path(sys.executable).parent)) or shutil.which("wandb")
    if command is None:
        raise ConfigError(f"{file} is read by the command `wandb`, which is not on the PATH: pip install wandb.")
    try:
        process = subprocess.run(  # noqa: S603  # W&B's own reader, on a given file
            [command, "leet", "inspect", "--json", str(file)],
            capture_output=True, text=True, timeout=_SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise RecordError(f"`wandb leet inspect` did not read {file} within {_SECONDS} s.") from error
    lines = [line for line in process.stdout.splitlines() if line.startswith("{")]
    if not lines:
        reason = process.stderr.strip() or "it holds no records"
        raise RecordError(f"{file} cannot be read by `wandb leet inspect`: {reason}.")
    return [json.loads(line) for line in lines]


@dataclass
class _Read:
    """What the records of a file say, in their order.

    Attributes:
        name: Display name of the run.
        split: Facts of the split.
        rows: Numbers, verdict and message of each snapshot, by step.
        constants: Numbers that all snapshots share.
        table: Path of the table of all numbers, among the files of the run; empty before the end of the run.
        ended: Whether the run has ended.
    """

    name: str = ""
    split: dict[str, Any] = field(default_factory=dict)
    rows: dict[int, dict[str, Any]] = field(default_factory=dict)
    constants: dict[str, Any] = field(default_factory=dict)
    table: str = ""
    ended: bool = False

    def add_history(self, item: Mapping[str, Any]) -> None:
        """Take a logged row: the numbers of a snapshot, or the table."""
        if f"{_PREFIX}ais" in item:
            self.rows[int(item[_STEP])] = _named(item)
        self.table = item.get(f"{_PREFIX}snapshots.path", self.table)

    def add_summary(self, update: Mapping[str, Any]) -> None:
        """Take a change of the summary, which has constants, and the verdict of the snapshot logged before it."""
        values = _named(update)
        said: dict[str, Any] = {name: values[name] for name in ("verdict", "message") if name in values}
        if self.rows:
            self.rows[max(self.rows)] |= said
        constant = ("auc_base", "ceiling_")
        self.constants |= {name: value for name, value in values.items() if name.split("/")[-1].startswith(constant)}

    def complete_rows(self, files: Path) -> dict[int, dict[str, Any]]:
        """Return the rows with the constants, and with all numbers if the run has written its table."""
        rows = {step: self.constants | row for step, row in self.rows.items()}
        with contextlib.suppress(OSError, ValueError):
            table = json.loads((files / self.table).read_text(encoding="utf-8"))
            for cells in table["data"]:
                row = dict(zip(table["columns"], cells, strict=True))
                rows[row["step"]] = row | {**rows.get(row["step"], {}), **row}  # its order, and its last verdict
        return rows


def _named(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of our keys by the names of their numbers."""
    ours = {key.removeprefix(_PREFIX): value for key, value in item.items() if key.startswith(_PREFIX)}
    return {number_name(key): value for key, value in ours.items()}


def _snapshot(step: int, row: Mapping[str, Any]) -> Snapshot:
    """Rebuild a snapshot from the names and values of :meth:`LISResult.numbers`, and its verdict."""
    numbers = {name: _number(value) for name, value in row.items() if name not in {"step", "verdict", "message"}}
    return Snapshot(
        **_fields(Snapshot, numbers), step=step, verdict=row.get("verdict", "warming-up"),
        message=row.get("message", ""),
        tasks={name: _snapshot(step, part) for name, part in _parts(numbers, "task").items()},
        periods=tuple(LISResult(**_fields(LISResult, part)) for part in _parts(numbers, "period").values()),
    )  # fmt: skip


def _fields(cls: type, numbers: Mapping[str, float]) -> dict[str, Any]:
    """Return the fields of a result that its numbers tell."""
    ceilings, slices, companions = {}, {}, {}
    for name in numbers:
        value, low, high = (numbers.get(f"{name}{end}", math.nan) for end in ("", "_low", "_high"))
        if name.endswith(("_low", "_high")):
            continue
        if name.startswith("ceiling_"):
            ceilings[name.removeprefix("ceiling_")] = Ceiling(value=value, low=low, high=high)
        elif name.startswith("slice/"):
            se = (high - low) / (2 * Z95)
            slices[name.removeprefix("slice/")] = SliceEstimate(value=value, se=se, low=low, high=high)
        elif name.startswith("companion/"):
            companions[name.removeprefix("companion/")] = value
    unknown = dict.fromkeys(("ais_geometry", "auc_base", "auc"), math.nan)
    plain: dict[str, Any] = {spec.name: numbers[spec.name] for spec in fields(cls) if spec.name in numbers}
    return unknown | plain | {"ceilings": ceilings, "slices": slices, "companions": companions}


def _parts(numbers: Mapping[str, float], family: str) -> dict[str, dict[str, float]]:
    """Return the numbers of each task or period, by its name."""
    parts: dict[str, dict[str, float]] = {}
    for name, value in numbers.items():
        if name.startswith(f"{family}/"):
            _, part, inner = name.split("/", 2)
            parts.setdefault(part, {})[inner] = value
    return parts


def _number(value: Any) -> float:
    """Return a logged value as a float; files, texts and missing values are NaN."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan
