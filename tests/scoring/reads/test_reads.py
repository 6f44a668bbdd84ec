"""Readings of a representation: what each is worth, and that the score of the vectors does not depend on them."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from lis_lightning.align.world import generate_world
from lis_lightning.data.split import PreferenceSplit
from lis_lightning.errors import ConfigError, ItemError, LogError, ShapeError
from lis_lightning.results.frame import snapshots_frame
from lis_lightning.results.reading import with_churn
from lis_lightning.results.record_contents import pack, unpack
from lis_lightning.results.snapshot import Snapshot
from lis_lightning.results.verdict import judge
from lis_lightning.scoring.cache import SplitCache
from lis_lightning.scoring.options import ScoreOptions
from lis_lightning.scoring.reads import CodeTable, Prefixes, Search, SemanticIds
from lis_lightning.scoring.reads.prefix_rates import prefix_rates
from lis_lightning.scoring.reads.semantic_ids import aligned_items
from lis_lightning.scoring.scorer import Scorer

NUM_ITEMS, RANDOM = 400, np.random.default_rng(5)


@pytest.fixture(scope="module")
def world():
    return generate_world(None, seed=3, num_users=800, num_items=NUM_ITEMS, num_events=24_000)


@pytest.fixture(scope="module")
def scorer(world):
    columns = {"user": "user_id", "item": "item_id", "time": "timestamp", "label": "clicked"}
    return Scorer(PreferenceSplit.from_log(world.log, **columns, max_events=None), cache_dir="off")


@pytest.fixture(scope="module")
def vectors(world, scorer):
    latents = world.item_latents[world.items.rows(scorer.split.item_ids)]
    return np.concatenate([latents, 0.05 * RANDOM.normal(size=(len(latents), 10))], axis=1).astype(np.float32)


def table(scorer, *codes):
    columns = {f"c{level}": code for level, code in enumerate(codes)}
    return CodeTable(pl.DataFrame({"item_id": scorer.split.item_ids} | columns))


@pytest.fixture(scope="module")
def result(scorer, vectors):
    size = scorer.split.num_items
    reads = {
        "codes": SemanticIds(),
        "coarse": SemanticIds(levels=1, size=2),
        "one": table(scorer, np.zeros(size, int)),
        "random": table(scorer, *RANDOM.integers(0, 16, (3, size))),
        "cosine": "cosine",
        "prefix": Prefixes([4, 8, 99]),
        "search": Search(10),
    }
    named = {"last": vectors, "other": vectors[:, ::2].copy()}
    return scorer.score(named, ScoreOptions(ceilings=(), placebo=False, reads=reads))


def test_the_score_of_the_vectors_does_not_depend_on_what_else_is_read(scorer, vectors, result):
    alone = scorer.score(vectors, ScoreOptions(ceilings=(), placebo=False))
    assert alone.ais == result.ais
    assert np.array_equal(alone.influence, result.influence)


@pytest.mark.parametrize(
    ("name", "columns"), [("prefix_4", slice(4)), ("prefix_8", slice(8)), ("other", slice(0, 99, 2))]
)
def test_columns_and_other_representations_are_scored_as_on_their_own(scorer, vectors, result, name, columns):
    alone = scorer.score(vectors[:, columns].copy(), ScoreOptions(ceilings=(), placebo=False))
    assert result.reads[name].ais == pytest.approx(alone.ais, abs=1e-9)
    assert "prefix_99" not in result.reads


def test_cosine_is_the_geometry_with_its_interval(result):
    cosine = result.reads["cosine"]
    assert cosine.ais == pytest.approx(result.ais_geometry, abs=1e-12)
    assert cosine.ais_low < cosine.ais < cosine.ais_high


def test_codes_keep_what_their_items_share(result):
    """Well-spread codes keep most of the gain, two codes little of it, one nothing, and random ones nothing either."""
    fine, coarse, one, random = (result.reads[name] for name in ("codes", "coarse", "one", "random"))
    assert result.ais > 0.02
    assert 0.6 < fine.retained_low < fine.retained < 1.1
    assert coarse.retained_high < 0.5
    assert one.ais == 0.0
    assert random.ais_low <= 0 <= random.ais_high
    assert fine.facts["collision_rate"] < 0.2
    assert coarse.facts["collision_rate"] > 0.9
    assert fine.codes.shape == (len(result.item_gains), 3)


def test_codes_are_the_same_each_time_and_none_come_of_a_constant(scorer, vectors, result):
    again = scorer.score(vectors, ScoreOptions(ceilings=(), placebo=False, reads=["codes"])).reads["codes"]
    assert np.array_equal(again.codes, result.reads["codes"].codes)
    constant = scorer.score(np.full_like(vectors, 0.3), ScoreOptions(ceilings=(), placebo=False, reads=["codes"]))
    assert constant.reads["codes"].ais == 0.0
    assert not constant.reads["codes"].codes.any()


def test_codebooks_are_fitted_on_what_alignment_may_see(scorer):
    split = scorer.split
    aligned = np.isin(split.item_ids, split.alignment["item_id"].unique().to_numpy())
    assert np.array_equal(aligned_items(SplitCache(split, "off")), aligned)


def test_a_table_of_the_same_codes_scores_the_same(scorer, vectors, result):
    codes = result.reads["codes"].codes
    own = table(scorer, *codes.T)
    reading = scorer.score(vectors, ScoreOptions(ceilings=(), placebo=False, reads={"own": own})).reads["own"]
    assert reading.ais == result.reads["codes"].ais


def test_a_table_without_a_representation_is_scored_by_the_prefixes_that_items_share(scorer, result):
    codes = result.reads["codes"].codes
    shared = scorer.score(
        table(scorer, *codes.T).vectors(scorer.split.item_ids), ScoreOptions(ceilings=(), placebo=False)
    )
    assert 0 < shared.ais_low < result.reads["codes"].ais_high


def test_names_of_codes_do_not_matter(scorer):
    codes = RANDOM.integers(0, 12, (3, scorer.split.num_items))
    renamed = [RANDOM.permutation(12)[level] for level in codes]
    ids = scorer.split.item_ids
    assert np.array_equal(table(scorer, *codes).vectors(ids), table(scorer, *renamed).vectors(ids))


def test_the_prefixes_of_a_narrow_representation_are_its_quarter_and_its_half(scorer, vectors):
    reads = scorer.score(vectors, ScoreOptions(ceilings=(), placebo=False, reads=["prefix"])).reads
    assert list(reads) == ["prefix_4", "prefix_8"]


def test_rates_of_prefixes_are_those_of_the_other_items_before_each_event(scorer):
    split, log = scorer.split, scorer.split.log
    prefixes = RANDOM.integers(0, 5, (split.num_items, 1))
    rates = prefix_rates(SplitCache(split, "off"), prefixes)[:, 0].numpy()
    times = log.time[(log.user < split.num_users) & (log.window > 0)]

    def logit(share):
        return np.log(share / (1 - share))

    for event in (0, 100, len(split.events) - 1):
        target = split.events.item[event]
        before = (log.time < times[event]) & (log.item != target) & (log.item < split.num_items)
        inside = before & (prefixes[np.minimum(log.item, split.num_items - 1), 0] == prefixes[target, 0])
        overall = (log.label[before].sum() + split.prior) / (before.sum() + 1)
        rate = (log.label[inside].sum() + 20 * overall) / (inside.sum() + 20)
        assert rates[event] == pytest.approx(logit(rate) - logit(overall), abs=1e-12)


def test_a_search_reads_the_nearest_events_and_beats_the_last_ones(result):
    search = result.reads["search"]
    assert search.facts["gain_low"] > 0
    assert 0 < search.facts["long_histories"] < 1


def test_a_search_that_returns_more_than_any_history_has_is_refused(scorer, vectors):
    with pytest.raises(ConfigError, match=r"more than 5000 earlier events.*longest history has 50.*history=1000"):
        scorer.score(vectors, ScoreOptions(ceilings=(), placebo=False, reads={"search": Search(5000)}))


def test_readings_survive_the_record(result):
    snapshot = Snapshot.of(result, step=10)
    (read,) = unpack(pack([snapshot]))
    assert read.scalars().keys() == snapshot.scalars().keys()
    assert snapshots_frame([snapshot])["codes/ais", "codes/retained_low", "search/gain"].rows() == [
        (result.reads["codes"].ais, result.reads["codes"].retained_low, result.reads["search"].facts["gain"])
    ]
    for name, reading in snapshot.reads.items():
        assert read.reads[name].facts == reading.facts
        assert np.array_equal(read.reads[name].codes, reading.codes)


def test_churn_is_against_the_codes_of_the_snapshot_before(result):
    reading = result.reads["codes"]
    moved = replace(reading, codes=np.roll(reading.codes, 1, axis=0))
    assert with_churn(reading, reading).facts["churn"] == 0.0
    assert with_churn(moved, reading).facts["churn"] > 0.5
    assert "churn" not in with_churn(reading, None).facts


def test_codes_that_lose_most_of_the_gain_are_the_verdict(result):
    lossy = replace(result, reads={"codes": result.reads["coarse"]}, placebo=None)
    judgement = judge([lossy])
    assert judgement.verdict == "quantisation-bound"
    assert "'codes' keeps" in judgement.message
    assert judge([replace(result, reads={"codes": result.reads["codes"]})]).verdict != "quantisation-bound"


@pytest.mark.parametrize(
    ("reads", "message"),
    [
        ("codes", r"as a list or a mapping, got text; write \('codes',\)"),
        (["kmeans"], r"Unknown reading 'kmeans'; expected one of \['codes', 'cosine', 'prefix', 'search'\]"),
        ({"My Codes": "codes"}, r"lower-case letters.*got 'My Codes'"),
        ({"slice": "codes"}, r"none of .*'slice'.*got 'slice'"),
    ],
)
def test_readings_that_cannot_be_logged_are_refused_at_once(reads, message):
    with pytest.raises(ConfigError, match=message):
        ScoreOptions(reads=reads)


def test_bad_options_of_readings_name_what_came():
    for make, message in (
        (lambda: SemanticIds(levels=0), "`levels` of whole numbers of at least 1, got 0"),
        (lambda: SemanticIds(size=7.5), "`size` of whole numbers of at least 2, got 7.5"),
        (lambda: SemanticIds(seed=-1), "`seed` of whole numbers of at least 0, got -1"),
        (lambda: Prefixes([64, 0]), "`dims` of whole numbers of at least 1, got 0"),
        (lambda: Prefixes([True]), "`dims` of whole numbers of at least 1, got True"),
        (lambda: Prefixes(5), "list of numbers of dimensions, got 5"),
        (lambda: Search(2.5), "`events` of whole numbers of at least 1, got 2.5"),
        (lambda: ScoreOptions(reads=5), "list or a mapping, got int"),
        (lambda: ScoreOptions(reads=[Search(3)]), r"Expected names in `reads`, got Search\(events=3\)"),
        (lambda: ScoreOptions(reads={"a": {"size": 3}}), "Unknown reading {'size': 3}"),
    ):
        with pytest.raises(ConfigError, match=message):
            make()


def test_bad_representations_by_name_say_which(scorer, vectors):
    options = ScoreOptions(ceilings=(), placebo=False)
    with pytest.raises(ShapeError, match="empty mapping"):
        scorer.score({}, options)
    with pytest.raises(ShapeError, match=rf"\[{scorer.split.num_items}, dim\]"):
        scorer.score({"last": vectors, "middle": vectors[1:]}, options)
    with pytest.raises(ConfigError, match="has 16 dimensions, none of"):
        scorer.score(vectors, ScoreOptions(ceilings=(), placebo=False, reads={"prefix": Prefixes([64])}))
    clash = {"prefix": Prefixes([2]), "prefix_2": "cosine"}
    with pytest.raises(ConfigError, match="Two readings are named 'prefix_2'"):
        scorer.score(vectors, ScoreOptions(ceilings=(), placebo=False, reads=clash))
    with pytest.raises(ConfigError, match="of 999 codes a level need as many items"):
        scorer.score(vectors, ScoreOptions(ceilings=(), placebo=False, reads={"codes": SemanticIds(size=999)}))


def test_bad_tables_of_codes_say_what_to_do(scorer, vectors):
    ids = scorer.split.item_ids
    with pytest.raises(ConfigError, match="columns of codes beside 'item_id'"):
        CodeTable(pl.DataFrame({"item_id": ids}))
    with pytest.raises(ItemError, match="more than one row for the items 7"):
        CodeTable(pl.DataFrame({"item_id": [7, 7], "c": [0, 1]}))
    with pytest.raises(LogError, match="Column 'c' has 1 missing"):
        CodeTable(pl.DataFrame({"item_id": [7, 8], "c": [0, None]}))
    with pytest.raises(ConfigError, match=r"of at least \[2\], the codes that the table has; got \[1\]"):
        CodeTable(pl.DataFrame({"item_id": [7, 8], "c": [0, 5]}), sizes=[1])
    short = CodeTable(pl.DataFrame({"item_id": ids[1:], "c": np.zeros(len(ids) - 1, int)}))
    with pytest.raises(ItemError, match="have no row in the table of codes"):
        scorer.score(vectors, ScoreOptions(ceilings=(), placebo=False, reads={"own": short}))


def test_readings_on_float64_and_half_precision(scorer, vectors):
    for dtype in (torch.float64, torch.bfloat16):
        options = ScoreOptions(ceilings=(), placebo=False, reads=["codes"])
        reading = scorer.score(torch.from_numpy(vectors).to(dtype), options).reads["codes"]
        assert reading.retained > 0.6
