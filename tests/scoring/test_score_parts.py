"""A score in parts: several labels, rolling windows, weights and slices, each equal to what it is by itself."""

import math

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.metrics import roc_auc_score

from lis_lightning import PreferenceSplit
from lis_lightning.functional.item_coordinates import principal_coordinates
from lis_lightning.scoring import score, scoring_pass
from lis_lightning.scoring.base_ranker import look_up_items, probe_inputs
from lis_lightning.scoring.gain import evaluate
from lis_lightning.scoring.scorer import Scorer


@pytest.fixture(scope="module")
def rich(log_maker):
    """A log with a second label, a value and a surface; the surface decides whether taste matters."""
    table, latents = log_maker(num_events=9000)
    rng = np.random.default_rng(5)
    clicked = table["label"].to_numpy()
    return table.with_columns(
        like=pl.Series(((clicked == 1) & (rng.random(clicked.size) < 0.6)).astype(np.int8)),
        value=pl.Series(rng.gamma(2.0, size=clicked.size)),
        surface=pl.Series(np.where(rng.random(clicked.size) < 0.7, "feed", "search")),
    ), latents


def rows_of(latents, split):
    return latents[split.item_ids - 1000]


def test_each_task_scores_as_it_would_alone(rich):
    table, latents = rich
    both = PreferenceSplit.from_log(table, label={"click": "label", "like": "like"})
    result = both.score(rows_of(latents, both))
    assert result.task == "click"
    assert list(result.tasks) == ["like"]
    for column, scored in (("label", result), ("like", result.tasks["like"])):
        alone = PreferenceSplit.from_log(table, label=column)
        single = alone.score(rows_of(latents, alone))
        assert single.ais == scored.ais
        assert single.ceilings["ids"].value == scored.ceilings["ids"].value
        np.testing.assert_array_equal(single.influence, scored.influence)
    assert result.tasks["like"].verdict
    assert result.scalars()["task/like/ais"] == result.tasks["like"].ais
    assert not any("companion" in key for key in result.scalars() if key.startswith("task/"))
    assert "[like] AIS" in str(result)


def test_several_tasks_take_one_pass_over_the_representation(rich, monkeypatch):
    table, latents = rich
    both = PreferenceSplit.from_log(table, label=["label", "like"])
    calls = []
    monkeypatch.setattr(scoring_pass, "look_up_items", lambda *args: calls.append(1) or look_up_items(*args))
    score(both, rows_of(latents, both), placebo=False, ceilings=())
    assert len(calls) == 1


def test_weighted_gain_is_that_of_weighted_aucs(rich):
    table, latents = rich
    split = PreferenceSplit.from_log(table, weight="value")
    result = score(split, rows_of(latents, split), ceilings=())
    prepared = Scorer(split).base_ranker
    inputs = probe_inputs(
        prepared, look_up_items(prepared.histories, [principal_coordinates(torch.from_numpy(rows_of(latents, split)))])
    )
    arm = evaluate(split, prepared, inputs, prepared.logits)
    weights = split.events.weight
    expected = roc_auc_score(arm.labels, arm.score, sample_weight=weights) - roc_auc_score(
        arm.labels, arm.base, sample_weight=weights
    )
    assert result.ais_weighted == pytest.approx(expected, abs=1e-12)
    assert result.ais_weighted_low < result.ais_weighted < result.ais_weighted_high
    assert result.ais_weighted != result.ais
    assert result.scalars()["more/ais_weighted"] == result.ais_weighted
    assert "AIS, weighted" in str(result)


def test_equal_weights_change_nothing(rich):
    table, latents = rich
    split = PreferenceSplit.from_log(table.with_columns(value=pl.lit(3.0)), weight="value")
    result = score(split, rows_of(latents, split), ceilings=())
    assert result.ais_weighted == pytest.approx(result.ais, abs=1e-12)
    assert result.ais_weighted_low == pytest.approx(result.ais_low, abs=1e-12)


def test_without_weights_nothing_is_logged_of_them(rich):
    table, latents = rich
    split = PreferenceSplit.from_log(table)
    result = score(split, rows_of(latents, split), ceilings=())
    assert math.isnan(result.ais_weighted)
    assert "more/ais_weighted" not in result.scalars()


def test_slices_hold_their_events_and_their_gain(rich):
    table, latents = rich
    split = PreferenceSplit.from_log(table, slices=["surface"])
    result = score(split, rows_of(latents, split), ceilings=())
    feed, search = result.slices["surface=feed"], result.slices["surface=search"]
    assert feed.num_events + search.num_events == result.num_events
    assert feed.low < feed.value < feed.high
    assert feed.high - feed.low < search.high - search.low  # fewer events, wider interval
    assert result.scalars()["more/slice/surface_feed"] == feed.value
    assert "AIS, surface=feed" in str(result)


def test_a_slice_too_small_to_say_anything_says_nothing(rich):
    table, latents = rich
    rare = pl.when(pl.int_range(pl.len()) % 50 == 0).then(pl.lit("rare")).otherwise(pl.lit("common"))
    split = PreferenceSplit.from_log(table.with_columns(surface=rare), slices=["surface"])
    result = score(split, rows_of(latents, split), ceilings=())
    part = result.slices["surface=rare"]
    assert 0 < part.num_events < scoring_pass.MIN_SLICE_EVENTS
    assert math.isnan(part.value)
    assert f"{part.num_events}" in str(result)


def test_periods_are_scored_and_aging_is_paired(rich):
    table, latents = rich
    split = PreferenceSplit.from_log(table, windows="rolling", num_periods=3)
    result = split.score(rows_of(latents, split), ceilings=["ids"], aligned_to="ids")
    assert len(result.periods) == len(split.periods) - 1 > 0
    alone = score(split.periods[1], rows_of(latents, split), ceilings=["ids"], aligned_to="ids", placebo=False)
    assert result.periods[0].ais == alone.ais
    aging = result.aging
    assert aging.value == result.periods[-1].ais - result.ais
    assert 0 < aging.se < math.hypot(result.se, result.periods[-1].se) * 1.5
    assert result.constants()["period/1/ceiling_ids"] == result.periods[0].ceilings["ids"].value
    assert "aging" in str(result)


def test_representations_that_wear_off_show_it(rich):
    """Taste that turns away from the latents with time leaves them with less to tell."""
    table, latents = rich
    rng = np.random.default_rng(1)
    late = table["timestamp"].to_numpy() > table["timestamp"].quantile(0.8)
    noise = rng.integers(0, 2, late.size)
    stale = table.with_columns(label=pl.Series(np.where(late, noise, table["label"].to_numpy()).astype(np.int8)))
    split = PreferenceSplit.from_log(stale, windows="rolling", num_periods=3)
    aging = score(split, rows_of(latents, split), ceilings=(), placebo=False).aging
    assert aging.high < 0


def test_per_user_gain_has_an_interval(rich):
    table, latents = rich
    split = PreferenceSplit.from_log(table)
    result = score(split, rows_of(latents, split), ceilings=())
    assert result.gauc_gain_low < result.gauc_gain < result.gauc_gain_high
