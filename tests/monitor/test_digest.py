"""A raw snapshot that changes the module says so, with the first tensor; others say nothing."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from lis_lightning.errors import LisWarning
from lis_lightning.monitor import digest, isolation
from lis_lightning.monitor.digest import digests, first_change
from tests._helpers import small_run


@pytest.fixture(scope="module")
def split():
    return small_run.make_split()


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool]
)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (5, 7)])
def test_one_bit_changes_the_digest(dtype, shape):
    module = nn.Module()
    module.register_buffer("tensor", torch.zeros(shape).to(dtype))
    before = digests(module)
    assert digests(module) == before
    if module.tensor.numel():
        module.tensor.view(-1).view(torch.uint8)[0] ^= 1
        assert first_change(before, digests(module)) == "tensor"


def test_equal_and_opposite_changes_are_seen_by_the_digest_of_a_gpu():
    words = torch.zeros(64, dtype=torch.int32)
    changed = words.clone()
    changed[3], changed[40] = 1, -1
    assert digest._sum(words) == digest._sum(words.clone()) != digest._sum(changed)


def test_a_tensor_that_comes_or_goes_is_a_change():
    assert first_change({"a": 1}, {"a": 1, "b": 2}) == "b"
    assert first_change({"a": 1, "b": 2}, {"a": 1}) == "b"
    assert first_change({"a": 1}, {"a": 1}) is None


class Merging(small_run.Tower):
    """Merges an adapter into its weights for the encode and takes it out again, as LoRA does: that rounds."""

    def encode_items(self, batch):
        adapter = torch.full_like(self.net[0].weight, 10.0) / 3
        self.net[0].weight.data += adapter
        encoded = super().encode_items(batch)
        self.net[0].weight.data -= adapter
        return encoded


def test_weights_that_come_back_rounded_are_named_once(split, tmp_path):
    with pytest.warns(LisWarning, match=r"changed 'net.0.weight' of Merging.*not the same as without") as caught:
        small_run.fit(tmp_path, small_run.monitor_of(split), module=Merging(), steps=4)
    assert len([warning for warning in caught if warning.category is LisWarning]) == 1


class Large(small_run.Tower):
    """Counts in a buffer too large to be copied at every snapshot."""

    def __init__(self):
        super().__init__()
        self.register_buffer("counts", torch.zeros(100))

    def encode_items(self, batch):
        self.counts += 1
        return super().encode_items(batch)


def test_a_buffer_is_restored_or_named(split, tmp_path, monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("error", LisWarning)
        small_run.fit(tmp_path, small_run.monitor_of(split), module=Large(), steps=2)
    monkeypatch.setattr(isolation, "MAX_COPIED", 399)
    with pytest.warns(LisWarning, match="changed 'counts' of Large"):
        small_run.fit(tmp_path, small_run.monitor_of(split), module=Large(), steps=2)
