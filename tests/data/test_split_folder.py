"""A saved split is the split: hashes, arrays, types and settings, for every task and period."""

import json

import numpy as np
import polars as pl
import pytest

from lis_lightning import PreferenceSplit
from lis_lightning.errors import ConfigError, LogError
from tests._helpers.large_logs import assert_equal_splits, big_log

LABELS = {"click": "clicked", "like": ("rating", 4)}


def assert_same_arrays(left: PreferenceSplit, right: PreferenceSplit) -> None:
    for part in ("log", "events"):
        for name, values in vars(getattr(left, part)).items():
            other = getattr(getattr(right, part), name)
            if isinstance(values, np.ndarray):
                assert values.dtype == other.dtype, name
                np.testing.assert_array_equal(values, other)
    for name in ("item_ids", "log_user_ids", "history_item", "history_label"):
        assert getattr(left, name).dtype == getattr(right, name).dtype
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name))


@pytest.mark.parametrize("windows", [(0.5, 0.25, 0.25), "rolling", ("2023-11-25", "2023-12-03")])
def test_a_saved_split_is_loaded_as_it_was(tmp_path, windows):
    options = {"weight": "weight", "slices": ("surface",), "base_logit": {"like": "logit"}, "windows": windows}
    log = big_log().with_columns(logit=pl.col("weight") - 0.5)
    split = PreferenceSplit.from_log(log, label=LABELS, **options)
    split.tasks["like"].save(tmp_path / "split")
    loaded = PreferenceSplit.load(tmp_path / "split")
    assert_equal_splits(split, loaded)
    assert loaded.settings == split.settings
    assert (loaded.num_logged, loaded.num_sampled) == (6000, 6000)
    for task, of_task in split.tasks.items():
        assert_same_arrays(of_task, loaded.tasks[task])


def test_tasks_of_a_loaded_split_share_their_arrays(tmp_path):
    PreferenceSplit.from_log(big_log(), label=LABELS).save(tmp_path / "split")
    click, like = PreferenceSplit.load(tmp_path / "split").tasks.values()
    assert click.events.start is like.events.start
    assert click.log.time is like.log.time


def test_a_loaded_split_has_the_score_of_the_split(tmp_path):
    split = PreferenceSplit.from_log(big_log(2000), label="clicked")
    split.save(tmp_path / "split")
    vectors = np.random.default_rng(0).standard_normal((split.num_items, 4))
    options = {"ceilings": (), "cache_dir": "off"}
    loaded = PreferenceSplit.load(tmp_path / "split")
    assert loaded.score(vectors, **options).ais == split.score(vectors, **options).ais


def test_saving_replaces_a_saved_split_and_nothing_else(tmp_path):
    split = PreferenceSplit.from_log(big_log(2000), label="clicked")
    split.save(tmp_path / "split")
    PreferenceSplit.from_log(big_log(2000), label="clicked", seed=1).save(tmp_path / "split")
    assert PreferenceSplit.load(tmp_path / "split").settings["seed"] == 1
    (tmp_path / "split" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"exists and is not a saved split: it holds 'notes\.txt'"):
        split.save(tmp_path / "split")
    with pytest.raises(ConfigError, match=r"cannot be written: .*notes\.txt is no folder"):
        split.save(tmp_path / "split" / "notes.txt" / "below")
    assert (tmp_path / "split" / "notes.txt").read_text() == "mine"


def _edit_manifest(folder, **values):
    manifest = json.loads((folder / "split.json").read_text())
    (folder / "split.json").write_text(json.dumps(manifest | values))


DAMAGES = {
    "no manifest": (lambda folder: (folder / "split.json").unlink(), "is not a saved split: it has no split.json"),
    "other json": (lambda folder: (folder / "split.json").write_text("[]"), "its split.json is of another kind"),
    "format": (
        lambda folder: _edit_manifest(folder, format=7),
        "saved in format 7, this version reads 1; cut it again.$",
    ),
    "lost file": (lambda folder: (folder / "period_0" / "events.parquet").unlink(), "damaged: period_0/events.parquet"),
    "cut short": (lambda folder: (folder / "users.parquet").write_bytes(b"PAR1"), "damaged: users.parquet was lost or"),
    "alignment": (
        lambda folder: pl.DataFrame({"label": [1]}).write_parquet(folder / "alignment.parquet"),
        "damaged: alignment.parquet was lost or changed",
    ),
    "other version": (lambda folder: _edit_manifest(folder, hash={"label": ["0"]}), "was cut by another version"),
    "changed": (
        lambda folder: (
            pl.read_parquet(folder / "period_0" / "log.parquet")
            .with_columns(label_0=1 - pl.col("label_0"))
            .write_parquet(folder / "period_0" / "log.parquet")
        ),
        "damaged: period_0/log.parquet was lost or changed",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_folder_is_refused(tmp_path, damage):
    change, message = DAMAGES[damage]
    PreferenceSplit.from_log(big_log(2000), label="clicked").save(tmp_path / "split")
    change(tmp_path / "split")
    with pytest.raises(LogError, match=message):
        PreferenceSplit.load(tmp_path / "split")
