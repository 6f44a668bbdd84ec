"""What W&B adds to a snapshot, offline: milliseconds on the training's thread, and bytes on the disk.

The results are those of one scoring on a real split, with all slices, ceilings and companions, logged over and over as
a run of ROUNDS snapshots would. A run with a CSV logger is the measure of what any logger costs.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import CSVLogger, WandbLogger
from score import made

from lis_lightning.results.snapshot import Snapshot
from lis_lightning.tracking import loggers as tracking
from lis_lightning.tracking.wandb_tables import redrawn
from tests.benchmarks.row import Row

ROUNDS = 200
BAR_MILLISECONDS, BAR_KILOBYTES = 50, 50


def rows() -> Iterator[Row]:
    """Yield time and size of a snapshot in W&B, of the panel among it, and of what is logged once at the end."""
    split, embeddings = made(5000, 500)
    result = split.score(embeddings)
    results = [Snapshot.of(result, step=step) for step in range(ROUNDS)]
    os.environ |= {"WANDB_SILENT": "true", "WANDB_MODE": "offline"}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("CACHE", "DATA", "CONFIG", "ARTIFACT"):
            os.environ[f"WANDB_{name}_DIR"] = folder
        wandb, csv = WandbLogger(project="lis", save_dir=folder, mode="offline"), CSVLogger(folder)
        tracking.start([wandb], split.describe())
        tracking.log_result([wandb], results[:1], results[0])  # imports plotly
        before = _bytes(folder)
        ours, other = _times(wandb, results), _times(csv, results)
        began = time.perf_counter()
        tracking.finish([wandb], results, results[0])
        end = time.perf_counter() - began
        wandb.experiment.finish()
        size = (_bytes(folder) - before) / ROUNDS
    drawn = [seconds for number, seconds in enumerate(ours, start=1) if redrawn(number)]
    plain = [seconds for number, seconds in enumerate(ours, start=1) if not redrawn(number)]
    what = f"of {ROUNDS} with {len(tracking.metrics(result))} keys, median"
    yield Row(
        what=f"W&B, a snapshot {what} of the {len(plain)} without a panel", ours=1e3 * statistics.median(plain),
        other=1e3 * statistics.median(other), against="CSVLogger", unit="ms",
    )  # fmt: skip
    yield Row(
        what=f"W&B, a snapshot {what} of the {len(drawn)} with a panel", ours=1e3 * statistics.median(drawn),
        kind="limit", unit="ms", bar=BAR_MILLISECONDS,
    )  # fmt: skip
    yield Row(
        what="W&B, on disk for a snapshot, panels and tables included", ours=size / 1e3, kind="limit", unit="kB",
        bar=BAR_KILOBYTES,
    )  # fmt: skip
    yield Row(what="W&B, tables and the last panel, once", ours=1e3 * end, unit="ms")


def _times(logger: Any, results: list[Snapshot]) -> list[float]:
    """Return the seconds that each snapshot of a run takes to log."""
    seconds = []
    for number in range(1, len(results) + 1):
        began = time.perf_counter()
        failures = tracking.log_result([logger], results[:number], results[0])
        seconds.append(time.perf_counter() - began)
        if failures:
            raise RuntimeError(failures[0])
    return seconds


def _bytes(folder: str) -> int:
    """Return the size of all files of W&B under a folder."""
    return sum(path.stat().st_size for path in Path(folder, "wandb").rglob("*") if path.is_file())


if __name__ == "__main__":
    sys.exit("run `python -m tests.benchmarks --only tracking`")
