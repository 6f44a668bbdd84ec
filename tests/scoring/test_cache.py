import gc
import math
import multiprocessing
import os
import pickle
import warnings
import weakref
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import lis_lightning
from lis_lightning import PreferenceSplit
from lis_lightning.data.digest import digest, digest_ids
from lis_lightning.data.split import MEMO
from lis_lightning.errors import LisWarning
from lis_lightning.scoring import base_ranker, cache as _cache, ceiling
from lis_lightning.scoring.cache import cache_folder, load_or_compute, memoised
from lis_lightning.scoring.preferences import pair_table
from lis_lightning.scoring.scorer import Scorer


class Counter:
    """Arrays, and how often they were asked for."""

    def __init__(self):
        self.calls = 0
        self.arrays = {
            "a": np.random.default_rng(0).standard_normal((3, 4)),
            "b": np.array([True, False]),
            "c": np.array([np.nan, -0.0, np.inf]),
            "d": np.zeros((0, 2), np.float32),
        }

    def __call__(self):
        self.calls += 1
        return self.arrays


def same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert one[name].dtype == other[name].dtype
        assert one[name].shape == other[name].shape
        assert one[name].tobytes() == other[name].tobytes()


@pytest.fixture
def compute():
    return Counter()


@pytest.fixture
def files(tmp_path):
    return lambda: sorted((tmp_path / "scores").glob("*"))


def test_what_is_stored_comes_back_bit_for_bit(tmp_path, compute, files):
    same(load_or_compute("key", compute, cache_dir=tmp_path), compute.arrays)
    same(load_or_compute("key", compute, cache_dir=tmp_path), compute.arrays)
    assert compute.calls == 1
    load_or_compute("other", compute, cache_dir=tmp_path)
    assert compute.calls == 2
    assert [path.suffix for path in files()] == [".safetensors"] * 2


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text"])
def test_a_damaged_file_is_computed_again_with_one_warning(tmp_path, compute, files, damage):
    load_or_compute("key", compute, cache_dir=tmp_path)
    load_or_compute("more", compute, cache_dir=tmp_path)
    for path in files():
        data = bytearray(path.read_bytes())
        if damage == "flipped":
            data[-2] ^= 1
        path.write_bytes({"cut": data[:-9], "flipped": data, "empty": b"", "text": b"not tensors" * 99}[damage])
    with pytest.warns(LisWarning, match=r"cache in .*scores (is damaged|cannot be read).*LIS_CACHE=off"):
        same(load_or_compute("key", compute, cache_dir=tmp_path), compute.arrays)
    same(
        load_or_compute("more", compute, cache_dir=tmp_path), compute.arrays
    )  # without another warning, which would raise
    assert compute.calls == 4
    same(load_or_compute("key", compute, cache_dir=tmp_path), compute.arrays)
    assert compute.calls == 4


def test_a_folder_that_cannot_be_made_costs_one_warning(tmp_path, compute):
    (tmp_path / "file").write_text("in the way")
    with pytest.warns(LisWarning, match="cannot be written"):
        same(load_or_compute("key", compute, cache_dir=tmp_path / "file"), compute.arrays)
    same(load_or_compute("key", compute, cache_dir=tmp_path / "file"), compute.arrays)
    assert compute.calls == 2


def test_a_full_disk_leaves_no_file_behind(tmp_path, compute, files, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_cache.os, "replace", full)
    with pytest.warns(LisWarning, match="No space left on device"):
        same(load_or_compute("key", compute, cache_dir=tmp_path), compute.arrays)
    assert files() == []


def test_what_was_not_used_for_longest_makes_room(tmp_path, compute, files, monkeypatch):
    paths = {}
    for time, key in enumerate("abc"):
        before = set(files())
        load_or_compute(key, compute, cache_dir=tmp_path)
        (paths[key],) = set(files()) - before
        os.utime(paths[key], (time, time))
    load_or_compute("a", compute, cache_dir=tmp_path)  # used last, so "b" is now the oldest
    monkeypatch.setattr(_cache, "MAX_BYTES", 3 * paths["a"].stat().st_size)
    load_or_compute("d", compute, cache_dir=tmp_path)
    assert {key for key, path in paths.items() if path.exists()} == {"a", "c"}
    monkeypatch.setattr(_cache, "MAX_BYTES", 1)
    load_or_compute("e", compute, cache_dir=tmp_path)
    assert len(files()) == 1
    assert compute.calls == 5


def test_the_folder_is_the_argument_else_the_environment_else_home(tmp_path, monkeypatch, compute):
    monkeypatch.setenv("LIS_CACHE", str(tmp_path / "environment"))
    assert cache_folder(tmp_path) == tmp_path
    assert cache_folder() == tmp_path / "environment"
    monkeypatch.delenv("LIS_CACHE")
    assert cache_folder().parts[-2:] == (".cache", "lis-lightning")
    for off in ("off", "", "OFF"):
        monkeypatch.setenv("LIS_CACHE", off)
        assert cache_folder() is None
    assert cache_folder("off") is None
    load_or_compute("key", compute)
    load_or_compute("key", compute)
    assert compute.calls == 2


def test_a_user_without_a_home_has_no_cache(monkeypatch):
    def homeless(_):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("LIS_CACHE")
    monkeypatch.setattr(_cache.Path, "expanduser", homeless)
    assert cache_folder() is None


def test_other_code_does_not_read_old_numbers(tmp_path, compute, monkeypatch):
    load_or_compute("key", compute, cache_dir=tmp_path)
    monkeypatch.setattr(_cache, "_code_digest", lambda: "another version")
    load_or_compute("key", compute, cache_dir=tmp_path)
    assert compute.calls == 2


def test_a_digest_tells_parts_types_and_shapes_apart():
    array = np.arange(6)
    different = [
        ("ab", "c"), ("a", "bc"), ("abc",), (array,), (array.astype(np.int32),), (array.reshape(2, 3),), (array[::-1],),
    ]  # fmt: skip
    assert len({digest(*parts) for parts in different}) == len(different)
    assert digest_ids(np.array([1, 2])) != digest_ids(np.array(["1", "2"], dtype=object))
    assert digest(array[::2]) == digest(array[::2].copy())


def _store_many(folder, seed):
    for key in np.random.default_rng(seed).permutation(20):
        arrays = {"x": np.full(5000, float(key))}
        loaded = load_or_compute(str(key), lambda arrays=arrays: arrays, cache_dir=folder)
        assert (loaded["x"] == key).all()


def test_two_processes_share_a_folder(tmp_path, files):
    context = multiprocessing.get_context("fork")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking beside threads; the children touch none of them
        workers = [context.Process(target=_store_many, args=(tmp_path, seed)) for seed in range(3)]
        for worker in workers:
            worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert len(files()) == 20


class Owner:
    """Stands for a split."""


class Value:
    """Stands for a ceiling."""


def test_owners_of_one_content_share_while_one_lives():
    first, second = Owner(), Owner()
    value = memoised(first, "x", Value, content=lambda: "content")
    assert memoised(first, "x", Value, content=lambda: "content") is value
    assert memoised(second, "x", Value, content=lambda: "content") is value
    assert memoised(second, "x", Value, content=lambda: "other") is value
    assert memoised(Owner(), "x", Value, content=lambda: "another") is not value
    assert memoised(Owner(), "x", Value, content=lambda: None) is not value
    gone = weakref.ref(value)
    del value, first, second
    gc.collect()
    assert gone() is None


@pytest.fixture
def fresh(log, tmp_path, monkeypatch):
    """Makes splits whose cache is empty at first."""
    gc.collect()  # splits of other tests, found by their content, would save the computing
    monkeypatch.setenv("LIS_CACHE", str(tmp_path))
    return lambda seed=3: PreferenceSplit.from_log(log, seed=seed)


def computed(monkeypatch):
    """Count what is computed from now on."""
    calls = []
    for module, name in ((ceiling, "_measure"), (base_ranker, "_built_in"), (ceiling, "_pack_leak")):
        original = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, _o=original, _n=name: calls.append(_n) or _o(*a))
    return calls


def content(split):
    """Return all that base and ceiling are, in bytes."""
    base, measured, reference = (
        Scorer(split).base_ranker,
        Scorer(split).ceiling("pairs"),
        Scorer(split).reference_vectors("pairs"),
    )
    values = {**vars(measured), "logits": base.logits, "design": base.design, **vars(reference)}
    return {name: (type(value), np.asarray(value).tobytes()) for name, value in values.items()}


def test_base_and_ceiling_come_from_disk_as_they_were_computed(fresh, monkeypatch):
    calls = computed(monkeypatch)
    first = content(fresh())
    assert sorted(calls) == ["_built_in", "_measure", "_pack_leak"]
    gc.collect()
    assert content(fresh()) == first
    assert len(calls) == 3
    assert {"value", "past_influence", "cross_fitted", "vectors"} <= set(first)


def test_another_seed_or_label_is_computed_anew(fresh, log, monkeypatch):
    calls = computed(monkeypatch)
    old = Scorer(fresh()).ceiling("pairs")
    Scorer(fresh(seed=4)).ceiling("pairs")
    labels = log["label"].to_numpy().copy()
    labels[5000] ^= 1
    changed = PreferenceSplit.from_log(log.with_columns(label=pl.Series(labels)), seed=3)
    assert Scorer(changed).ceiling("pairs").influence.tobytes() != old.influence.tobytes()
    assert calls.count("_measure") == 3


def test_a_log_file_changed_under_a_cached_ceiling_is_noticed(tmp_path, log, monkeypatch):
    calls = computed(monkeypatch)
    path = tmp_path / "log.parquet"
    log.write_parquet(path)
    Scorer(PreferenceSplit.from_log(path, seed=12), cache_dir=tmp_path).ceiling("pairs")
    Scorer(PreferenceSplit.from_log(path, seed=12), cache_dir=tmp_path).ceiling("pairs")
    assert calls.count("_measure") == 1
    log.with_columns(label=pl.when(pl.int_range(pl.len()) == 5900).then(1 - pl.col("label")).otherwise("label")).cast(
        log.schema
    ).write_parquet(path)
    Scorer(PreferenceSplit.from_log(path, seed=12), cache_dir=tmp_path).ceiling("pairs")
    assert calls.count("_measure") == 2


def test_a_pickled_split_finds_what_was_computed_for_it(fresh, monkeypatch):
    calls = computed(monkeypatch)
    monkeypatch.setenv("LIS_CACHE", "off")
    split = fresh()
    measured = Scorer(split).ceiling("pairs")
    data = pickle.dumps(split)
    other = pickle.loads(data)
    assert MEMO not in vars(other)
    assert Scorer(other).ceiling("pairs") is measured
    assert calls.count("_measure") == 1


def test_what_is_kept_is_freed_with_the_split(fresh):
    split = fresh()
    measured = weakref.ref(Scorer(split).ceiling("pairs"))
    del split
    gc.collect()
    assert measured() is None


def test_a_score_writes_into_its_own_folder_alone_whatever_was_printed_before(log, tmp_path, monkeypatch):
    """In the order of lis-align: the split is printed, then scored with a folder of its own."""
    monkeypatch.setenv("LIS_CACHE", str(tmp_path / "default"))
    gc.collect()
    split = PreferenceSplit.from_log(log, seed=21)
    print(split)
    vectors = np.random.default_rng(0).standard_normal((split.num_items, 4))
    result = split.score(vectors, ceilings=["pairs"], cache_dir=tmp_path / "own")
    assert math.isfinite(result.headroom)
    assert not (tmp_path / "default").exists()
    assert len(list((tmp_path / "own" / "scores").iterdir())) == 3  # base ranker, cross-fitted vectors, ceiling


def test_switched_off_means_no_file_anywhere(log, tmp_path, monkeypatch):
    monkeypatch.setenv("LIS_CACHE", str(tmp_path / "default"))
    gc.collect()
    split = PreferenceSplit.from_log(log, seed=22)
    str(split)
    split.describe()
    blank = split.score(np.ones((split.num_items, 2)), ceilings=["pairs"], cache_dir="off")
    assert math.isfinite(blank.detectable)
    assert not (tmp_path / "default").exists()


def test_a_second_folder_gets_what_the_first_one_has_without_computing_it_again(log, tmp_path, monkeypatch):
    gc.collect()
    calls = computed(monkeypatch)
    split = PreferenceSplit.from_log(log, seed=23)
    vectors = np.random.default_rng(0).standard_normal((split.num_items, 4))
    one, other = (split.score(vectors, ceilings=["pairs"], cache_dir=tmp_path / name) for name in ("a", "b"))
    assert calls.count("_built_in") == 1
    assert calls.count("_measure") == 1
    assert one.headroom == other.headroom
    names = [sorted(path.name for path in (tmp_path / name / "scores").iterdir()) for name in ("a", "b")]
    assert names[0] == names[1]
    assert len(names[0]) == 3


def test_headroom_of_a_new_process_takes_the_cross_fitted_vectors_from_disk(fresh, monkeypatch):
    calls = computed(monkeypatch)
    split = fresh()
    vectors = np.random.default_rng(0).standard_normal((split.num_items, 4))
    first = split.score(vectors, ceilings=["pairs"]).headroom
    assert calls.count("_pack_leak") == 1
    del split
    gc.collect()
    assert fresh().score(vectors, ceilings=["pairs"]).headroom == first
    assert calls.count("_pack_leak") == 1


def test_vectors_that_cannot_be_stored_are_built_once_for_ceiling_and_headroom(log):
    split = PreferenceSplit.from_log(log, seed=24)
    calls = []

    def build(events):
        calls.append(1)
        ids = np.unique(events["item"].to_numpy())
        return ids, np.random.default_rng(0).standard_normal((ids.size, 4))

    split.score(np.eye(split.num_items), ceilings={"mine": build}, aligned_to="mine", placebo=False, cache_dir="off")
    assert len(calls) == 12


def test_editing_what_is_said_in_a_terminal_invalidates_nothing():
    sources = _cache.hashed_sources()
    rooms = {path.relative_to(Path(lis_lightning.__file__).parent).parts[0] for path in sources}
    assert rooms == {"data", "functional", "scoring"}


def test_editing_a_kind_of_preference_data_invalidates_its_ceilings():
    assert Path(pair_table.__file__) in _cache.hashed_sources()
