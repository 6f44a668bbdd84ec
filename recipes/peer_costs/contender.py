"""What the process of every contender does, in whatever environment: numpy and the standard library alone."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float32]


def peak() -> float:
    """Return the most memory that this process has had so far, in MiB."""
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak_bytes / (2**20 if sys.platform == "darwin" else 2**10)


def arrays(folder: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays that `prepare.py` left."""
    with np.load(folder / "arrays.npz") as file:
        return dict(file)


def serve(load: Callable[[str, Path], tuple[Callable[[Matrix], float], Matrix, float]]) -> None:
    """Answer for all runs: ``side.py WHAT FOLDER...``; each folder gets values, CPU seconds and memory.

    Args:
        load: Makes of what was asked for and a folder of `prepare.py` what gives a value of a snapshot, the snapshots
            [S, rows, dim], and the CPU seconds of all that is made once a run. What the process has when it has done
            so for the first run, imports and data, is no one's cost.
    """
    what, *folders = sys.argv[1:]
    before = None
    for folder in map(Path, folders):
        ask, snapshots, one_off = load(what, folder)
        before = peak() if before is None else before
        values, seconds = [], []
        for rows in snapshots:
            began = time.process_time()
            values.append(float(ask(rows)))
            seconds.append(time.process_time() - began)
        known = {"values": values, "seconds": seconds, "memory": peak() - before, "one_off": one_off}
        (folder / "answer.json").write_text(json.dumps(known))
