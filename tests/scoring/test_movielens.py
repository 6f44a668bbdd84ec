"""The measurements that the score's definition rests on, on real data (skipped where LIS_DATA is not set)."""

import numpy as np
import polars as pl
import pytest

from lis_lightning import PreferenceSplit
from lis_lightning.scoring.preferences import BUILT_IN, CrossFittedVectors
from lis_lightning.scoring.scorer import Scorer, score


@pytest.fixture(scope="module")
def split(movielens_folder):
    return PreferenceSplit.from_log(movielens_folder / "interactions.parquet", label=("rating", 4))


@pytest.fixture(scope="module")
def text(split, movielens_folder):
    ids = pl.read_parquet(movielens_folder / "items.parquet")["item_id"].to_list()
    row = {item: index for index, item in enumerate(ids)}
    vectors = np.load(movielens_folder / "text_minilm.npy").astype(np.float64)
    return vectors[[row[item] for item in split.item_ids]]


@pytest.fixture(scope="module")
def raw(split, text):
    return split.score(text)


def test_base_with_ids(raw):
    assert 0.757 <= raw.auc_base <= 0.768


def test_raw_text_gains_a_little(raw):
    assert 0.002 <= raw.ais <= 0.004
    assert raw.ais_low > 0
    assert raw.placebo.passed


def test_ceilings(raw):
    assert 0.007 <= raw.ceilings["pairs"].value <= 0.011
    assert 0.003 <= raw.ceilings["ids"].value <= 0.006


def test_naive_leak_is_refused_because_it_carries_the_label(split, raw):
    everything = np.ones(split.log.user.size, bool)
    for kind, preference in BUILT_IN.items():
        vectors = preference.build(split.log, everything)
        naive = Scorer(split).leak_arm(CrossFittedVectors(vectors, [vectors] * 5))
        assert naive.gain.value > 0.015
        assert naive.gain.value > 1.5 * raw.ceilings[kind].value


def test_random_representations_gain_nothing(split):
    rng = np.random.default_rng(0)
    _ = Scorer(split).base_ranker
    for _ in range(20):
        blank = score(split, rng.standard_normal((split.num_items, 64)), ceilings=(), placebo=False)
        assert blank.ais == 0.0 or abs(blank.ais) <= 2.5 * blank.se


def test_rotation_scale_and_shift_change_nothing(split, text, raw):
    rng = np.random.default_rng(0)
    turn, _ = np.linalg.qr(rng.standard_normal((text.shape[1], text.shape[1])))
    moved = score(split, 3.0 * text @ turn + 0.1 * rng.standard_normal(text.shape[1]), placebo=False)
    assert moved.ais == pytest.approx(raw.ais, abs=1e-6)


def test_a_constant_gains_exactly_nothing(split):
    assert score(split, np.full((split.num_items, 64), 0.1), placebo=False).ais == 0.0
