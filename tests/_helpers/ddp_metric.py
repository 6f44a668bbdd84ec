"""A metric on two processes, for test_metric.py: ``python ddp_metric.py FOLDER RANK``; each writes what passed."""

from __future__ import annotations

import json
import sys
import warnings
from datetime import timedelta
from pathlib import Path

import polars
import pytest
import torch
from torchmetrics.utilities.distributed import gather_all_tensors

from lis_lightning import LeakageImpactScore, PreferenceSplit
from lis_lightning.errors import ShapeError, SnapshotError

OPTIONS = {"ceilings": ()}


def make_split(num_items=20):
    generator = torch.Generator().manual_seed(0)
    size = 800
    users, items = (torch.randint(high, (size,), generator=generator).numpy() for high in (40, num_items))
    labels = torch.randint(2, (size,), generator=generator).numpy()
    log = polars.DataFrame({"user_id": users, "item_id": items, "timestamp": range(size), "label": labels})
    return PreferenceSplit.from_log(log)


SPLIT = make_split()
IDS = torch.from_numpy(SPLIT.item_ids)
BATCHES = torch.randn(4, SPLIT.num_items, 5, generator=torch.Generator().manual_seed(1))
HALF = SPLIT.num_items // 2


def metric(**options):
    return LeakageImpactScore(SPLIT, **OPTIONS, **options)


def expected(embeddings):
    return SPLIT.score(embeddings, placebo=False, **OPTIONS).scalars(more=False)


def same(got, want):
    assert set(got) == set(want)
    torch.testing.assert_close([got[name].item() for name in want], list(want.values()), rtol=0, atol=0, equal_nan=True)


def forward_in_turns(rank):
    """What torchmetrics' own tester does: batches go to the processes in turns, each called, all computed."""
    one = metric()
    for batch in BATCHES[rank::2]:
        same(one(IDS, batch), expected(batch))
    same(one.compute(), expected(BATCHES.double().mean(0).float()))
    assert one.sum.shape[1] == 5  # its own again
    assert one.count.unique().tolist() == [2]


def one_process_without_items(rank):
    one = metric()
    if rank == 0:
        one.update(IDS, BATCHES[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # compute before update, which is the point
        same(one.compute(), expected(BATCHES[0]))
        assert one.result().ais == one.compute()["ais"]
    assert one.sum.shape[1] == (5 if rank == 0 else 0)
    assert one.update_count == (rank == 0)


def halves_with_padding(rank):
    """Uneven shares, some items on both, other widths of numbers on each."""
    one = metric()
    rows = slice(0, HALF + 3) if rank == 0 else slice(HALF, None)
    one.update(IDS[rows], BATCHES[0][rows].double() if rank else BATCHES[0][rows])
    same(one.compute(), expected(BATCHES[0].double()))


def missing_items_fail_everywhere_and_can_be_added(rank):
    one = metric()
    one.update(IDS[2 * rank : 2 * rank + 2], BATCHES[0][2 * rank : 2 * rank + 2])
    for ask in (one.compute, one.result):
        with pytest.raises(SnapshotError, match=f"{SPLIT.num_items - 4} of {SPLIT.num_items}"):
            ask()
    assert one.count.sum() == 2
    one.update(IDS[4:], BATCHES[0][4:])
    same(one.compute(), expected(BATCHES[0]))


def nothing_anywhere(rank):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(SnapshotError, match="call `update` first"):
            metric().compute()


def widths_that_differ(rank):
    one = metric()
    one.update(IDS, torch.zeros(SPLIT.num_items, 3 + rank))
    with pytest.raises(ShapeError, match=r"got the widths \[3, 4\]"):
        one.compute()
    one.reset()
    one.update(IDS, BATCHES[0])
    same(one.compute(), expected(BATCHES[0]))


def splits_that_differ(rank):
    other = make_split(num_items=21) if rank else SPLIT
    one = LeakageImpactScore(other, **OPTIONS)
    one.update(other.item_ids, torch.zeros(other.num_items, 3))
    with pytest.raises(ShapeError, match="another split"):
        one.compute()


def without_sync(rank):
    one = metric(sync_on_compute=False)
    one.update(IDS, BATCHES[rank])
    same(one.compute(), expected(BATCHES[rank]))
    assert one.result().ais == one.compute()["ais"]


def sync_on_step(rank):
    one = metric(dist_sync_on_step=True)
    first, second = (slice(0, HALF), slice(HALF, None)) if rank == 0 else (slice(HALF, None), slice(0, HALF))
    same(one(IDS[first], BATCHES[0][first]), expected(BATCHES[0]))
    assert one(IDS[:2], BATCHES[1][:2]) == {}
    same(one(IDS[second], BATCHES[2][second]), expected(BATCHES[2]))
    want = torch.stack([BATCHES[0], BATCHES[2]]).double().mean(0)
    want[:2] = (BATCHES[0][:2].double() + 2 * BATCHES[1][:2].double() + BATCHES[2][:2].double()) / 4
    same(one.compute(), expected(want.float()))


def own_gather(rank):
    calls = []

    def gather(tensor, group=None):
        calls.append(tensor.shape)
        return gather_all_tensors(tensor, group)

    one = metric(dist_sync_fn=gather)
    one.update(IDS, BATCHES[rank])
    want = expected(BATCHES[:2].double().mean(0).float())
    same(one.compute(), want)
    assert one.result().ais == want["ais"]
    assert (SPLIT.num_items, 5) in calls


CHECKS = [
    forward_in_turns, one_process_without_items, halves_with_padding, missing_items_fail_everywhere_and_can_be_added,
    nothing_anywhere, widths_that_differ, splits_that_differ, without_sync, sync_on_step, own_gather,
]  # fmt: skip


def main(folder, rank):
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2, timeout=timedelta(seconds=120)
    )
    for check in CHECKS:
        check(rank)
    Path(folder, f"rank-{rank}.json").write_text(json.dumps([check.__name__ for check in CHECKS]))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
