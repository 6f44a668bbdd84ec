"""Negatives of other processes: two real ones, over gloo."""

import torch
import torch.multiprocessing as mp

from lis_lightning.align.objectives import PairContrastive
from lis_lightning.functional.contrastive import info_nce

ROWS = [torch.tensor([3, 8, 9, 20]), torch.tensor([5, 7, 3, 30])]  # of the item table


def drawn(rank):
    return torch.randn(4, 3, generator=torch.Generator().manual_seed(rank), dtype=torch.float64)


def batch(rank):
    known = torch.zeros(2, 2, dtype=torch.bool)
    return {"rows": ROWS[rank], "anchor": torch.tensor([0, 1]), "positive": torch.tensor([2, 3]), "known": known}


def work(rank, store, folder):
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    rows = drawn(rank).requires_grad_()
    loss = PairContrastive(across_devices=True).loss(rows, batch(rank))
    loss.backward()
    torch.save((loss.detach(), rows.grad), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_items_of_other_processes_are_negatives_and_learn_from_it(tmp_path):
    mp.spawn(work, args=(tmp_path / "store", tmp_path), nprocs=2)
    rows = [drawn(rank).requires_grad_() for rank in range(2)]
    losses = []
    for rank in range(2):
        own, other = rows[rank], rows[1 - rank]
        # Item 3 is an anchor here and a partner there: no negative of itself.
        hidden = ROWS[rank][:2, None] == ROWS[1 - rank][2:]
        losses.append(info_nce(own[:2], own[2:], PairContrastive().temperature.value, None, other[2:], hidden))
    torch.stack(losses).sum().backward()
    for rank in range(2):
        loss, gradient = torch.load(tmp_path / f"{rank}.pt")
        torch.testing.assert_close(loss, losses[rank].detach())
        torch.testing.assert_close(gradient, rows[rank].grad)
