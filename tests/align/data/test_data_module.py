from __future__ import annotations

import numpy as np
import pytest
import torch

from lis_lightning.align.data import ExampleDataModule, Examples, hold_out, mix_bits
from lis_lightning.align.data.data_module import ExampleCollator, WeightedSampler
from lis_lightning.errors import ConfigError


class _Rows(torch.utils.data.Dataset):
    """Item k is the vector (k, k)."""

    def __init__(self, num_items: int) -> None:
        self.num_items = num_items

    def __len__(self) -> int:
        return self.num_items

    def __getitem__(self, row: int) -> dict:
        return {"item_id": row, "features": torch.full((2,), float(row))}


def _collate(rows: list[dict]) -> dict:
    return {"item_id": [row["item_id"] for row in rows], "features": torch.stack([row["features"] for row in rows])}


def _examples(number: int = 60, **options) -> Examples:
    rows = np.array([(i, i + 1 + k) for i in range(20) for k in range(20)], dtype=np.int64)[:number]
    held_out = hold_out(mix_bits(np.arange(number)), 0.05)
    return Examples({"anchor": rows[:, :1], "positive": rows[:, 1:]}, held_out, **options)


def _module(number: int = 60, *, examples: Examples | None = None, **options) -> ExampleDataModule:
    return ExampleDataModule(
        {"pairs": examples or _examples(number)}, _Rows(50), _collate, **{"batch_size": 8, **options}
    )


def _batches(loader):
    return [batch["pairs"] for batch, _, _ in loader]


def test_sampler_draws_by_weight():
    sampler = WeightedSampler(np.array([0.0, 1.0, 3.0]), 20_000, seed=0)
    drawn = np.bincount(list(sampler), minlength=3) / len(sampler)
    np.testing.assert_allclose(drawn, [0, 0.25, 0.75], atol=0.015)


def test_sampler_repeats_an_epoch_and_changes_with_it():
    sampler = WeightedSampler(np.ones(50), 50, seed=7)
    first = list(sampler)
    np.random.seed(0)
    torch.manual_seed(0)
    assert list(sampler) == first
    sampler.set_epoch(1)
    assert list(sampler) != first


def test_processes_share_the_draws_and_go_on_where_they_were():
    weights = np.arange(1.0, 11.0)
    alone = list(WeightedSampler(weights, 50, seed=3))
    shares = [list(WeightedSampler(weights, 50, seed=3, num_replicas=2, rank=rank)) for rank in range(2)]
    assert [draw for pair in zip(*shares, strict=True) for draw in pair] == alone
    resumed = WeightedSampler(weights, 50, seed=3, num_replicas=2, rank=1, skip=8)
    assert list(resumed) == shares[1][8:]
    assert len(list(resumed)) == len(resumed) == 25, "the next epoch is whole"


def test_a_batch_holds_each_item_once_and_marks_empty_places():
    rows = {"history": np.array([[4, 1, -1], [-1, -1, -1]]), "positive": np.array([[1], [7]])}
    given = Examples(rows, np.zeros(2, bool), extras=lambda chosen, held_out: {"held": torch.tensor([held_out])})
    batch = ExampleCollator(given, _Rows(10), _collate, held_out=True)([0, 1])
    assert batch["items"]["item_id"] == [1, 4, 7]
    assert batch["rows"].tolist() == [1, 4, 7]
    assert batch["history"].tolist() == [[1, 0, -1], [-1, -1, -1]]
    assert batch["positive"].tolist() == [0, 2]
    assert batch["held"].tolist() == [True]


def test_training_sees_no_held_out_example_and_validation_all():
    module = _module(200)
    given = module.examples["pairs"]
    pairs = np.concatenate([given.items["anchor"], given.items["positive"]], axis=1)
    held_out = set(map(tuple, pairs[given.held_out].tolist()))
    assert len(held_out) == 10

    def seen(loader):
        return [
            set(zip(*(batch["rows"][batch[role]].tolist() for role in ("anchor", "positive")), strict=True))
            for batch in _batches(loader)
        ]

    trained = seen(module.train_dataloader())
    assert len(trained) == 190 // 8
    assert held_out.isdisjoint(set.union(*trained))
    assert set.union(*seen(_module(200, batch_size=5).val_dataloader())) == held_out


def test_validation_keeps_a_single_short_batch():
    assert [len(batch["anchor"]) for batch in _batches(_module(60).val_dataloader())] == [3]


def test_loaders_leave_the_global_generator_alone():
    module = _module()
    state = torch.get_rng_state()
    first = [batch["items"]["item_id"] for batch in _batches(module.train_dataloader())]
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(5)
    assert [batch["items"]["item_id"] for batch in _batches(module.train_dataloader())] == first


def test_weights_say_how_often_an_example_is_drawn():
    weights = np.where(np.arange(200) == np.flatnonzero(~_examples(200).held_out)[0], 1000.0, 1.0)
    module = _module(examples=_examples(200, weights=weights))
    drawn = np.concatenate([batch["anchor"] for batch in _batches(module.train_dataloader())])
    assert np.bincount(drawn).max() > 0.6 * drawn.size


def test_objectives_are_drawn_side_by_side_until_the_longest_is_through():
    given = {"long": _examples(200), "short": _examples(30)}
    module = ExampleDataModule(given, _Rows(50), _collate, batch_size={"long": 10, "short": 4})
    batches = [batch for batch, _, _ in module.train_dataloader()]
    assert len(batches) == 19
    assert all(len(batch["long"]["anchor"]) == 10 and len(batch["short"]["anchor"]) == 4 for batch in batches)


def test_error_on_a_batch_larger_than_the_examples():
    with pytest.raises(ConfigError, match=r"`batch_size` of pairs is 64, and there are 57 examples .*\(3 more"):
        _module(60, batch_size=64)
