import dataclasses
import math
import re

import numpy as np
import polars as pl
import pytest

from lis_lightning import PreferenceSplit
from lis_lightning.errors import ConfigError, NonFiniteError, ShapeError
from lis_lightning.results.result import Ceiling
from lis_lightning.scoring.auditing import audit, judge_ceiling
from lis_lightning.scoring.scorer import Scorer


@pytest.fixture(scope="module")
def noise(split):
    return np.random.default_rng(0).standard_normal((split.num_items, 8))


@pytest.fixture(scope="module")
def result(split, latents, noise):
    return audit(split, embeddings={"noise": noise, "latents": latents})


def test_ceilings_and_gains_are_those_of_the_split(result, split, latents):
    (part,) = result.parts
    assert result.aligned_to == "pairs"
    assert list(part.ceilings) == ["pairs", "ids"]
    assert part.ceilings["pairs"].value == Scorer(split).ceiling("pairs").value
    assert part.results["latents"].ais == split.score(latents, placebo=False).ais
    assert (part.task, part.period) == ("label", 0)
    assert part.begins == "2020-12-08"
    assert part.facts["base_auc"] == split.describe()["base_auc"]
    assert abs(part.placebo.value) < 3 * part.placebo.se + 1e-12


def test_latents_rank_above_noise(result):
    (pair,) = result.parts[0].ranking
    assert (pair.better, pair.worse, pair.significant) == ("latents", "noise", True)
    findings = {finding.name: finding for finding in result.parts[0].findings}
    assert list(findings) == ["pairs", "ids", "noise", "latents"]
    assert findings["noise"].verdict == "no-gain"
    assert findings["latents"].verdict in {"gain", "ceiling-not-binding", "at-ceiling"}


def test_no_embeddings_are_needed(split):
    steps = []
    bare = audit(split, ["ids"], progress=lambda *step: steps.append(step))
    assert bare.aligned_to == "ids"
    assert [finding.name for finding in bare.parts[0].findings] == ["ids"]
    assert bare.parts[0].ranking == ()
    assert [number for _, number, _ in steps] == list(range(steps[0][2])), "each step is reported with its number"


def test_what_cannot_be_audited_says_which(split, noise):
    with pytest.raises(ConfigError, match="no preference data to audit"):
        audit(split, [])
    with pytest.raises(ConfigError, match=r"`aligned_to` among the preference data \['pairs'\], got 'ids'"):
        audit(split, ["pairs"], aligned_to="ids")
    with pytest.raises(ShapeError, match=r"^short: .*\[\d+, dim\].*got \[3, 8\]"):
        audit(split, ["pairs"], {"short": noise[:3]})
    with pytest.raises(NonFiniteError, match=r"^broken: `embeddings` has NaN or infinity in 1 of"):
        audit(split, ["pairs"], {"broken": np.where(np.arange(len(noise))[:, None] == 4, np.nan, noise)})


def test_tasks_and_periods_each_have_a_part(log, split, latents):
    table = log.with_columns(other=1 - log["label"])
    rolling = PreferenceSplit.from_log(table, label=["label", "other"], windows="rolling", num_periods=2)
    rows = latents[split.item_rows(rolling.item_ids)]
    result = audit(rolling, ["pairs"], {"latents": rows})
    assert [(part.task, part.period) for part in result.parts] == [("label", 0), ("other", 0), ("label", 1)]
    assert [part.period for part in result.periods] == [0, 1]
    later = result.periods[1]
    assert later.begins > result.parts[0].begins
    assert later.results["latents"].ais == rolling.score(rows, placebo=False).periods[0].ais
    assert later.ceilings["pairs"].value == Scorer(rolling.periods[1]).ceiling("pairs").value
    change = result.aging["ais", "latents"]
    assert change.value == pytest.approx(later.results["latents"].ais - result.parts[0].results["latents"].ais)
    assert {row["measure"] for row in result.rows()} >= {"ceiling_aging", "ais_aging"}


def ceiling(value, spread, **fields):
    influence = np.tile([1.0, -1.0], 200) * spread / math.sqrt(400)
    return Ceiling(value=value, low=value - 1.97 * spread, high=value + 1.97 * spread, influence=influence, **fields)


@pytest.mark.parametrize(
    ("given", "verdict", "words"),
    [
        (ceiling(0.02, 0.002), "worth-aligning", r"^LIS of clicks \(an est.*\) is \+0\.0200 .*: worth aligning to\.$"),
        (ceiling(0.006, 0.002), "worth-aligning", r"uncertain \(z 3\.0\), so no share of it is reported"),
        (ceiling(0.0003, 0.0003), "underpowered", r"\+0\.0003 .* But 1,000 test events show gains"),
        (ceiling(0.0003, 0.00005), "data-bound", "more or better preference data is needed"),
        (ceiling(0.01, 0.01), "underpowered", r"1,000 test events cannot tell, about 62,000 can"),
        (ceiling(0.02, 0.002, missing_positive=0.5, missing_negative=0.1), "worth-aligning", "50% of the p.* and 10%"),
        (ceiling(0.02, 0.002, cross_fitted=False), "worth-aligning", "not cross-fitted"),
        (ceiling(0.0, 0.0, cross_fitted=False), "underpowered", "from .0.0200 only, about 4,000 .* not cross-f"),
    ],
)  # fmt: skip
def test_a_ceiling_is_judged_in_words_to_act_on(given, verdict, words):
    finding = judge_ceiling("clicks", given, 1000, 0.02)
    assert finding.verdict == verdict
    assert re.search(words, finding.message)


def test_a_low_ceiling_is_data_bound_only_where_the_split_would_have_shown_more():
    low = ceiling(0.0003, 0.0003)
    fine = judge_ceiling("clicks", low, 200_000, 0.002)
    assert fine.verdict == "data-bound"
    assert "+0.0003 [-0.0003, +0.0009]: more or better preference data is needed" in fine.message
    coarse = judge_ceiling("clicks", low, 200_000, 0.010, num_days=30.0)
    assert coarse.verdict == "underpowered"
    assert "about 400,000 the +0.005 that matters (60 days at this rate): more users" in coarse.message


def test_a_log_of_two_users_is_underpowered_whatever_its_interval():
    rng = np.random.default_rng(0)
    log = pl.DataFrame(
        {"user_id": rng.integers(0, 2, 4000), "item_id": rng.integers(0, 30, 4000), "timestamp": np.arange(4000),
         "label": rng.integers(0, 2, 4000)}
    )  # fmt: skip
    split = PreferenceSplit.from_log(log)
    for ceilings in ((), ("pairs",)):
        result = split.score(rng.standard_normal((split.num_items, 8)), ceilings=ceilings, cache_dir="off")
        assert result.num_users == 2
        assert result.verdict == "underpowered"


def test_one_user_is_underpowered_without_a_number():
    alone = Ceiling(value=0.01, low=-math.inf, high=math.inf, influence=np.zeros(1))
    finding = judge_ceiling("clicks", alone, 5)
    assert finding.verdict == "underpowered"
    assert "rests on one user" in finding.message


def test_what_the_future_adds_is_paired_by_user(split):
    given = Scorer(split).ceiling("pairs")
    both = given.future
    assert both.value == pytest.approx(given.value - given.past)
    spread = given.influence - given.past_influence
    assert both.se == pytest.approx(math.sqrt(spread.size / (spread.size - 1) * (spread**2).sum()))
    assert math.isnan(dataclasses.replace(given, past=math.nan, past_influence=np.zeros(0)).future.value)
