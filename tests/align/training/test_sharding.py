"""Layers spread over two real processes, over gloo, against DistributedDataParallel."""

from __future__ import annotations

import pytest
import torch
import torch.multiprocessing as mp
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_

from lis_lightning.align.training.sharding import average_replicated, clip_sharded, is_sharded, shard_layers
from lis_lightning.errors import ConfigError

MESH = ("data_parallel", "tensor_parallel")


class Network(nn.Module):
    """Layers between an embedding and a head, called by another method than `forward` too."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Linear(3, 4)
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))
        self.layers[0].bias.requires_grad_(False)
        self.head = nn.Linear(4, 2)
        self.spare = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return self.head(self.features(x)).square().sum()

    def features(self, x):
        states = self.embedding(x)
        for layer in self.layers:
            states = layer(states).tanh()
        return states


def work(rank, store, folder):
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(rank))
    plain = DistributedDataParallel(Network(), find_unused_parameters=True)
    plain(x).backward()
    clip_grad_norm_(plain.parameters(), 0.5)
    expected = {name: weight.grad for name, weight in plain.module.named_parameters() if weight.grad is not None}

    sharded = Network()
    shard_layers(sharded.layers, init_device_mesh("cpu", (2, 1), mesh_dim_names=MESH))
    sharded.features(x)
    sharded(x).backward()
    average_replicated(sharded)
    clip_sharded(sharded, 0.5)
    gradients = {name: weight.grad for name, weight in sharded.named_parameters() if weight.grad is not None}
    spread = {name for name, gradient in gradients.items() if is_sharded(gradient)}
    actual = {name: gradient.full_tensor() if name in spread else gradient for name, gradient in gradients.items()}
    message = ""
    try:
        shard_layers(Network().layers, init_device_mesh("cpu", (1, 2), mesh_dim_names=MESH))
    except ConfigError as error:
        message = str(error)
    torch.save((expected, actual, spread, message), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    mp.start_processes(work, args=(folder / "store", folder), nprocs=2, start_method="fork")
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def test_sharded_layers_and_replicated_parts_have_the_clipped_gradient_of_ddp(outcomes):
    for expected, actual, spread, _ in outcomes:
        assert spread == {"layers.0.weight", "layers.1.weight", "layers.1.bias"}
        assert actual.pop("spare") == 0, "no process reaches it"
        assert actual.keys() == expected.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(actual[name], gradient, atol=1e-6, rtol=1e-5, msg=name)


def test_error_on_tensor_parallelism(outcomes):
    for *_, message in outcomes:
        assert "tensor_parallel_size is 2; set data_parallel_size of the strategy to the number of devices" in message
