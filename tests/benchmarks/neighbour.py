"""CPU seconds of one score beside busy processes, as many as there are cores, against those of the score alone."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import torch

from lis_lightning.scoring.options import ScoreOptions
from lis_lightning.scoring.scorer import Scorer
from tests.benchmarks.row import Row
from tests.benchmarks.score import made

NUM_EVENTS, NUM_ITEMS = 50_000, 20_000
ROUNDS = 4


def rows() -> Iterator[Row]:
    """Yield CPU seconds and wall-clock seconds of a score beside busy processes; medians of a few rounds in turns."""
    split, vectors = made(NUM_EVENTS, NUM_ITEMS)
    scorer = Scorer(split)
    options = ScoreOptions(ceilings=(), placebo=False)
    scorer.score(vectors, options)
    alone, beside = [], []
    for _ in range(ROUNDS):
        alone.append(_seconds(lambda: scorer.score(vectors, options)))
        with busy_processes():
            beside.append(_seconds(lambda: scorer.score(vectors, options)))
    cores = os.cpu_count()
    what = f"score, {NUM_EVENTS // 1000} K x {NUM_ITEMS // 1000} K x 1024, {torch.get_num_threads()} threads, beside"
    for name, column, bar in (("CPU", 0, 2.5), ("wall-clock", 1, None)):
        ours, other = (sorted(pair[column] for pair in pairs)[ROUNDS // 2] for pairs in (beside, alone))
        yield Row(what=f"{what} {cores} busy processes: {name} time", ours=ours, other=other, against="alone", bar=bar)


@contextlib.contextmanager
def busy_processes() -> Iterator[None]:
    """Keep every core busy with a process of its own within the block."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        time.sleep(0.3)  # they have started
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _seconds(action: object) -> tuple[float, float]:
    """Return CPU seconds of this process and wall-clock seconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    action()  # type: ignore[operator]
    return time.process_time() - cpu, time.perf_counter() - wall


if __name__ == "__main__":
    sys.exit("run `python -m tests.benchmarks --only neighbour`")
