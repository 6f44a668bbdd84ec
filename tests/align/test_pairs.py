from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lis_lightning.align.pairs import (
    KnownPairs,
    PairCollator,
    PairDataModule,
    PairDataset,
    WeightedPairSampler,
    co_engagement_pairs,
    held_out_pairs,
)
from lis_lightning.errors import ConfigError, LogError, ShapeError


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


def _module(num_pairs: int = 60, **options) -> PairDataModule:
    pairs = np.array([(i, i + 1 + k) for i in range(20) for k in range(20)], dtype=np.int64)[:num_pairs]
    return PairDataModule(pairs, np.arange(1, len(pairs) + 1), _Rows(50), _collate, **{"batch_size": 8, **options})


def _brute_force(events: list[tuple[int, int, int]], window: int) -> Counter:
    counts: Counter = Counter()
    for user in {user for user, _, _ in events}:
        own = sorted((time, item) for u, item, time in events if u == user)
        for i, (_, first) in enumerate(own):
            for _, second in own[i + 1 : i + 1 + window]:
                if first != second:
                    counts[min(first, second), max(first, second)] += 1
    return counts


@settings(max_examples=40, deadline=None)
@given(
    events=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6)), min_size=2, max_size=40),
    window=st.integers(1, 6),
    seed=st.integers(0, 1000),
)
def test_equals_brute_force(events, window, seed):
    times = np.random.default_rng(seed).permutation(len(events)).tolist()  # without ties the order is given
    log = [(user, item, time) for (user, item), time in zip(events, times, strict=True)]
    expected = _brute_force(log, window)
    if not expected:
        with pytest.raises(LogError, match=f"{len(events)} positive events"):
            co_engagement_pairs(*zip(*log, strict=True), window=window)
        return
    pairs, counts = co_engagement_pairs(*zip(*log, strict=True), window=window)
    assert dict(zip(map(tuple, pairs.tolist()), counts.tolist(), strict=True)) == expected
    assert pairs.tolist() == sorted(pairs.tolist())


def test_ties_do_not_depend_on_row_order():
    rng = np.random.default_rng(0)
    users, items, times = rng.integers(0, 5, 200), rng.integers(0, 40, 200), rng.integers(0, 3, 200)
    order = rng.permutation(200)
    pairs, counts = co_engagement_pairs(users, items, times, window=2)
    again, counts_again = co_engagement_pairs(users[order], items[order], times[order], window=2)
    np.testing.assert_array_equal(pairs, again)
    np.testing.assert_array_equal(counts, counts_again)


def test_ties_do_not_favour_neighbouring_item_numbers():
    users, items = np.repeat(np.arange(300), 20), np.tile(np.arange(20), 300)
    pairs, counts = co_engagement_pairs(users, items, np.zeros(len(users)), window=1)
    distance = np.repeat(pairs[:, 1] - pairs[:, 0], counts)
    assert distance.mean() == pytest.approx(7.0, abs=0.3)  # (n + 1) / 3 for random neighbours, 1 for sorted ones


def test_datetimes_order_events():
    times = np.array(["2024-01-03", "2024-01-01", "2024-01-02"], dtype="datetime64[s]")
    pairs, _ = co_engagement_pairs([0, 0, 0], [0, 1, 2], times, window=1)
    assert pairs.tolist() == [[0, 2], [1, 2]]


def test_a_million_events_take_seconds():
    rng = np.random.default_rng(1)
    users, items, times = rng.integers(0, 20_000, 10**6), rng.integers(0, 50_000, 10**6), rng.random(10**6)
    pairs, counts = co_engagement_pairs(users, items, times)
    assert counts.sum() == pytest.approx(5 * 10**6 - 20_000 * 15, rel=1e-3)
    assert pairs.max() < 50_000


def test_error_without_pairs_says_what_there_is():
    with pytest.raises(LogError, match=r"3 positive events of 2 users.*within 4 successive"):
        co_engagement_pairs([1, 1, 2], [5, 5, 6], [0, 1, 2], window=4)


def test_error_on_empty_window():
    with pytest.raises(LogError, match="0 positive events of 0 users"):
        co_engagement_pairs([], [], [])


def test_error_on_lengths():
    with pytest.raises(ShapeError, match=r"\(2,\), \(3,\), \(2,\)"):
        co_engagement_pairs([1, 1], [0, 1, 2], [0, 1])


def test_error_on_window():
    with pytest.raises(ConfigError, match="1 or more successive positives, but got 0"):
        co_engagement_pairs([1, 1], [0, 1], [0, 1], window=0)


def test_error_on_rows_that_are_no_rows():
    with pytest.raises(LogError, match=r"but got -3 to 1"):
        co_engagement_pairs([1, 1], [-3, 1], [0, 1])


def test_known_pairs_equal_a_set():
    rng = np.random.default_rng(2)
    pairs = rng.integers(0, 30, (80, 2))
    rows, columns = rng.integers(0, 30, 25), rng.integers(0, 30, 35)
    truth = {frozenset(pair) for pair in pairs.tolist()}
    expected = [[i == j or frozenset((i, j)) in truth for j in columns.tolist()] for i in rows.tolist()]
    assert KnownPairs(pairs).mask(rows, columns).tolist() == expected


def test_no_known_pairs_leaves_only_same_items():
    mask = KnownPairs(np.empty((0, 2), dtype=np.int64)).mask(np.array([1, 2]), np.array([2, 3]))
    assert mask.tolist() == [[False, False], [True, False]]


def test_held_out_side_of_a_pair_does_not_depend_on_other_pairs():
    pairs = np.stack([np.arange(4000), np.arange(4000) + 5], axis=1)
    mask = held_out_pairs(pairs, share=0.05, seed=3)
    assert mask.sum() == 200
    reordered = held_out_pairs(pairs[::-1], share=0.05, seed=3)[::-1]
    np.testing.assert_array_equal(mask, reordered)
    fewer = held_out_pairs(pairs[:3800], share=0.05, seed=3)
    assert (fewer & ~mask[:3800]).sum() <= 10  # the share moved by 5 %, hardly a pair changed sides
    assert (mask != held_out_pairs(pairs, share=0.05, seed=4)).any()


def test_held_out_number_is_bounded():
    pairs = np.stack([np.arange(4000), np.arange(4000) + 5], axis=1)
    assert held_out_pairs(pairs, share=0.5, maximum=100).sum() == 100
    assert held_out_pairs(pairs[:6], share=0.05).sum() == 2


@pytest.mark.parametrize(
    ("num_pairs", "share", "match"), [(10, 1.5, "but got 1.5"), (3, 0.05, "3 pairs are too few to hold 2 out")]
)
def test_error_on_held_out(num_pairs, share, match):
    with pytest.raises(ConfigError, match=match):
        held_out_pairs(np.stack([np.arange(num_pairs), np.arange(num_pairs) + 5], axis=1), share=share)


def test_sampler_draws_by_weight():
    sampler = WeightedPairSampler(np.array([0.0, 1.0, 3.0]), 20_000, seed=0)
    drawn = np.bincount(list(sampler), minlength=3) / len(sampler)
    np.testing.assert_allclose(drawn, [0, 0.25, 0.75], atol=0.015)


def test_sampler_repeats_an_epoch_and_changes_with_it():
    sampler = WeightedPairSampler(np.ones(50), 50, seed=7)
    first = list(sampler)
    np.random.seed(0)
    torch.manual_seed(0)
    assert list(sampler) == first
    sampler.set_epoch(1)
    assert list(sampler) != first


def test_dataset_emits_rows():
    assert PairDataset(np.array([[3, 9], [4, 5]]))[1] == (4, 5)


def test_batch_holds_each_item_once():
    batch = PairCollator(_Rows(10), _collate, KnownPairs(np.array([[1, 2], [3, 4]])))([(1, 2), (3, 4), (2, 7)])
    assert batch["items"]["item_id"] == [1, 2, 3, 4, 7]
    features = batch["items"]["features"][:, 0]
    assert features[batch["anchor"]].tolist() == [1, 3, 2]
    assert features[batch["positive"]].tolist() == [2, 4, 7]
    assert batch["known"].tolist() == [[True, False, False], [False, True, False], [True, False, False]]


def test_training_sees_no_held_out_pair_and_masks_none():
    module = _module(200)
    held_out = set(map(tuple, module.validation_pairs.tolist()))
    assert len(held_out) == 10
    batches = list(module.train_dataloader())
    assert len(batches) == 190 // 8
    for batch in batches:
        ids = np.array(batch["items"]["item_id"])
        anchors, positives = ids[batch["anchor"]], ids[batch["positive"]]
        assert held_out.isdisjoint(zip(anchors, positives, strict=True))
        for i, j in held_out:
            at = np.ix_(anchors == i, positives == j)
            assert not batch["known"].numpy()[at].any()


def test_validation_masks_all_pairs():
    module = _module(200, batch_size=5)
    batches = list(module.val_dataloader())
    assert [batch["known"].diagonal().all().item() for batch in batches] == [True, True]
    train = KnownPairs(module.train_pairs)
    for batch in batches:
        ids = np.array(batch["items"]["item_id"])
        assert (batch["known"].numpy() >= train.mask(ids[batch["anchor"]], ids[batch["positive"]])).all()


def test_validation_keeps_a_single_short_batch():
    assert [len(batch["anchor"]) for batch in _module(60).val_dataloader()] == [3]


def test_loaders_leave_the_global_generator_alone():
    module = _module()
    state = torch.get_rng_state()
    first = [batch["items"]["item_id"] for batch in module.train_dataloader()]
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(5)
    assert [batch["items"]["item_id"] for batch in module.train_dataloader()] == first


def test_frequent_pairs_are_drawn_more_often():
    flat, steep = _module(200, count_power=0.0), _module(200, count_power=1.0)
    assert flat.weights.std() == 0
    assert steep.weights.max() / steep.weights.min() > 50


def test_error_on_batch_larger_than_the_pairs():
    with pytest.raises(ConfigError, match=r"`batch_size` is 64, and there are 57 pairs to train on \(3 more"):
        _module(60, batch_size=64)


def test_error_on_counts_of_other_pairs():
    with pytest.raises(ShapeError, match=r"\(5, 2\) and \(4,\)"):
        PairDataModule(np.ones((5, 2), dtype=np.int64), np.ones(4), _Rows(3), _collate)
