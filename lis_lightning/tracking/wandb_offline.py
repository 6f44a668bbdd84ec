"""Reader of W&B's offline files, for runs without a record; it uses W&B's own command."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lis_lightning.errors import ConfigError, RecordError
from lis_lightning.functional.intervals import Z95
from lis_lightning.report.runs import RecordedRun
from lis_lightning.results.result import Ceiling, SliceEstimate
from lis_lightning.results.snapshot import Snapshot
from lis_lightning.results.verdict import VERDICTS

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
    rows: dict[int, dict[str, Any]] = {}
    split: dict[str, Any] = {}
    summary: dict[str, Any] = {}
    name, ended = "", False
    for record in _records(file):
        kind, body = record.get("type"), record.get(str(record.get("type")), {})
        if kind == "run":
            name = body.get("display_name") or body.get("run_id", "")
        elif kind == "config":
            split |= body.get("update", {}).get("lis", {})
        elif kind == "summary":
            summary |= body.get("update", {})
        elif kind == "exit":
            ended = True
        elif kind == "history" and f"{_PREFIX}ais" in (item := body.get("item", {})):
            rows[int(item[_STEP])] = item
    results = [_result(step, row) for step, row in sorted(rows.items())]
    if not results:
        return None
    message = str(summary.get(f"{_PREFIX}message", ""))
    results[-1] = replace(results[-1], message=message)
    return RecordedRun(name=name or file.stem, path=file, results=results, split=split, paired=False, ended=ended)


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


def _result(step: int, row: Mapping[str, Any]) -> Snapshot:
    """Rebuild a snapshot from its logged values."""
    values = {
        key.removeprefix(_PREFIX): float(value)
        for key, value in row.items()
        if key.startswith(_PREFIX) and isinstance(value, int | float | str)
    }
    ceilings, slices, companions = {}, {}, {}
    for key in values:
        low, high = values.get(f"{key}_low", math.nan), values.get(f"{key}_high", math.nan)
        if key.endswith(("_low", "_high")):
            continue
        if key.startswith("ceiling_"):
            ceilings[key.removeprefix("ceiling_")] = Ceiling(value=values[key], low=low, high=high)
        elif key.startswith("slice/"):
            se = (high - low) / (2 * Z95)
            slices[key.removeprefix("slice/")] = SliceEstimate(value=values[key], se=se, low=low, high=high)
        elif key.startswith("companion/"):
            companions[key.removeprefix("companion/")] = values[key]
    plain: dict[str, Any] = {
        name: values[name] for name in Snapshot.__dataclass_fields__ if name in values and name != "verdict"
    }
    verdict = VERDICTS[int(values.get("verdict", 0.0))]
    return Snapshot(**plain, ceilings=ceilings, slices=slices, companions=companions, verdict=verdict, step=step)
