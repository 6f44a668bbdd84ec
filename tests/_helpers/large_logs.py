"""A log with everything that may differ between engines, and the comparison of its splits."""

from __future__ import annotations

import numpy as np
import polars as pl

from lis_lightning import PreferenceSplit


def big_log(num_events: int = 6000, seed: int = 0) -> pl.DataFrame:
    """Return a log with equal timestamps, text ids that sort unlike numbers, and popular items."""
    rng = np.random.default_rng(seed)
    user, item = rng.integers(0, 300, num_events), np.floor(80 * rng.random(num_events) ** 2).astype(int)
    seconds = 1_700_000_000 + rng.integers(0, 4000, num_events) * 600
    return pl.DataFrame(
        {
            "user_id": [f"ü{code}" for code in user],
            "item_id": item + 2**33,
            "timestamp": pl.Series(seconds * 1_000_000 + rng.integers(0, 3, num_events)).cast(pl.Datetime("us")),
            "clicked": (rng.random(num_events) < 0.4).astype(np.int8),
            "rating": rng.integers(1, 6, num_events),
            "event": np.where(rng.random(num_events) < 0.3, "buy", "view"),
            "surface": rng.choice(["home", "search", None], num_events).tolist(),
            "weight": rng.random(num_events),
        }
    )


def assert_equal_splits(left: PreferenceSplit, right: PreferenceSplit) -> None:
    assert left.num_logged == right.num_logged
    assert left.alignment.equals(right.alignment)
    for task, of_task in left.tasks.items():
        expected = of_task.periods or [of_task]
        actual = right.tasks[task].periods or [right.tasks[task]]
        for ours, theirs in zip(expected, actual, strict=True):
            assert ours.hash == theirs.hash
            assert ours.item_ids.tolist() == theirs.item_ids.tolist()
            assert ours.user_ids.tolist() == theirs.user_ids.tolist()
            assert ours.prior == theirs.prior
            assert list(ours.slices) == list(theirs.slices)
            assert all((ours.slices[name] == theirs.slices[name]).all() for name in ours.slices)
            np.testing.assert_array_equal(ours.events.by_item.count, theirs.events.by_item.count)
            np.testing.assert_array_equal(ours.events.by_item.positives, theirs.events.by_item.positives)
