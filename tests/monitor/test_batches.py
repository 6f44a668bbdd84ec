"""Which items a process encodes, in which batches, and what is wrong with a source of items."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler, IterableDataset, Subset

from lis_lightning.errors import ConfigError, SnapshotError
from lis_lightning.monitor.batches import LoaderBatches, make_batches
from lis_lightning.monitor.isolation import undisturbed
from tests._helpers.items import Items


class Stream(IterableDataset):
    def __iter__(self):
        yield from ({"item_id": item, "x": torch.zeros(3)} for item in range(5))


def ids_of(batches):
    return [item for chunk in batches.chunks() for item in list(chunk.batch()["item_id"])]


def test_only_items_of_the_split_are_read():
    items = Items(range(100))
    assert ids_of(make_batches(items, np.array([7, 3, 50]), batch_size=2)) == [3, 7, 50]
    assert items.read == [3, 7, 50]


def test_a_dataset_that_cannot_say_its_ids_is_read_whole():
    items = [{"item_id": f"i{row}"} for row in range(5)]
    assert ids_of(make_batches(items, ["i1"], batch_size=2)) == ["i0", "i1", "i2", "i3", "i4"]


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: Items(range(5)), id="dataset"),
        pytest.param(lambda: [{"item_id": item} for item in range(5)], id="list"),
        pytest.param(lambda: DataLoader(Items(range(5)), batch_size=2), id="loader"),
        pytest.param(Stream, id="stream"),
    ],
)
def test_ranks_share_the_items(make, world_size):
    """Uneven shares, and with 8 ranks empty ones."""
    shares = [
        ids_of(make_batches(make(), range(5), batch_size=2, rank=rank, world_size=world_size))
        for rank in range(world_size)
    ]
    assert sorted(int(item) for share in shares for item in share) == list(range(5))


def test_ranks_share_a_shuffled_loader():
    """Its order comes from the global generator, which is seeded alike on all ranks while a snapshot is taken."""
    items = Items(range(20))
    shares = []
    for rank in range(2):
        torch.manual_seed(rank)
        with undisturbed(nn.Identity()):
            shares += ids_of(make_batches(DataLoader(items, 3, shuffle=True), range(20), rank=rank, world_size=2))
    assert sorted(int(item) for item in shares) == list(range(20))


def test_a_loader_that_shares_by_itself_is_not_shared_again():
    items = Items(range(6))
    shares = []
    for rank in range(2):
        loader = DataLoader(items, 2, sampler=DistributedSampler(items, num_replicas=2, rank=rank, shuffle=False))
        shares += ids_of(make_batches(loader, range(6), rank=rank, world_size=2))
    assert sorted(int(item) for item in shares) == list(range(6))


def test_a_collate_function_is_used():
    def collate(items):
        return {"item_id": [item["item_id"] for item in items], "longest": max(len(item["text"]) for item in items)}

    items = [{"item_id": 1, "text": "ab"}, {"item_id": 2, "text": "abcd"}]
    (chunk,) = make_batches(items, [1, 2], collate_fn=collate).chunks()
    batch = chunk.batch()
    assert batch == {"item_id": [1, 2], "longest": 4}


def test_missing_items_are_counted_and_the_first_five_named():
    with pytest.raises(SnapshotError, match=r"7 of the split's 9 items are not among the 3 .*\[2, 3, 4, 5, 6\] \.\.\."):
        make_batches(Items(range(-1, 2)), range(9))


def test_ids_of_another_kind_are_shown():
    with pytest.raises(SnapshotError, match=r"2 of the split's 2 .*: \[1, 2\]\. `items` starts with \['1', '2'\]"):
        make_batches(Items(["1", "2"]), [1, 2])


def test_item_ids_must_match_the_rows():
    items = Items(range(4))
    items.item_ids = range(4)
    items.__class__ = type("Odd", (Items,), {"__len__": lambda self: 5})
    with pytest.raises(SnapshotError, match="has 4 values for 5 rows"):
        make_batches(items, range(4))


def test_what_is_no_dataset_is_refused():
    with pytest.raises(ConfigError, match=r"Dataset or DataLoader of dicts.*got generator"):
        make_batches((item for item in range(3)), range(3))


def test_batch_size_is_checked():
    with pytest.raises(ConfigError, match="`batch_size` must be at least 1 item, got 0"):
        make_batches(Items(range(3)), range(3), batch_size=0)


# --- by length ------------------------------------------------------------------------------------------------------


class Texts(Items):
    """Items of 1, 2, ... characters, shuffled; ids count from 10."""

    def __init__(self, number=9):
        order = np.random.default_rng(0).permutation(number)
        super().__init__((order + 10).tolist())
        self.lengths = order + 1


@pytest.mark.parametrize("world_size", [1, 2])
def test_rows_that_know_their_length_come_longest_first(world_size):
    texts = Texts()
    shares = []
    for rank in range(world_size):
        batches = make_batches(texts, range(10, 19), batch_size=2, rank=rank, world_size=world_size)
        shares.append([chunk.batch()["item_id"].tolist() for chunk in batches.chunks()])
    expected = {
        1: [[[18, 17], [16, 15], [14, 13], [12, 11], [10]]],
        2: [[[18, 16], [14, 12], [10]], [[17, 15], [13, 11]]],
    }
    assert shares == expected[world_size]


def test_a_part_of_a_dataset_knows_what_the_whole_knows():
    part = Subset(Texts(), [0, 3, 5])
    whole = part.dataset
    ids = sorted((whole.item_ids[row] for row in part.indices), reverse=True)
    assert ids_of(make_batches(part, ids)) == ids
    with pytest.raises(SnapshotError, match="1 of the split's 4 items"):
        make_batches(part, [*ids, 99])


def test_lengths_must_match_the_rows():
    texts = Texts()
    texts.lengths = [1, 2]
    with pytest.raises(SnapshotError, match=r"`items\.lengths` has 2 values for 9 rows"):
        make_batches(texts, range(10, 19))


# --- pieces ---------------------------------------------------------------------------------------------------------


def test_a_loaders_batch_is_split_into_what_its_items_own():
    batch = {
        "item_id": np.arange(5), "text": list("abcde"), "x": torch.arange(10).reshape(5, 2), "scale": torch.tensor(2.0),
        "nested": {"pair": (1, 2, 3, 4, 5)}, "name": "train", "missing": None,
    }  # fmt: skip
    (chunk,) = LoaderBatches([batch], "item_id").chunks()
    first, last = (part.batch() for part in chunk.split(3))
    assert first["item_id"].tolist() == [0, 1, 2]
    assert last["x"].tolist() == [[6, 7], [8, 9]]
    assert (first["text"], last["nested"]) == (list("abc"), {"pair": (4, 5)})
    assert [(part["scale"].item(), part["name"], part["missing"]) for part in (first, last)] == [
        (2.0, "train", None)
    ] * 2


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        pytest.param(Items(range(3)), [0], id="dataset"),
        pytest.param(Texts(), [18], id="by-length"),
        pytest.param(DataLoader(Items(range(3)), batch_size=2, shuffle=True), [0], id="loader"),
        pytest.param(DataLoader(Stream(), batch_size=2), None, id="stream"),
    ],
)
def test_the_first_item_can_be_looked_at_without_disturbing_anything(items, expected):
    state = torch.get_rng_state()
    batch = make_batches(items, range(3) if expected != [18] else range(10, 19)).first()
    assert expected == (None if batch is None else list(batch["item_id"]))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("make", [lambda: Items(range(1)), lambda: DataLoader(Items(range(1)))], ids=["rows", "loader"])
def test_a_process_without_items_can_borrow_one(make):
    share = make_batches(make(), range(1), rank=1, world_size=2)
    assert list(share.chunks()) == []
    assert list(share.spare().batch()["item_id"]) == [0]


def test_nothing_to_borrow_is_said():
    with pytest.raises(SnapshotError, match="gives no batches"):
        LoaderBatches([], "item_id").spare()
