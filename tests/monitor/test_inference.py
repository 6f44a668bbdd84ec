"""Arguments that follow from split, items and training: taken where only one value is possible, else named at once."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, default_collate

from lis_lightning.data.split import PreferenceSplit
from lis_lightning.errors import ConfigError
from lis_lightning.monitor.callback import LISMonitor
from lis_lightning.monitor.inference import infer_collate, infer_item_key
from tests._helpers import small_run

RAGGED = [{"item_id": item, "x": torch.ones(1 + item % 3)} for item in range(5)]


def pad(items):
    return {
        "item_id": [item["item_id"] for item in items],
        "x": pad_sequence([item["x"] for item in items], batch_first=True),
    }


def augment(items):
    batch = pad(items)
    return batch | {"x": batch["x"] + torch.rand(1)}


def without_ids(items):
    return {"x": pad(items)["x"]}


def loaders(*functions):
    return [DataLoader(RAGGED, collate_fn=function) for function in functions]


@pytest.mark.parametrize(
    ("items", "functions", "expected"),
    [
        (RAGGED, [pad], pad),
        (RAGGED, [pad, pad, None], pad),
        (RAGGED, [], None),
        (RAGGED, [pad, without_ids], None),
        (RAGGED, [augment], None),
        (RAGGED, [without_ids], None),
        (RAGGED, [default_collate], None),
        ([{"item_id": item, "x": torch.ones(2)} for item in range(5)], [pad], None),
        (DataLoader(RAGGED, collate_fn=without_ids), [pad], None),
    ],
)
def test_the_only_collate_function_that_fits_is_taken(items, functions, expected):
    before = torch.get_rng_state()
    assert infer_collate(items, loaders(*functions), "item_id") is expected
    assert torch.equal(torch.get_rng_state(), before)


class Random:
    """Items whose reading draws at random, from a generator of their own too."""

    def __init__(self):
        self.own = np.random.default_rng(0)

    def __len__(self):
        return 3

    def __getitem__(self, row):
        return {"movie": row, "x": torch.rand(1) + self.own.random()}


def test_reading_an_item_leaves_its_generator_as_it_was():
    items = Random()
    assert infer_item_key(items, "movie") == "movie"
    assert items.own.random() == np.random.default_rng(0).random()


@pytest.mark.parametrize(
    ("items", "column", "expected"),
    [
        (Random(), "movie", "movie"),
        (Random(), "film", "item_id"),
        (DataLoader(Random()), "movie", "movie"),
        ([{"movie": 1, "item_id": 2}], "movie", "item_id"),
        ([], "movie", "item_id"),
        ([7], "movie", "item_id"),
    ],
)
def test_the_key_of_the_ids_is_that_of_the_log(items, column, expected):
    before = torch.get_rng_state()
    assert infer_item_key(items, column) == expected
    assert torch.equal(torch.get_rng_state(), before)


def test_a_monitor_takes_the_key_of_its_log():
    log = {"user_id": [0, 1] * 20, "movie": [0, 1, 2, 3] * 10, "timestamp": range(40), "label": [0, 1, 1, 0, 1] * 8}
    split = PreferenceSplit.from_log(pl.DataFrame(log), item="movie")
    items = [{"movie": item} for item in range(4)]
    assert LISMonitor(split, items).item_key == "movie"
    assert LISMonitor(split, items, item_key="film").item_key == "film"


def padded(items):
    """Undo what makes the items ragged: a collate function of a training, which its batches of numbers pass through."""
    if not isinstance(items[0], dict):
        return default_collate(items)
    return pad([item | {"x": item["x"][:4]} for item in items])


def test_a_training_lends_its_collate_function(tmp_path):
    items = [item | {"x": torch.cat([item["x"], item["x"][: item["item_id"] % 3]])} for item in small_run.ITEMS]
    split = small_run.make_split()
    plain = small_run.monitor_of(split, ceilings=(), placebo=False)
    lent = small_run.monitor_of(split, items=items, ceilings=(), placebo=False)
    small_run.fit(tmp_path / "plain", plain, steps=2)
    small_run.fit(tmp_path / "lent", lent, steps=2, collate_fn=padded)
    assert [result.ais for result in lent.results] == [result.ais for result in plain.results]
    assert lent.collate_fn is None


class Mute(small_run.Tower):
    encode_items = None


def test_all_that_is_missing_is_named_at_once(tmp_path):
    items = [{"movie": item["item_id"], "x": item["x"]} for item in RAGGED]
    monitor = small_run.monitor_of(small_run.make_split(), items=items)
    said = (
        r"3 arguments of the monitor are missing or do not fit:\n- Mute has no method `encode_items\(batch\)`.*"
        r"\n- The items have no key 'item_id', only \['movie', 'x'\]: give `item_key`\."
        r"\n- torch's default_collate cannot make a batch of the items \(.*\): give `collate_fn`\."
    )
    with pytest.raises(ConfigError, match=said):
        small_run.fit(tmp_path, monitor, module=Mute())
