import math

import numpy as np
import polars as pl
import pytest
import torch

from lis_lightning import PreferenceSplit
from lis_lightning.errors import ConfigError, NonFiniteError, ShapeError
from lis_lightning.scoring.preferences import CrossFittedVectors, build_ids
from lis_lightning.scoring.scorer import Scorer, score


@pytest.fixture(scope="module")
def result(split, latents):
    return split.score(latents)


def test_true_latents_gain_and_noise_does_not(split, result):
    assert result.ais_low > 0.02
    noise = np.random.default_rng(0).standard_normal((split.num_items, 16))
    blank = split.score(noise)
    assert blank.ais_low <= 0 <= blank.ais_high or abs(blank.ais) < 3 * blank.se
    assert result.placebo.passed


def test_a_constant_gains_exactly_nothing(split):
    flat = split.score(np.full((split.num_items, 8), 0.3, np.float32))
    assert (flat.ais, flat.ais_geometry, flat.ais_low, flat.ais_high) == (0.0, 0.0, 0.0, 0.0)
    assert flat.verdict == "collapsed"


def test_rotation_scale_and_shift_change_nothing(split, latents, result):
    rng = np.random.default_rng(0)
    turn, _ = np.linalg.qr(rng.standard_normal((4, 4)))
    moved = split.score(7.5 * latents @ turn + rng.standard_normal(4))
    assert moved.ais == pytest.approx(result.ais, abs=1e-6)
    assert moved.ais_geometry == pytest.approx(result.ais_geometry, abs=1e-6)


@pytest.mark.parametrize(("dtype", "scale"), [(np.float32, 1e30), (np.float32, 1e-30), (float, 1e200), (float, 1e-200)])
def test_no_scale_leaves_the_range_of_its_type(split, latents, result, dtype, scale):
    moved = score(split, (latents * scale).astype(dtype), placebo=False)
    assert moved.ais == pytest.approx(result.ais, abs=1e-6)


@pytest.mark.parametrize("column", ["user_id", "item_id"])
def test_a_log_of_next_to_nothing_is_underpowered_not_a_crash(log, column):
    """Two users leave folds without events; one item leaves pairs without a vector."""
    values = log["user_id"] % 2 if column == "user_id" else pl.lit(1)
    split = PreferenceSplit.from_log(log.with_columns(values.alias(column)))
    result = score(split, np.random.default_rng(0).standard_normal((split.num_items, 4)), placebo=False)
    assert math.isfinite(result.ceilings["pairs"].value)
    assert result.verdict in {"user_id": ("underpowered", "warming-up"), "item_id": ("collapsed",)}[column]
    assert math.isfinite(result.ais_low)


def test_a_score_is_a_function(split, latents, result):
    again = split.score(latents)
    assert again.ais == result.ais
    np.testing.assert_array_equal(again.influence, result.influence)


def test_any_float_type_and_tensors_are_welcome(split, latents, result):
    assert split.score(torch.from_numpy(latents)).ais == result.ais
    assert split.score(latents.astype(np.float16)).ais == pytest.approx(result.ais, abs=2e-3)


def test_naming_items_and_users_anew_changes_nothing(log, latents, result):
    # Codes follow the sorted order of ids, so an order-keeping renaming must give the same bits.
    renamed = log.with_columns(pl.col("item_id") * 3 + 7, pl.col("user_id") * 2)
    assert PreferenceSplit.from_log(renamed).score(latents).ais == pytest.approx(result.ais, abs=1e-12)


def test_results_pair_by_user(split, latents, result):
    noisy = split.score(latents + 2.0 * np.random.default_rng(0).standard_normal(latents.shape))
    difference = result.compare(noisy)
    assert difference.value == result.ais - noisy.ais
    assert 0 < difference.se < math.hypot(result.se, noisy.se)
    assert difference.z > 2


def test_results_of_other_splits_do_not_pair(log, result, latents):
    other = PreferenceSplit.from_log(log, max_events=1500)
    with pytest.raises(ShapeError, match=f"{result.split_hash!r}.*{other.hash!r}"):
        result.compare(other.score(np.random.default_rng(0).standard_normal((other.num_items, 3))))


def test_a_given_base_logit_replaces_the_built_in_base(log, latents):
    rng = np.random.default_rng(0)
    split = PreferenceSplit.from_log(log.with_columns(b=pl.Series(rng.standard_normal(len(log)))), base_logit="b")
    assert Scorer(split).base_ranker.design.shape[1] == 2
    assert split.score(latents).auc_base == pytest.approx(0.5, abs=0.05)


def test_naive_leak_exceeds_the_cross_fitted_ceiling(split):
    """Vectors that hold the scored events themselves carry their labels; this is why folds are left out."""
    everything = build_ids(split.log, np.ones(split.log.user.size, bool))
    naive = Scorer(split).leak_arm(CrossFittedVectors(everything, [everything] * 5))
    assert naive.gain.value > 2 * Scorer(split).ceiling("ids").value


def test_ceiling_is_an_interval_around_a_gain(result):
    for ceiling in result.ceilings.values():
        assert ceiling.low < ceiling.value < ceiling.high
        assert 0 <= ceiling.missing_positive <= 1
    assert set(result.ceilings) == {"pairs", "ids"}


def test_missing_vectors_are_counted_by_class(log):
    """Items bought once have no out-of-fold vector; the shares are printed and a flag enters both arms."""
    rng = np.random.default_rng(0)
    rare = pl.when(pl.Series(rng.random(len(log)) < 0.3)).then(pl.int_range(pl.len()) + 5000).otherwise("item_id")
    split = PreferenceSplit.from_log(log.with_columns(item_id=rare))
    ceiling = Scorer(split).ceiling("pairs")
    assert ceiling.missing_positive > 0.1
    assert ceiling.missing_negative > 0.1
    assert abs(ceiling.value) < 0.2


def test_shapes_and_numbers_are_checked(split, latents):
    with pytest.raises(ShapeError, match=rf"\[{split.num_items}, dim\].*got \[3, 4\]"):
        split.score(latents[:3])
    with pytest.raises(ShapeError, match=r"float type, got torch\.int64"):
        split.score(np.ones(latents.shape, int))
    bad = latents.copy()
    bad[5, 1] = np.nan
    with pytest.raises(NonFiniteError, match=rf"1 of {split.num_items} rows.*\[{split.item_ids[5]}\]"):
        split.score(bad)
    with pytest.raises(ConfigError, match=r"`aligned_to` among the ceilings \['ids'\], got 'pairs'"):
        score(split, latents, ceilings=["ids"])
    with pytest.raises(ConfigError, match="'clicks'; expected one of"):
        score(split, latents, ceilings=["clicks"], aligned_to="clicks")


def test_without_ceilings_there_is_no_share(split, latents):
    bare = score(split, latents, ceilings=())
    assert math.isnan(bare.realised)
    assert bare.ceilings == {}
    assert "cka" not in bare.companions


def test_scalars_are_the_logged_keys(result):
    headlines = {"ais", "ais_low", "ais_high", "headroom", "realised"}
    further = {
        "ais_geometry", "auc", "gauc_gain", "gauc_gain_low", "gauc_gain_high", "realised_low", "realised_high",
        "headroom_low", "headroom_high", "ais_seen", "ais_unseen", "companion/pair_auc", "companion/cka",
        "companion/rankme",
    }  # fmt: skip
    scored = {name for name, part in result.slices.items() if not math.isnan(part.value)}
    assert {"seen items", "unseen items"} <= scored
    further |= {f"slice/{name.replace(' ', '_')}{end}" for name in scored for end in ("", "_low", "_high")}
    assert set(result.scalars(more=False)) == headlines
    assert set(result.scalars()) == headlines | {f"more/{name}" for name in further}
    ceilings = {f"ceiling_{name}{end}" for name in ("pairs", "ids") for end in ("", "_low", "_high")}
    assert set(result.constants()) == ceilings | {"auc_base"}
    assert set(result.numbers()) >= headlines | further | ceilings


def test_a_result_prints_as_a_table(result):
    text = str(result)
    for expected in (
        "AIS, geometry only",
        "pairs would still add",
        "LIS of pairs, an estimate",
        "95 % interval",
        f"{result.ais:+.4f}",
    ):
        assert expected in text


def test_a_result_becomes_plain_values(result):
    plain = result.to_dict()
    assert plain["ais"] == result.ais
    assert isinstance(plain["ceilings"]["pairs"]["influence"], list)


def test_headroom_is_what_the_data_adds_to_the_representation(split, latents, result):
    assert result.headroom_low <= result.headroom <= result.headroom_high
    assert result.headroom < result.ceilings["pairs"].value  # the latents hold part of it already
    blank = score(split, np.ones((split.num_items, 3)), placebo=False)
    assert blank.headroom == blank.ceilings["pairs"].value
