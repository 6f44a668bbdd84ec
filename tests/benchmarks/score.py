"""One score against the matrix products it cannot do without, its memory, and what further readings cost."""

from __future__ import annotations

import multiprocessing
import resource
import sys
from collections.abc import Iterator
from functools import partial

import numpy as np
import polars as pl
import torch

from lis_lightning import PreferenceSplit
from lis_lightning.scoring.scorer import Scorer, score
from tests.benchmarks.row import Row, best_times

SIZES = ((50_000, 20_000), (1_000_000, 100_000))
DIM = 1024
AXES = 64
EVENTS_OF_A_USER = 200  # half of them in w1 and w2, so that histories are full


def rows() -> Iterator[Row]:
    """Yield time and memory of a score at both sizes; the ceilings and the base are computed once a split, not here."""
    for num_events, num_items in SIZES:
        what = f"score, {num_events // 1000} K events x {num_items // 1000} K items x {DIM}"
        with multiprocessing.get_context("spawn").Pool(1) as pool:  # a process of its own, for its peak of memory
            seconds, floor, extra = pool.apply(measured, (num_events, num_items, torch.get_num_threads()))
        yield Row(what=what, ours=seconds, other=floor, against="range finder over R + bilinear form", bar=3)
        limit = num_items * DIM * 4 / 2**30 + 1
        yield Row(what=f"{what}: memory beyond R", ours=extra, kind="limit", bar=limit, unit="GiB")
    yield from readings()


def readings() -> Iterator[Row]:
    """Yield the time of a score with readings against that of the score alone: codes and prefixes may double it."""
    split, vectors = made(*SIZES[0])
    for reads in (["cosine"], ["codes"], ["prefix"], ["codes", "prefix"]):
        ours, alone = best_times(
            partial(score, split, vectors, ceilings=(), placebo=False, reads=reads),
            partial(score, split, vectors, ceilings=(), placebo=False),
            repeats=3,
        )
        what = f"score with reads={reads}, 50 K events"
        yield Row(what=what, ours=ours, other=alone, against="score", bar=2)


def measured(num_events: int, num_items: int, threads: int) -> tuple[float, float, float]:
    """Return seconds of a score, seconds of its floor, and GiB that a score adds to the peak."""
    torch.set_num_threads(threads)
    split, vectors = made(num_events, num_items)
    _ = Scorer(split).base_ranker
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    score(split, vectors, ceilings=(), placebo=False)
    extra = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20  # kilobytes, on Linux
    generator = torch.Generator().manual_seed(1)
    sketch = torch.randn(DIM, 2 * AXES, generator=generator)
    profile, target = torch.randn(2, num_events, AXES, generator=generator)
    seconds, floor = best_times(
        lambda: score(split, vectors, ceilings=(), placebo=False),
        lambda: (vectors.T @ (vectors @ sketch), profile @ (profile.T @ target)),
        repeats=5 if num_events < 100_000 else 3,
    )
    return seconds, floor, extra


def made(num_events: int, num_items: int) -> tuple[PreferenceSplit, torch.Tensor]:
    """Return a split with `num_events` scored events, and vectors that tell a little of its labels."""
    rng = np.random.default_rng(0)
    num_rows = 2 * num_events
    taste, latents = rng.standard_normal((num_rows // EVENTS_OF_A_USER, 8)), rng.standard_normal((num_items, 8))
    user = np.repeat(np.arange(len(taste)), EVENTS_OF_A_USER)
    item = (num_items * rng.random(num_rows) ** 2).astype(np.int64)  # popular ones first
    logit = 0.5 * (taste[user] * latents[item]).sum(1) - 1
    log = pl.DataFrame(
        {
            "user_id": user,
            "item_id": item,
            "timestamp": rng.permutation(num_rows),
            "label": (rng.random(num_rows) < 1 / (1 + np.exp(-logit))).astype(np.int8),
        }
    )
    split = PreferenceSplit.from_log(log, max_events=None)
    known = torch.from_numpy(latents[split.item_ids]).float()
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(8, DIM, generator=generator)
    return split, torch.randn(split.num_items, DIM, generator=generator).add_(known @ mixing, alpha=0.5)


if __name__ == "__main__":
    sys.exit("run `python -m tests.benchmarks --only score`")
