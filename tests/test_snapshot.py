"""Encoding without a trace: modes, random states, compiled modules, loaders, and what is wrong with an item batch."""

from __future__ import annotations

import random
from types import SimpleNamespace

import numpy as np
import polars
import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, DistributedSampler, IterableDataset

from lis_lightning.errors import ConfigError, NonFiniteError, ShapeError, SnapshotError
from lis_lightning.metric import LeakageImpactScore
from lis_lightning.snapshot import collect, encode_items, make_loader, together, undisturbed
from lis_lightning.split import PreferenceSplit


class Items(Dataset):
    """Items 0 to n - 1, each of which is read once too often if it is read when not asked for."""

    def __init__(self, item_ids):
        self.item_ids = list(item_ids)
        self.read = []

    def __len__(self):
        return len(self.item_ids)

    def __getitem__(self, row):
        self.read.append(self.item_ids[row])
        return {"item_id": self.item_ids[row], "x": torch.full((3,), float(row))}


class Stream(IterableDataset):
    def __iter__(self):
        yield from ({"item_id": item, "x": torch.zeros(3)} for item in range(5))


def ids_of(batches):
    return [item for batch in batches for item in list(batch["item_id"])]


def everything_random():
    return torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random()


# --- undisturbed ----------------------------------------------------------------------------------------------------


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


# --- loaders --------------------------------------------------------------------------------------------------------


def test_only_items_of_the_split_are_read():
    items = Items(range(100))
    assert ids_of(make_loader(items, np.array([7, 3, 50]), batch_size=2)) == [3, 7, 50]
    assert items.read == [3, 7, 50]


def test_a_dataset_that_cannot_say_its_ids_is_read_whole():
    items = [{"item_id": f"i{row}"} for row in range(5)]
    assert ids_of(make_loader(items, ["i1"], batch_size=2)) == ["i0", "i1", "i2", "i3", "i4"]


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
        ids_of(make_loader(make(), range(5), batch_size=2, rank=rank, world_size=world_size))
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
            shares += ids_of(make_loader(DataLoader(items, 3, shuffle=True), range(20), rank=rank, world_size=2))
    assert sorted(int(item) for item in shares) == list(range(20))


def test_a_loader_that_shares_by_itself_is_not_shared_again():
    items = Items(range(6))
    shares = []
    for rank in range(2):
        loader = DataLoader(items, 2, sampler=DistributedSampler(items, num_replicas=2, rank=rank, shuffle=False))
        shares += ids_of(make_loader(loader, range(6), rank=rank, world_size=2))
    assert sorted(int(item) for item in shares) == list(range(6))


def test_a_collate_function_is_used():
    def collate(items):
        return {"item_id": [item["item_id"] for item in items], "longest": max(len(item["text"]) for item in items)}

    items = [{"item_id": 1, "text": "ab"}, {"item_id": 2, "text": "abcd"}]
    (batch,) = make_loader(items, [1, 2], collate_fn=collate)
    assert batch == {"item_id": [1, 2], "longest": 4}


def test_missing_items_are_counted_and_the_first_five_named():
    with pytest.raises(SnapshotError, match=r"7 of the split's 9 items are not among the 3 .*\[2, 3, 4, 5, 6\] \.\.\."):
        make_loader(Items(range(-1, 2)), range(9))


def test_ids_of_another_kind_are_shown():
    with pytest.raises(SnapshotError, match=r"2 of the split's 2 .*: \[1, 2\]\. `items` starts with \['1', '2'\]"):
        make_loader(Items(["1", "2"]), [1, 2])


def test_item_ids_must_match_the_rows():
    items = Items(range(4))
    items.item_ids = range(4)
    items.__class__ = type("Odd", (Items,), {"__len__": lambda self: 5})
    with pytest.raises(SnapshotError, match="holds 4 ids for 5 rows"):
        make_loader(items, range(4))


def test_what_is_no_dataset_is_refused():
    with pytest.raises(ConfigError, match=r"Dataset or DataLoader of dicts.*got generator"):
        make_loader((item for item in range(3)), range(3))


def test_batch_size_is_checked():
    with pytest.raises(ConfigError, match="`batch_size` must be at least 1 item, got 0"):
        make_loader(Items(range(3)), range(3), batch_size=0)


# --- encoding -------------------------------------------------------------------------------------------------------


class Module(pl.LightningModule):
    """Doubles its input; its hook would spoil a training batch, as an augmentation on the device does."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3, bias=False)
        nn.init.eye_(self.linear.weight)

    def encode_items(self, batch):
        return self.linear(batch["x"]) * 2

    def on_after_batch_transfer(self, batch, dataloader_idx):
        return {**batch, "x": batch["x"] + 100} if self.trainer.training else batch


@pytest.fixture
def attached(tmp_path):
    """A module and a Trainer as they are in the middle of a fit."""

    def attach(precision="32-true"):
        module = Module()
        trainer = pl.Trainer(
            accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
            default_root_dir=tmp_path, precision=precision,
        )  # fmt: skip
        trainer.strategy.connect(module)
        trainer._data_connector.attach_data(module, train_dataloaders=[])
        module.trainer = trainer
        trainer.training = True
        return trainer, trainer.precision_plugin.convert_module(module)

    return attach


def encode(
    attached, batches, function=lambda module, batch: module.encode_items(batch), precision="32-true", **options
):
    trainer, module = attached(precision)
    with undisturbed(module):
        return list(encode_items(trainer, module, batches, function, **options))


def test_ids_and_rows_come_in_batches(attached):
    encoded = encode(attached, make_loader(Items(range(5)), range(5), batch_size=2))
    assert [ids for ids, _ in encoded] == [[0, 1], [2, 3], [4]]
    assert torch.cat([rows for _, rows in encoded])[:, 0].tolist() == [0.0, 2.0, 4.0, 6.0, 8.0]


def test_the_stage_is_validation_inside_and_training_again_afterwards(attached):
    trainer, module = attached()
    seen = []

    def look(module, batch):
        seen.append((trainer.training, trainer.validating))
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011  # raised above, without words
        list(encode_items(trainer, module, [{"item_id": [1], "x": torch.ones(1, 3)}], look))
    assert seen == [(False, True)]
    assert trainer.training


@pytest.mark.parametrize(
    ("precision", "inside"),
    [
        ("32-true", torch.float32),
        ("bf16-mixed", torch.bfloat16),
        ("bf16-true", torch.bfloat16),
        ("64-true", torch.float64),
    ],
)
def test_encodes_in_the_precision_of_the_training_and_returns_float32(attached, precision, inside):
    seen = []

    def look(module, batch):
        seen.append(module.encode_items(batch).dtype)
        return module.encode_items(batch)

    ((_, rows),) = encode(attached, make_loader(Items(range(2)), range(2)), look, precision)
    assert seen == [inside]
    assert rows.dtype == torch.float32
    assert not rows.requires_grad


def test_item_key_is_used(attached):
    ((ids, _),) = encode(attached, [{"sku": ["a", "b"], "x": torch.ones(2, 3)}], item_key="sku")
    assert ids == ["a", "b"]


def test_a_loaders_own_generators_are_restored(attached):
    """The training's loader may share them."""
    generator = torch.Generator().manual_seed(5)
    loader = DataLoader(Items(range(9)), batch_size=2, shuffle=True, generator=generator)
    before = generator.get_state()
    for batches in (loader, make_loader(loader, range(9))):
        encode(attached, batches)
        assert torch.equal(generator.get_state(), before)
    list(loader)
    assert not torch.equal(generator.get_state(), before)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        pytest.param((torch.ones(2, 3),), "must be a dict with the key 'item_id', got tuple", id="tuple"),
        pytest.param({"id": [1]}, r"no key 'item_id', only \['id'\]; set `item_key`", id="other-key"),
    ],
)
def test_a_batch_without_ids_is_refused(attached, batch, message):
    with pytest.raises(SnapshotError, match=message):
        encode(attached, [batch])


@pytest.mark.parametrize(
    ("output", "message"),
    [
        pytest.param(
            SimpleNamespace(last_hidden_state=0), r"tensor of shape \[2, D\], got SimpleNamespace", id="object"
        ),
        pytest.param(torch.ones(2, 4, 3), r"\[2, D\] for 2 items, got \[2, 4, 3\]", id="unpooled"),
        pytest.param(torch.ones(3, 4), r"\[2, D\] for 2 items, got \[3, 4\]", id="rows"),
    ],
)
def test_a_wrong_output_is_refused(attached, output, message):
    with pytest.raises(ShapeError, match=message):
        encode(attached, [{"item_id": [1, 2], "x": torch.ones(2, 3)}], lambda module, batch: output)


# --- collecting -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def split():
    log = polars.DataFrame(
        {"user_id": [0, 1] * 20, "item_id": [0, 1, 2, 3] * 10, "timestamp": range(40), "label": [0, 1, 1, 0, 0] * 8}
    )
    return PreferenceSplit.from_log(log)


def yielded(*batches):
    yield from batches


def test_collect_adds_up_and_counts_what_is_unknown(split):
    metric = LeakageImpactScore(split)
    rows = torch.arange(6.0).reshape(6, 1)
    assert collect(yielded(([3, 9, 1], rows[:3]), ([8], rows[3:4]), ([0, 2], rows[4:])), metric, split.item_ids) == 2
    expected = {3: 0.0, 1: 2.0, 0: 4.0, 2: 5.0}
    assert metric.embeddings()[:, 0].tolist() == [expected[item] for item in split.item_ids.tolist()]


def test_items_without_a_number_are_named(split):
    rows = torch.ones(4, 2)
    rows[2, 1] = torch.nan
    with pytest.raises(NonFiniteError, match=r"1 of 4 items.*\[2\]"):
        collect(yielded(([0, 1, 2, 3], rows)), LeakageImpactScore(split), split.item_ids)


def test_the_source_is_closed_when_collecting_fails(split):
    closed = []

    def source():
        try:
            yield [0, 1], torch.full((2, 2), torch.nan)
        finally:
            closed.append(True)

    with pytest.raises(NonFiniteError):
        collect(source(), LeakageImpactScore(split), split.item_ids)
    assert closed == [True]


# --- agreeing -------------------------------------------------------------------------------------------------------


def test_alone_an_error_stays_what_it_is(attached):
    trainer, _ = attached()
    assert together(trainer, lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        together(trainer, lambda: 1 // 0)
