"""The metric's update against a bare ``index_add_`` of the same rows, and against copying the bytes it must move."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl
import torch

from lis_lightning import LeakageImpactScore, PreferenceSplit
from tests.benchmarks.row import Row, best_times

NUM_ITEMS, DIM, BATCH = 20_000, 1024, 512


def rows() -> Iterator[Row]:
    """Yield one pass over 20 000 items of 1024 numbers, in shuffled batches of 512, by the type of what comes in."""
    metric = LeakageImpactScore(_split())
    order = torch.randperm(NUM_ITEMS, generator=torch.Generator().manual_seed(0))
    index = torch.from_numpy(metric.split.item_rows(order.numpy()))
    total = torch.zeros(NUM_ITEMS, DIM, dtype=torch.float64)
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        vectors = torch.randn(NUM_ITEMS, DIM).to(dtype)
        batches = list(zip(order.split(BATCH), index.split(BATCH), vectors.split(BATCH), strict=True))
        wide = vectors.double()

        def ours(batches: list = batches) -> None:
            for item_ids, _, embeddings in batches:
                metric.update(item_ids, embeddings)

        def floor(batches: list = batches) -> None:
            for _, at, embeddings in batches:
                total.index_add_(0, at, embeddings.double())

        def copies(wide: torch.Tensor = wide) -> None:  # a sum is read and written, what is added is read
            total.copy_(wide)
            total.copy_(wide)

        metric.reset()
        ours()  # allocates the sums
        times = best_times(ours, floor, copies, repeats=7)
        what = f"update, 2e4 items x {DIM}, {str(dtype).removeprefix('torch.')}"
        # It reads what comes twice (once to see that it is finite): 1.3 times the bytes of the two copies.
        yield Row(what=what, ours=times[0], other=times[2], against="copying the sums twice", bar=2)
        yield Row(what=what, ours=times[0], other=times[1], against="bare index_add_ in float64")


def _split() -> PreferenceSplit:
    rng = np.random.default_rng(0)
    items = np.concatenate([rng.permutation(NUM_ITEMS) for _ in range(4)])  # each item stands in each window
    table = {
        "user_id": np.arange(items.size) % 1000,
        "item_id": items,
        "timestamp": np.arange(items.size),
        "label": rng.integers(0, 2, items.size),
    }
    return PreferenceSplit.from_log(pl.DataFrame(table), max_events=None)
