"""Generators are found wherever a module, a dataset or a function keeps one, and set back."""

from __future__ import annotations

import contextlib
import functools
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, Subset, TensorDataset

from lis_lightning.monitor.generators import generators_restored, reachable_generators


class Holder:
    def __init__(self, **attributes):
        vars(self).update(attributes)

    def method(self):
        return self


class Dataset(TensorDataset):
    def __init__(self, noise):
        super().__init__(torch.ones(4))
        self.noise = noise


def module_with(**attributes):
    inner = nn.Linear(1, 1)
    vars(inner).update(attributes)
    return nn.Sequential(nn.Sequential(nn.Sequential(nn.Sequential(inner))))


def closure(noise):
    def collate(items):
        return noise, items

    return collate


def generator_of(kind):
    return {
        "torch": lambda: torch.Generator().manual_seed(1),
        "numpy": lambda: np.random.default_rng(1),
        "numpy, old": lambda: np.random.RandomState(1),
        "python": lambda: random.Random(1),
    }[kind]()


def draw(generator):
    if isinstance(generator, torch.Generator):
        return torch.rand(3, generator=generator).tolist()
    return generator.random()


@pytest.mark.parametrize("kind", ["torch", "numpy", "numpy, old", "python"])
def test_each_kind_is_set_back_also_after_an_error(kind):
    generator = generator_of(kind)
    expected = [draw(generator_of(kind))]
    with contextlib.suppress(KeyError), generators_restored(Holder(noise=generator)):
        draw(generator)
        raise KeyError
    assert [draw(generator)] == expected


HOLDERS = {
    "submodule": lambda noise: module_with(noise=noise),
    "object of a submodule": lambda noise: module_with(augment=Holder(transforms=[Holder(noise=noise)])),
    "dict": lambda noise: Holder(noises={"a": noise}),
    "dataset": Dataset,
    "subset of a concatenation": lambda noise: Subset(ConcatDataset([Dataset(noise)]), [0]),
    "loader of a subset": lambda noise: DataLoader(Subset(Dataset(noise), [0])),
    "loader": lambda noise: DataLoader(Dataset(None), shuffle=True, generator=noise),
    "partial": lambda noise: functools.partial(closure, noise=noise),
    "closure": closure,
    "method": lambda noise: Holder(noise=noise).method,
}


@pytest.mark.parametrize("holder", HOLDERS.values(), ids=HOLDERS)
def test_a_generator_is_found_in(holder):
    noise = torch.Generator()
    assert [found is noise for found in reachable_generators(holder(noise))] == [True]


def test_what_holds_data_or_the_training_is_not_entered():
    noise = torch.Generator()
    assert reachable_generators([noise] * 1000, module_with(_trainer=Holder(noise=noise)), noise.manual_seed) == []


def test_objects_that_refer_to_each_other_are_entered_once():
    first, second = Holder(noise=torch.Generator()), Holder()
    first.friend, second.friend = second, first
    assert len(reachable_generators(first, second)) == 1
