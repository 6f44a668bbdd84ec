"""Seconds and memory of a cut: parquet logs of 20 and 100 million events, and the audit of a CSV of 3 million.

Each is measured in a process of its own, from import to split, since peak memory belongs to a process. The logs are
generated: a tenth as many users as events, one item for a hundred events, popular ones first. They take 2 GB of disk.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from tests.benchmarks.row import Row

PART = 10_000_000  # events of a file
CUT = """
import json, resource, sys, time
began = time.perf_counter()
from lis_lightning import PreferenceSplit
PreferenceSplit.from_log(sys.argv[1], memory_limit=sys.argv[2] or None)
seconds = time.perf_counter() - began
"""
AUDIT = """
import json, resource, sys, time
began = time.perf_counter()
from lis_lightning.cli.audit import main
sys.argv = ["lis-audit", "data=log", f"data.log={sys.argv[1]}", f"out={sys.argv[1]}-audit"]
main()
seconds = time.perf_counter() - began
"""
USAGE = """
used = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({"s": seconds, "cpu": used.ru_utime + used.ru_stime, "GB": used.ru_maxrss * 1024 / 1e9}))
"""


def rows() -> Iterator[Row]:
    """Yield seconds and peak memory of each cut, and those of the audit."""
    with tempfile.TemporaryDirectory() as folder:
        large, middle, text = Path(folder) / "100M", Path(folder) / "20M", Path(folder) / "3M.csv"
        write_log(large, 100_000_000)
        write_log(middle, 20_000_000)
        made_log(3_000_000, seed=0).write_csv(text)
        yield from _cut(large, "100 M events of parquet", most_seconds=60, most_memory=2)
        yield from _cut(large, "100 M events of parquet, memory_limit=500MB", memory_limit="500MB")
        yield from _cut(middle, "20 M events of parquet", most_seconds=10)
        used = measured(AUDIT, str(text))
        yield Row(what="lis-audit of a CSV of 3 M events, CPU", ours=used["cpu"], kind="limit", bar=45)
        yield Row(what="lis-audit of a CSV of 3 M events", ours=used["GB"], kind="limit", bar=1.5, unit="GB")


def _cut(
    log: Path, what: str, *, memory_limit: str = "", most_seconds: float | None = None, most_memory: float | None = None
) -> Iterator[Row]:
    used = measured(CUT, str(log), memory_limit)
    yield Row(what=f"cut {what}", ours=used["s"], kind="limit", bar=most_seconds)
    yield Row(what=f"cut {what}, CPU", ours=used["cpu"], kind="limit")
    yield Row(what=f"cut {what}", ours=used["GB"], kind="limit", bar=most_memory, unit="GB")


def measured(script: str, *arguments: str) -> dict[str, float]:
    """Run a script in a process of its own, and return its wall-clock seconds, CPU seconds and peak memory."""
    command = [sys.executable, "-c", script + USAGE, *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    used: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return used


def write_log(folder: Path, num_events: int) -> None:
    """Write a log as parquet files of :data:`PART` events."""
    folder.mkdir()
    for part in range(num_events // PART):
        made_log(PART, seed=part, scale=num_events).write_parquet(folder / f"{part:02}.parquet")


def made_log(num_events: int, seed: int, scale: int | None = None) -> pl.DataFrame:
    """Return events whose numbers of users and items are those of a log of `scale` events."""
    rng = np.random.default_rng(seed)
    num_users, num_items = (scale or num_events) // 10, (scale or num_events) // 100
    user, item = rng.integers(0, num_users, num_events), (num_items * rng.random(num_events) ** 3).astype(np.int64)
    taste = 0.1 + 0.3 * ((7 * user + item) % 5 == 0)
    return pl.DataFrame(
        {
            "user_id": user,
            "item_id": item,
            "timestamp": rng.integers(1_700_000_000, 1_707_776_000, num_events),
            "label": (rng.random(num_events) < taste).astype(np.int8),
        }
    )
