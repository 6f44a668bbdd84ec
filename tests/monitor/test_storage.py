"""Snapshots on disk: replayed to the bit, kept as told, and whole after kills and full disks."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars
import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from safetensors.torch import save_file

from lis_lightning import PreferenceSplit
from lis_lightning.errors import ConfigError, LisWarning, LogError, RecordError, SnapshotError
from lis_lightning.monitor import load_embeddings, storage
from lis_lightning.monitor.run_history import RunHistory
from lis_lightning.monitor.storage import Retention, Store
from lis_lightning.results.movers import Catalogue, movers
from lis_lightning.results.snapshot import Snapshot
from lis_lightning.scoring.scorer import Scorer
from tests._helpers import small_run


@pytest.fixture(scope="module")
def small_split():
    return small_run.make_split()


@pytest.fixture(scope="module")
def saved(small_split, tmp_path_factory):
    """A run for each precision that keeps all its snapshots."""
    runs = {}
    for dtype in storage.DTYPES:
        folder = tmp_path_factory.mktemp(dtype)
        monitor = small_run.monitor_of(small_split, save="all", save_dtype=dtype)
        small_run.fit(folder, monitor, steps=8)
        runs[dtype] = monitor, folder / "snapshots"
    return runs


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def result_at(step, ais=0.1):
    return Snapshot(ais=ais, ais_low=0.0, ais_high=0.2, ais_geometry=0.0, auc_base=0.7, auc=0.8, step=step)


def test_a_float32_snapshot_gives_the_recorded_numbers_to_the_bit(saved, small_split):
    monitor, folder = saved["float32"]
    assert names(folder) == [f"step-0000000{step}.safetensors" for step in (0, 2, 4, 6, 8)]
    for result, path in zip(monitor.results, sorted(folder.iterdir()), strict=True):
        again = small_split.score(load_embeddings(path, small_split))
        # Of the run, not of the representation.
        left_out = ("best_ais", "gain_z", "train_loss", "encode_seconds", "score_seconds")
        one, other = (
            {name: repr(value) for name, value in scored.numbers().items() if name not in left_out}
            for scored in (result, again)
        )
        assert one == other


@pytest.mark.parametrize(("dtype", "rounding"), [("float16", 2**-11), ("bfloat16", 2**-8)])
def test_half_precision_rounds_as_stated(saved, small_split, dtype, rounding):
    exact, half = (
        [load_embeddings(path, small_split) for path in sorted(saved[name][1].iterdir())] for name in ("float32", dtype)
    )
    tiny = torch.finfo(storage.DTYPES[dtype]).smallest_normal
    for one, other in zip(exact, half, strict=True):
        assert ((one - other).abs() <= rounding * one.abs() + tiny).all()
    assert any(not torch.equal(one, other) for one, other in zip(exact, half, strict=True))


@pytest.mark.parametrize(("dtype", "difference"), [("float16", 1e-4), ("bfloat16", 1e-3)])
def test_half_precision_moves_the_score_less_than_stated(split, latents, tmp_path, dtype, difference):
    embeddings = torch.from_numpy(latents).float() @ torch.randn(4, 64, generator=torch.Generator().manual_seed(0))
    result = Snapshot.of(split.score(embeddings, placebo=False), step=3)
    Store(tmp_path, Retention("all", dtype)).write(embeddings, split, result, {})
    replayed = split.score(load_embeddings(tmp_path / "step-00000003.safetensors", split), placebo=False)
    assert abs(replayed.ais - result.ais) < difference
    assert result.ais > 0.03


def test_the_manifest_says_what_it_is(saved, small_split):
    monitor, folder = saved["bfloat16"]
    manifest = storage.read_manifest(folder / "step-00000004.safetensors")
    assert manifest["step"] == 4
    assert manifest["split_hash"] == small_split.hash
    assert manifest["ais"] == monitor.results[2].ais
    assert manifest["dtype"] == "bfloat16"
    assert manifest["model"] == "tests._helpers.small_run.Tower"
    assert {"lis-lightning", "torch", "pytorch-lightning", "transformers"} <= set(manifest["versions"])
    assert manifest["run_id"] == monitor.state_dict()["run_id"]


def test_another_splits_items_are_refused_and_fewer_are_taken(saved, small_split, log):
    path = saved["float32"][1] / "step-00000008.safetensors"
    with pytest.raises(SnapshotError, match=rf"lacks 60 of the 60 items .*first \[1000, 1001.*{small_split.hash}"):
        load_embeddings(path, PreferenceSplit.from_log(log))
    whole = load_embeddings(path, small_split)
    fewer = replace(small_split, item_ids=small_split.item_ids[[7, 3]], hash="fewer")
    assert torch.equal(load_embeddings(path, fewer), whole[[7, 3]])


def test_what_is_no_snapshot_is_refused(saved, small_split, tmp_path):
    other = tmp_path / "other.safetensors"
    save_file({"x": torch.zeros(1)}, other)
    with pytest.raises(RecordError, match="has no manifest"):
        load_embeddings(other, small_split)
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes((saved["float32"][1] / "step-00000000.safetensors").read_bytes()[:-10])
    for path in (torn, tmp_path / "missing.safetensors"):
        with pytest.raises(RecordError, match=f"The snapshot .*{path.name} cannot be read"):
            storage.read_manifest(path)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"save": "last"}, "`save` to be None, 'best', 'last-<number>' or 'all', got 'last'"),
        ({"save": "last-0"}, "got 'last-0'"),
        ({"save": "best", "save_dtype": "int8"}, r"`save_dtype` to be one of .*float16.*, got 'int8'"),
    ],
)
def test_options_are_checked_at_once(small_split, options, said):
    with pytest.raises(ConfigError, match=said):
        small_run.monitor_of(small_split, **options)


@pytest.mark.parametrize(("save", "expected"), [("best", [6]), ("last-2", [4, 6]), ("all", [0, 2, 4, 6])])
def test_retention_in_a_run(small_split, tmp_path, save, expected):
    monitor = small_run.monitor_of(small_split, save=save)
    small_run.fit(tmp_path, monitor, steps=6)
    if save == "best":
        expected = [monitor.best_step]
    assert names(tmp_path / "snapshots") == [f"step-{step:08d}.safetensors" for step in expected]


def test_a_run_leaves_the_names_of_its_items_beside_its_record(small_split, tmp_path):
    titles = polars.DataFrame({"item_id": small_split.item_ids, "title": [f"t{id}" for id in small_split.item_ids]})
    monitor = small_run.monitor_of(small_split, catalogue=titles)
    small_run.fit(tmp_path, monitor, steps=2)
    assert Catalogue.read(tmp_path / "items.parquet").titles == tuple(titles["title"])
    moved = movers(monitor.results[0], monitor.best, Catalogue.read(tmp_path / "items.parquet"))
    assert all(one.title == f"t{one.item_id}" for one in moved)


def test_a_catalogue_that_is_none_is_refused_before_the_training(small_split):
    with pytest.raises(LogError, match="item_id"):
        small_run.monitor_of(small_split, catalogue=polars.DataFrame({"sku": [1]}))


def test_nothing_is_kept_unless_asked_for(small_split, tmp_path):
    small_run.fit(tmp_path, small_run.monitor_of(small_split), steps=2)
    assert names(tmp_path) == ["items.parquet", "record.jsonl"]


def test_named_and_later_records_have_folders_of_their_own(small_split, tmp_path):
    for _ in range(2):
        both = [small_run.monitor_of(small_split, save="best", name=name) for name in (None, "text")]
        small_run.fit(tmp_path, *both, steps=1)
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {
        "snapshots", "snapshots-v1", "snapshots-text", "snapshots-text-v1",
    }  # fmt: skip


@pytest.fixture
def history(tmp_path, split):
    history = RunHistory(retention=Retention("best"))
    history.write(tmp_path, Scorer(split), {})
    return history


def add(history, folder, split, step, ais):
    """What the monitor does with a snapshot."""
    result = result_at(step, ais)
    history.save_embeddings(split, result, torch.full((split.num_items, 2), float(step)), torch.nn.Linear)
    history.results.append(result)
    history.write(folder, Scorer(split), {})


def test_the_best_of_the_last_checkpoint_stays_until_the_next_one(history, split, tmp_path):
    """A killed run goes back to that checkpoint: the better snapshots after it are then those of abandoned weights."""
    add(history, tmp_path, split, 0, 0.1)
    add(history, tmp_path, split, 2, 0.2)
    history.protect_checkpointed()
    state = {**history.state(window=1 / 3), "evaluator": {}}
    add(history, tmp_path, split, 4, 0.3)
    add(history, tmp_path, split, 6, 0.4)
    assert names(tmp_path / "snapshots") == ["step-00000002.safetensors", "step-00000006.safetensors"]
    (tmp_path / "snapshots" / "0123.draft").write_text("killed while writing")
    resumed = RunHistory(retention=Retention("best"))
    assert resumed.load(state, {})
    resumed.recover(tmp_path)
    resumed.write(tmp_path, Scorer(split), {})
    assert names(tmp_path / "snapshots") == ["step-00000002.safetensors"]


def test_a_snapshot_without_a_score_is_not_the_best(history, split, tmp_path):
    add(history, tmp_path, split, 0, math.nan)
    assert not (tmp_path / "snapshots").exists()
    add(history, tmp_path, split, 2, -0.5)
    add(history, tmp_path, split, 4, math.nan)
    add(history, tmp_path, split, 6, -0.5)
    assert names(tmp_path / "snapshots") == ["step-00000002.safetensors"]


@pytest.mark.parametrize("where", ["save_file", "_flush"])
def test_a_disk_that_refuses_leaves_nothing_half_written(split, tmp_path, monkeypatch, where):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    store = Store(tmp_path, Retention("all"))
    store.write(torch.ones(split.num_items, 2), split, result_at(2), {})
    monkeypatch.setattr(storage, where, full)
    with pytest.raises(OSError, match="No space left"):
        store.write(torch.ones(split.num_items, 2), split, result_at(4), {})
    assert names(tmp_path) == ["step-00000002.safetensors"]


def test_numbers_that_half_precision_cannot_hold_are_refused(split, tmp_path):
    store = Store(tmp_path, Retention("all", "float16"))
    with pytest.raises(ConfigError, match="float16 cannot hold representations as large as 1e\\+05"):
        store.write(torch.full((split.num_items, 2), 1e5), split, result_at(2), {})
    assert names(tmp_path) == []


# --- the best checkpoint, kept by Lightning's own callback ----------------------------------------------------------


def test_the_stock_checkpoint_beside_a_snapshot_holds_the_weights_that_were_scored(small_split, tmp_path):
    """The combination to use: both at the same steps; the weights of the file reproduce the recorded score."""
    best = ModelCheckpoint(
        tmp_path / "ckpt", monitor="lis/ais", mode="max", every_n_train_steps=2, save_on_train_epoch_end=False,
        filename="best-{step}",
    )  # fmt: skip
    monitor = small_run.monitor_of(small_split, save="best")
    with warnings.catch_warnings():
        warnings.simplefilter("error", LisWarning)
        small_run.fit(tmp_path, best, monitor, steps=12)
    winner = max(monitor.results[1:], key=lambda result: result.ais)
    assert Path(best.best_model_path).name == f"best-step={winner.step}.ckpt"
    module = small_run.Tower()
    module.load_state_dict(torch.load(best.best_model_path, weights_only=True)["state_dict"])
    with torch.no_grad():
        encoded = module.eval().encode_items({"x": small_run.contents()})
    assert small_split.score(encoded).ais == winner.ais
    if monitor.best_step == winner.step:
        kept = load_embeddings(tmp_path / "snapshots" / f"step-{winner.step:08d}.safetensors", small_split)
        assert np.allclose(kept, encoded, atol=1e-6)


def test_a_checkpoint_at_other_steps_stores_a_stale_score_and_is_warned_of(small_split, tmp_path):
    stale = ModelCheckpoint(
        tmp_path / "ckpt", monitor="lis/ais", mode="max", every_n_train_steps=3, save_top_k=-1, filename="{step}"
    )
    monitor = small_run.monitor_of(small_split)
    with pytest.warns(LisWarning, match=r"saves every 3 steps.*every 2 steps.*every_n_train_steps=2"):
        small_run.fit(tmp_path, stale, monitor, steps=3)
    scores = {Path(path).name: float(score) for path, score in stale.best_k_models.items()}
    assert scores["step=3.ckpt"] == pytest.approx(monitor.results[1].ais)  # of step 2
    assert monitor.results[2].step == 3
    assert scores["step=3.ckpt"] != pytest.approx(monitor.results[2].ais)


@pytest.mark.parametrize(
    ("options", "warned"),
    [
        ({"monitor": "lis/ais"}, True),  # each epoch
        ({"monitor": "lis/more/slice/seen_items"}, True),
        ({"monitor": "lis/text/ais", "every_n_train_steps": 3}, False),  # of another monitor
        ({"monitor": "val/loss"}, False),
        ({"every_n_train_steps": 3}, False),
        ({"monitor": "lis/ais", "every_n_train_steps": 4}, False),
    ],
)
def test_who_is_warned(small_split, tmp_path, options, warned):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        save = ModelCheckpoint(tmp_path, **options)
        small_run.monitor_of(small_split).setup(_trainer_with(tmp_path, save), small_run.Tower(), "fit")
    assert any(warning.category is LisWarning for warning in caught) is warned


def _trainer_with(folder, callback):
    return small_run.pl.Trainer(
        callbacks=[callback], default_root_dir=folder, logger=False, accelerator="cpu", enable_progress_bar=False
    )
