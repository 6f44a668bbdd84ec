"""Both built-in ceilings on a log of the size of MovieLens-100K."""

from __future__ import annotations

import gc
import math
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lis_lightning import PreferenceSplit
from lis_lightning.align.world import simulate_world
from lis_lightning.scoring.options import ScoreOptions
from lis_lightning.scoring.scorer import Scorer
from tests.benchmarks.row import Row

SIZE = {"num_users": 943, "num_items": 1682, "num_events": 100_000}


def rows() -> Iterator[Row]:
    """Yield seconds of a score with both ceilings, with and without the future, and the headroom; the base is known."""
    what = "MovieLens-100K" if "LIS_DATA" in os.environ else "a generated log of 100 K events"
    best = math.inf
    for _ in range(3):
        # A split of its own each time: what is computed once for a split lives as long as the split.
        split = _movielens() if "LIS_DATA" in os.environ else _generated()
        scorer = Scorer(split, cache_dir="off")
        _ = scorer.base_ranker
        vectors = np.random.default_rng(0).standard_normal((split.num_items, 64))
        began = time.perf_counter()
        scorer.score(vectors, ScoreOptions(placebo=False))
        best = min(best, time.perf_counter() - began)
        del split, scorer
        gc.collect()
    yield Row(what=f"score, ceilings of pairs and ids, and headroom, cold, {what}", ours=best, kind="limit", bar=3)


def _generated() -> PreferenceSplit:
    return PreferenceSplit.from_log(simulate_world(**SIZE)[0], label="clicked")


def _movielens() -> PreferenceSplit:
    folder = Path(os.environ["LIS_DATA"]) / "ml100k_mm"
    return PreferenceSplit.from_log(folder / "interactions.parquet", label=("rating", 4))


if __name__ == "__main__":
    sys.exit("run `python -m tests.benchmarks --only ceilings`")
