"""Encoding does not disturb the training: modes, random states and compiled modules are restored."""

from __future__ import annotations

import random

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from lis_lightning.monitor.isolation import undisturbed


def everything_random():
    return torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random()


@pytest.mark.parametrize("fails", [False, True], ids=["returns", "raises"])
def test_modes_and_random_states_are_restored(fails):
    module = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2).eval(), nn.Sequential(nn.Dropout().eval(), nn.Dropout()))
    modes = [child.training for child in module.modules()]
    pl.seed_everything(3, verbose=False)
    expected = everything_random()
    pl.seed_everything(3, verbose=False)
    try:
        with undisturbed(module):
            assert not any(child.training for child in module.modules())
            assert not torch.is_grad_enabled()
            everything_random()
            module[2].train()
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert fails
    assert [child.training for child in module.modules()] == modes
    assert torch.is_grad_enabled()
    assert everything_random() == expected


def test_random_draws_inside_are_the_same_at_every_snapshot():
    drawn = []
    for seed in (1, 2):
        pl.seed_everything(seed, verbose=False)
        with undisturbed(nn.Identity()):
            drawn.append(everything_random())
    assert drawn[0] == drawn[1]


def test_an_overridden_train_is_not_called():
    class Merging(nn.Linear):
        """As LoRA layers that merge their weights on `eval()`."""

        def train(self, mode=True):
            raise AssertionError("merged")

    module = Merging(2, 2)
    with undisturbed(module):
        assert not module.training
    assert module.training


def test_representations_can_be_used_in_autograd_later():
    """Inference mode would leave tensors behind that a later backward refuses (a cached rotary table, say)."""

    class Caching(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.cache = nn.Parameter(torch.ones(2)), None

        def forward(self, x):
            self.cache = torch.arange(2.0) if self.cache is None else self.cache
            return x * self.weight * self.cache

    module = Caching()
    with undisturbed(module):
        module(torch.ones(2))
    module(torch.ones(2)).sum().backward()
    assert module.weight.grad.tolist() == [0.0, 1.0]


def test_compiled_modules_get_no_new_graphs():
    torch._dynamo.reset()
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    module = torch.compile(nn.Sequential(nn.Linear(3, 3), nn.Dropout()), backend=backend)
    module(torch.ones(4, 3))
    compiled = len(graphs)
    with undisturbed(module):
        module(torch.ones(9, 3))
    assert len(graphs) == compiled
    module(torch.ones(4, 3))
    assert len(graphs) == compiled
    module.eval()(torch.ones(9, 3))
    assert len(graphs) > compiled, "this is what is avoided"
