"""Both built-in ceilings on a log of the size of MovieLens-100K."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from lis_lightning import PreferenceSplit
from lis_lightning.align.world import simulate_world
from lis_lightning.scoring.cache import SplitCache
from lis_lightning.scoring.ceiling import _measure
from lis_lightning.scoring.preferences import as_preference
from lis_lightning.scoring.scorer import Scorer
from tests.benchmarks.row import Row, best_times

SIZE = {"num_users": 943, "num_items": 1682, "num_events": 100_000}


def rows() -> Iterator[Row]:
    """Yield seconds of the ceilings of pairs and of ids, with and without the future; the base is known already."""
    what = "MovieLens-100K" if "LIS_DATA" in os.environ else "a generated log of 100 K events"
    split = (
        _movielens()
        if "LIS_DATA" in os.environ
        else PreferenceSplit.from_log(simulate_world(**SIZE)[0], label="clicked")
    )
    _ = Scorer(split).base_ranker
    # Not `ceiling`, which computes once for the content of a split.
    cache = SplitCache(split, "off")
    kinds = [as_preference(kind) for kind in ("pairs", "ids")]
    seconds = best_times(*(lambda kind=kind: _measure(cache, kind, kind.match(split)) for kind in kinds))
    yield Row(what=f"ceilings of pairs and ids, K = 5, {what}", ours=sum(seconds), kind="limit", bar=3)


def _movielens() -> PreferenceSplit:
    folder = Path(os.environ["LIS_DATA"]) / "ml100k_mm"
    return PreferenceSplit.from_log(folder / "interactions.parquet", label=("rating", 4))


if __name__ == "__main__":
    sys.exit("run `python -m tests.benchmarks --only ceilings`")
