"""Encoding does not disturb the training: modes, random states and compiled modules are restored."""

from __future__ import annotations

import contextlib
import random

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torchmetrics import CatMetric, MeanMetric

from lis_lightning.errors import ConfigError
from lis_lightning.monitor.isolation import check_initialized, undisturbed


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


class Writing(pl.LightningModule):
    """A forward that writes wherever it can, in evaluation too."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))
        self.register_buffer("queue", torch.zeros(4))
        self.register_buffer("count", torch.tensor(0))
        self.register_buffer("history", torch.zeros(1))
        self.register_buffer("not_a_number", torch.tensor(torch.nan))
        self.register_buffer("cache", torch.zeros(1), persistent=False)
        self.inner = nn.BatchNorm1d(2)
        self.mean, self.seen = MeanMetric(), CatMetric()

    def forward(self, x):
        self.queue[int(self.count) % 4] = 1.0
        self.count += 1
        self.history = torch.cat([self.history, torch.ones(1)])
        self.cache = torch.ones(5)
        self.inner.train()(x)
        self.mean.update(x.sum())
        self.seen.update(x.sum())
        self.log("encoded", 1.0)
        self.log_dict({"too": 1.0})
        return self.weight * x


@pytest.mark.parametrize("fails", [False, True], ids=["returns", "raises"])
def test_buffers_and_metrics_are_restored_and_nothing_is_logged(fails):
    module = Writing()
    module.mean.update(3.0)
    module.seen.update(3.0)
    before = {name: buffer.clone() for name, buffer in module.named_buffers()}
    objects = dict(module.named_buffers())
    with contextlib.suppress(KeyError), undisturbed(module):
        module(torch.arange(4.0).reshape(2, 2))
        if fails:
            raise KeyError
    after = dict(module.named_buffers())
    assert after.pop("cache").tolist() == [1.0] * 5, "a cache that grew stays, as what knows of its size does"
    for name, buffer in after.items():
        assert torch.equal(torch.nan_to_num(buffer), torch.nan_to_num(before[name])), name
        assert buffer is objects[name]
    assert (float(module.mean.compute()), module.seen.compute().tolist()) == (3.0, 3.0)
    assert "log" not in vars(module)


def test_buffers_that_did_not_change_stay_usable_in_a_graph():
    module = nn.BatchNorm1d(2).eval()
    weighted = (torch.ones(2, requires_grad=True) * module.running_var).sum()
    with undisturbed(module):
        module(torch.ones(3, 2))
    weighted.backward()


def test_uninitialised_parameters_are_named():
    module = nn.Sequential(nn.Linear(2, 3), nn.LazyLinear(4))
    with pytest.raises(ConfigError, match=r"uninitialised parameter '1\.weight'.*configure_model"):
        check_initialized(module)
    module(torch.ones(1, 2))
    check_initialized(module)
