"""Negatives of other processes: two real ones, over gloo."""

import pytest
import torch
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from lis_lightning.align.models import ItemEncoder
from lis_lightning.align.models.pretrained import projection_head
from lis_lightning.align.objectives import PairContrastive
from lis_lightning.align.training import AlignmentModule
from lis_lightning.functional.contrastive import info_nce

ROWS = [torch.tensor([3, 8, 9, 20]), torch.tensor([5, 7, 3, 30])]  # of the item table


def drawn(rank):
    return torch.randn(4, 3, generator=torch.Generator().manual_seed(rank), dtype=torch.float64)


def batch(rank):
    known = torch.zeros(2, 2, dtype=torch.bool)
    return {"rows": ROWS[rank], "anchor": torch.tensor([0, 1]), "positive": torch.tensor([2, 3]), "known": known}


class Encoder(ItemEncoder):
    """A backbone that encodes each item by itself, and a head with batch norm."""

    output_dim = 2

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 4, bias=False))
        self.head = projection_head(4, 2)

    def item_vectors(self, batch):
        return self.backbone(batch["x"])

    def represent(self, vectors, batches):
        return self.head(vectors)

    def forward(self, batch):
        return self.represent(self.item_vectors(batch), [batch])


class Step(nn.Module):
    """The loss of a training step, as the forward pass that DistributedDataParallel wraps."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.module = AlignmentModule(Encoder(), {"pairs": PairContrastive(across_devices=True)}).double()

    def forward(self, items, rank):
        losses, _ = self.module._losses({"pairs": {**batch(rank), "items": items}})
        return self.module._sum(losses)


def distributed_gradients(rank, items):
    step = DistributedDataParallel(Step())
    step(items, rank).backward()
    return {name: weight.grad for name, weight in step.named_parameters()}


def work(rank, store, folder):
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    rows = drawn(rank).requires_grad_()
    loss = PairContrastive(across_devices=True).loss(rows, batch(rank))
    loss.backward()
    whole = distributed_gradients(rank, {"x": drawn(rank)})
    # A different number of micro-batches in each process.
    parts = distributed_gradients(rank, [{"x": part} for part in drawn(rank).split(2 - rank)])
    torch.save((loss.detach(), rows.grad, whole, parts), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    # Forked processes need not import everything again, which takes ten times as long as the work.
    mp.start_processes(work, args=(folder / "store", folder), nprocs=2, start_method="fork")
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def test_items_of_other_processes_are_negatives_and_learn_from_it(outcomes):
    rows = [drawn(rank).requires_grad_() for rank in range(2)]
    losses = []
    for rank in range(2):
        own, other = rows[rank], rows[1 - rank]
        # Item 3 is an anchor here and a partner there: no negative of itself.
        hidden = ROWS[rank][:2, None] == ROWS[1 - rank][2:]
        losses.append(info_nce(own[:2], own[2:], PairContrastive().temperature.value, None, other[2:], hidden))
    torch.stack(losses).sum().backward()
    for rank in range(2):
        loss, gradient, *_ = outcomes[rank]
        torch.testing.assert_close(loss, losses[rank].detach())
        torch.testing.assert_close(gradient, rows[rank].grad)


def test_micro_batches_have_the_gradient_of_the_plain_step_with_negatives_of_all_processes(outcomes):
    for _, _, whole, parts in outcomes:
        assert len(whole) == 5
        for name, gradient in whole.items():
            assert gradient.abs().max() > 1e-4, name
            torch.testing.assert_close(parts[name], gradient, atol=1e-9, rtol=1e-9)
