import copy
import pickle

import numpy as np
import pytest
import torch
from torchmetrics import MetricCollection

from lis_lightning import LeakageImpactScore
from lis_lightning.errors import NonFiniteError, ShapeError, SnapshotError


@pytest.fixture
def metric(split):
    return LeakageImpactScore(split)


def feed(metric, split, latents, batch=7, seed=0):
    order = np.random.default_rng(seed).permutation(split.num_items)
    for rows in np.array_split(order, split.num_items // batch):
        metric.update(split.item_ids[rows], torch.from_numpy(latents[rows]).float())


def test_the_class_equals_the_function(metric, split, latents):
    feed(metric, split, latents)
    expected = split.score(latents.astype(np.float32), placebo=False).scalars()
    got = metric.compute()
    assert got["ais"].dtype == torch.float64
    assert {k: v.item() for k, v in got.items() if "seconds" not in k} == pytest.approx(
        {k: v for k, v in expected.items() if "seconds" not in k}, nan_ok=True
    )


def test_order_and_batch_size_do_not_matter(split, latents):
    first, second = LeakageImpactScore(split), LeakageImpactScore(split)
    feed(first, split, latents, batch=7, seed=0)
    feed(second, split, latents, batch=20, seed=5)
    assert torch.equal(first.embeddings(), second.embeddings())


def test_an_item_encoded_twice_counts_with_its_mean(metric, split, latents):
    feed(metric, split, latents)
    metric.update(split.item_ids[:1], torch.zeros(1, 4))
    torch.testing.assert_close(metric.embeddings()[0], torch.from_numpy(latents[0] / 2).float())


def test_items_outside_the_split_are_left_out(metric, split, latents):
    feed(metric, split, latents)
    before = metric.embeddings()
    metric.update([-1, -2], torch.full((2, 4), 9.0))
    assert torch.equal(before, metric.embeddings())


def test_missing_items_are_named(metric, split):
    metric.update(split.item_ids[2:], torch.randn(split.num_items - 2, 4))
    first, second = split.item_ids[:2]
    with pytest.raises(SnapshotError, match=rf"2 of {split.num_items} items.*\[{first}, {second}\]"):
        metric.compute()


def test_reset_clone_pickle_and_copy_keep_the_state(metric, split, latents):
    feed(metric, split, latents)
    expected = metric.embeddings()
    for other in (metric.clone(), copy.deepcopy(metric)):
        assert torch.equal(other.embeddings(), expected)
        assert other.split is split
    assert torch.equal(pickle.loads(pickle.dumps(metric)).embeddings(), expected)
    metric.reset()
    assert metric.sum.shape == (split.num_items, 4)
    assert not metric.count.any()


def test_half_precision_in(metric, split, latents):
    metric.update(split.item_ids, torch.from_numpy(latents).half())
    assert metric.embeddings().dtype == torch.float32
    np.testing.assert_allclose(metric.embeddings(), latents, atol=2e-3)


def test_in_a_collection(split, latents):
    collection = MetricCollection({"lis": LeakageImpactScore(split)})
    collection.update(split.item_ids, torch.from_numpy(latents))
    assert "ais" in " ".join(collection.compute())


def test_merging_states_as_ranks_do(split, latents):
    whole, first, second = (LeakageImpactScore(split) for _ in range(3))
    feed(whole, split, latents)
    rows = np.arange(split.num_items)
    first.update(split.item_ids[rows < 11], torch.from_numpy(latents[rows < 11]).float())
    second.update(split.item_ids[rows >= 11], torch.from_numpy(latents[rows >= 11]).float())
    first.merge_state(second)
    assert torch.equal(first.embeddings(), whole.embeddings())


def test_bad_updates_are_refused(metric, split):
    with pytest.raises(ShapeError, match=r"\[2, dim\] for 2 item ids, got \[3, 4\]"):
        metric.update([1000, 1001], torch.zeros(3, 4))
    metric.update(split.item_ids[:1], torch.zeros(1, 4))
    with pytest.raises(ShapeError, match="width 4, as before, got 5"):
        metric.update(split.item_ids[:1], torch.zeros(1, 5))
    bad = torch.zeros(2, 4)
    bad[1, 0] = torch.inf
    with pytest.raises(NonFiniteError, match=rf"1 of 2 items of this batch, first for \[{split.item_ids[1]}\]"):
        metric.update(split.item_ids[:2], bad)
