"""Encoding of item batches as the Trainer computes: precision, loaders, memory, and errors in an item batch."""

from __future__ import annotations

import random
from types import SimpleNamespace

import numpy as np
import polars
import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader

from lis_lightning.data.split import PreferenceSplit
from lis_lightning.errors import ConfigError, LisWarning, NonFiniteError, ShapeError, SnapshotError
from lis_lightning.monitor.batches import LoaderBatches, make_batches
from lis_lightning.monitor.encoding import collect, encode_items
from lis_lightning.monitor.isolation import undisturbed
from lis_lightning.monitor.lightning_training import LightningTraining
from lis_lightning.monitor.processes import together
from lis_lightning.scoring.metric import LeakageImpactScore
from tests._helpers.items import Items


def everything_random():
    return torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random()


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
    with undisturbed(module, batches):
        return list(encode_items(LightningTraining(trainer), module, batches, function, **options))


def test_ids_and_rows_come_in_batches(attached):
    encoded = encode(attached, make_batches(Items(range(5)), range(5), batch_size=2))
    assert [ids for ids, _ in encoded] == [[0, 1], [2, 3], [4]]
    assert torch.cat([rows for _, rows in encoded])[:, 0].tolist() == [0.0, 2.0, 4.0, 6.0, 8.0]


def test_the_stage_is_validation_inside_and_training_again_afterwards(attached):
    trainer, module = attached()
    seen = []

    def look(module, batch):
        seen.append((trainer.training, trainer.validating))
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011  # raised above, without words
        list(
            encode_items(
                LightningTraining(trainer),
                module,
                LoaderBatches([{"item_id": [1], "x": torch.ones(1, 3)}], "item_id"),
                look,
            )
        )
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

    ((_, rows),) = encode(attached, make_batches(Items(range(2)), range(2)), look, precision)
    assert seen == [inside]
    assert rows.dtype == torch.float32
    assert not rows.requires_grad


def test_item_key_is_used(attached):
    ((ids, _),) = encode(attached, LoaderBatches([{"sku": ["a", "b"], "x": torch.ones(2, 3)}], "sku"), item_key="sku")
    assert ids == ["a", "b"]


def test_a_loaders_own_generators_are_restored(attached):
    """The training's loader may share them."""
    generator = torch.Generator().manual_seed(5)
    loader = DataLoader(Items(range(9)), batch_size=2, shuffle=True, generator=generator)
    before = generator.get_state()
    for batches in (LoaderBatches(loader, "item_id"), make_batches(loader, range(9))):
        encode(attached, batches)
        assert torch.equal(generator.get_state(), before)
    list(loader)
    assert not torch.equal(generator.get_state(), before)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        pytest.param((torch.ones(2, 3),), "must be a dict with the key 'item_id', got tuple", id="tuple"),
        pytest.param({"id": [1]}, r"no key 'item_id', only \['id'\]; name .* LISMonitor\(item_key=", id="other-key"),
    ],
)
def test_a_batch_without_ids_is_refused(attached, batch, message):
    with pytest.raises(ConfigError, match=message):
        encode(attached, LoaderBatches([batch], "item_id"))


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
        encode(
            attached,
            LoaderBatches([{"item_id": [1, 2], "x": torch.ones(2, 3)}], "item_id"),
            lambda module, batch: output,
        )


# --- out of memory --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), id="cuda"),
        pytest.param(torch.OutOfMemoryError("XPU out of memory."), id="another-device"),
        pytest.param(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes"), id="linux"),
        pytest.param(
            RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"), id="windows"
        ),
        pytest.param(MemoryError("Unable to allocate 9 GiB for an array"), id="numpy"),
    ],
)
def test_each_way_to_run_out_of_memory_is_known(attached, error):
    with pytest.warns(LisWarning, match=r"2 items did not fit.*set `batch_size=1`"):
        assert len(encode(attached, share_of("dataset", size=2, number=2)[1], Small(1, error))) == 2


class Small:
    """A device on which no more than so many items fit; it draws before it finds out."""

    def __init__(self, room, error):
        self.room, self.error, self.sizes = room, error, []

    def __call__(self, module, batch):
        noise = torch.rand(1) + random.random() + np.random.rand()
        self.sizes.append(len(batch["x"]))
        if len(batch["x"]) > self.room:
            raise self.error
        return module.encode_items(batch) + 0 * noise


def share_of(kind, size=8, number=20):
    items = Items(range(number))
    if kind == "dataset":
        return items, make_batches(items, range(number), batch_size=size)
    return items, make_batches(DataLoader(items, batch_size=size), range(number))


@pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning")
@pytest.mark.parametrize("kind", ["dataset", "loader"])
def test_a_batch_that_does_not_fit_is_halved_until_it_does(attached, kind):
    expected = encode(attached, share_of(kind)[1])
    items, share = share_of(kind)
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    small = Small(3, error)
    with pytest.warns(LisWarning, match=r"8 items did not fit.*set `batch_size=4`") as caught:
        got = encode(attached, share, small)
    assert len([one for one in caught if one.category is LisWarning]) == 1
    assert [item for ids, _ in got for item in ids] == list(range(20))
    torch.testing.assert_close(torch.cat([rows for _, rows in got]), torch.cat([rows for _, rows in expected]))
    assert items.read == list(range(20)), "nothing is read twice"
    assert share.limit == 2
    assert small.sizes[:3] == [8, 4, 2]
    assert max(small.sizes[3:]) == 4  # what was cut already is tried once
    again = Small(3, error)
    encode(attached, share, again)
    assert set(again.sizes) == {2}, "later snapshots know"


def test_an_attempt_that_did_not_fit_leaves_no_trace(attached):
    """What an encoder draws is what it draws in batches that fit at once."""

    def noisy(size):
        small = Small(4, torch.OutOfMemoryError("CUDA out of memory."))
        share = share_of("dataset", size, number=8)[1]
        rows = encode(attached, share, lambda module, batch: small(module, batch) + torch.rand(1) + np.random.rand())
        assert small.sizes == ([8, 4, 4] if size == 8 else [4, 4])
        return torch.cat([row for _, row in rows])

    with pytest.warns(LisWarning, match="did not fit"):
        halved = noisy(8)
    assert torch.equal(halved, noisy(4))


@pytest.mark.filterwarnings("ignore:.*did not fit into memory together")
@pytest.mark.parametrize("error", [RuntimeError("shapes do not match"), torch.OutOfMemoryError("CUDA out of memory.")])
def test_other_errors_and_one_item_alone_are_raised(attached, error):
    small = Small(0, error)
    with pytest.raises(RuntimeError, match=str(error)):
        encode(attached, share_of("dataset")[1], small)
    assert small.sizes == ([8] if "shapes" in str(error) else [8, 4, 2, 1])


def test_a_loaders_batch_whose_rows_are_no_items_cannot_be_split(attached):
    """As the patches of all images of a batch in one tensor."""
    batch = {"item_id": [1, 2], "x": torch.ones(2, 3), "patches": torch.ones(7, 2)}
    with pytest.raises(SnapshotError, match=r"batch of 2 items .* 'patches' has shape \[7, 2\]"):
        encode(attached, LoaderBatches([batch], "item_id"), Small(1, torch.OutOfMemoryError("CUDA out of memory.")))


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
    assert together(LightningTraining(trainer), lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        together(LightningTraining(trainer), lambda: 1 // 0)
