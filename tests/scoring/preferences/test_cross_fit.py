"""Preference data of every form on one log, against the built-in builders and against what it must not hold."""

import functools
import itertools

import numpy as np
import polars as pl
import pytest

from lis_lightning import IdEmbeddings, PairTable, PreferenceSplit
from lis_lightning.errors import ConfigError, LisWarning, NonFiniteError, ShapeError
from lis_lightning.functional.alternating_least_squares import id_vectors
from lis_lightning.functional.item_vectors import ItemVectors
from lis_lightning.scoring.preferences import CrossFittedVectors, as_preference, tie_folds
from lis_lightning.scoring.preferences.built_in import BUILT_IN
from lis_lightning.scoring.preferences.item_ids import log_positions
from lis_lightning.scoring.scorer import Scorer


def pairs_of(events):
    """Return the pairs of items that a user clicked, as a data team would export them."""
    rows = []
    for (user,), own in events.filter(pl.col("label") == 1).group_by("user_id", maintain_order=True):
        rows += [(user, *pair) for pair in itertools.combinations(sorted(own["item_id"].unique()), 2)]
    return pl.DataFrame(rows, schema=["user_id", "item_a", "item_b"], orient="row")


@pytest.fixture(scope="module")
def table(log):
    return pairs_of(log)


def of_ids(vectors, split, ids):
    """Return vectors by item id."""
    rows = {item: row for row, item in enumerate(split.log_item_ids.tolist())}
    return vectors.vectors[[rows[item] for item in ids]]


def same_vectors(first, second):
    np.testing.assert_array_equal(first.present, second.present)
    # In single precision, and close components may come in any rotation.
    np.testing.assert_allclose(first.vectors @ first.vectors.T, second.vectors @ second.vectors.T, atol=1e-4)


def test_a_table_made_from_the_log_gives_the_built_in_vectors(split, table):
    built_in, own = as_preference("pairs").match(split), as_preference(PairTable(table, user="user_id")).match(split)
    assert own.cross_fitted
    assert own.past is None
    expected, actual = built_in.future(), own.future()
    same_vectors(actual.reference, expected.reference)
    for fold, expected_fold in zip(actual.folds, expected.folds, strict=True):
        same_vectors(fold, expected_fold)
    ceiling, builtin_ceiling = Scorer(split).ceiling(PairTable(table, user="user_id")), Scorer(split).ceiling("pairs")
    assert ceiling.value == pytest.approx(builtin_ceiling.value, abs=1e-5)
    assert np.isnan(ceiling.past)


def test_rows_of_a_pair_add_up_in_either_direction(split, table):
    rng = np.random.default_rng(0)
    weighted = table.with_columns(w=pl.Series(rng.integers(1, 4, table.height)))
    spelled = pl.concat([weighted[np.repeat(np.arange(table.height), weighted["w"].to_numpy())]])
    turned = spelled.with_columns(
        item_a=pl.when(pl.int_range(pl.len()) % 2 == 0).then("item_b").otherwise("item_a"),
        item_b=pl.when(pl.int_range(pl.len()) % 2 == 0).then("item_a").otherwise("item_b"),
        w=pl.lit(2.5),
    )
    oneself = pl.concat([turned, turned[:50].with_columns(item_b="item_a")])
    expected = as_preference(PairTable(weighted, user="user_id", weight="w")).match(split).future()
    same_vectors(
        as_preference(PairTable(oneself, user="user_id", weight="w")).match(split).future().reference,
        expected.reference,
    )


def test_a_held_out_user_leaves_no_trace(split, table):
    """Whatever the users of a fold did, the vectors that their events see are the same."""
    folds = split.user_folds()
    held = folds.filter(pl.col("fold") == 2)["user"]
    rng = np.random.default_rng(0)
    other = pl.Series(rng.permutation(table["item_b"].to_numpy()))
    altered = table.with_columns(
        item_b=pl.when(pl.col("user_id").is_in(held.implode())).then(other).otherwise("item_b")
    )
    one, two = (
        as_preference(PairTable(given.with_columns(w=1.0), user="user_id", weight="w")).match(split).future().folds[2]
        for given in (table, altered)
    )
    np.testing.assert_allclose(one.vectors @ one.vectors.T, two.vectors @ two.vectors.T, atol=1e-8)


def test_a_naive_table_is_what_the_refusal_keeps_out(split, table):
    honest = Scorer(split).ceiling(PairTable(table, user="user_id"))
    naive = Scorer(split).ceiling(PairTable(table, holds_no_evaluation_events=True))
    assert naive.value > 1.5 * honest.value
    assert not naive.cross_fitted
    assert honest.cross_fitted


def test_a_result_says_which_ceilings_rest_on_a_claim(split, latents, table):
    given = {"told": PairTable(table, holds_no_evaluation_events=True), "cut": PairTable(table, user="user_id")}
    text = str(split.score(latents, ceilings=given, aligned_to="cut", placebo=False))
    assert "LIS of told, an estimate (not cross-fitted)" in text
    assert text.count("not cross-fitted") == 1


def test_time_cuts_the_past_off_before_w2(log, split):
    # An export with the time of the later click: the past variant may only see pairs completed before w2.
    times = log.filter(pl.col("label") == 1).group_by("user_id", "item_id").agg(t=pl.col("timestamp").min())
    timed = (
        pairs_of(log)
        .join(times.rename({"item_id": "item_a", "t": "t_a"}), on=["user_id", "item_a"])
        .join(times.rename({"item_id": "item_b", "t": "t_b"}), on=["user_id", "item_b"])
        .with_columns(t=pl.max_horizontal("t_a", "t_b"))
    )
    own = as_preference(PairTable(timed, user="user_id", time="t")).match(split)
    expected = as_preference("pairs").match(split)
    same_vectors(own.future().reference, expected.future().reference)
    same_vectors(own.past().reference, expected.past().reference)
    ceiling = Scorer(split).ceiling(PairTable(timed, user="user_id", time="t"))
    assert ceiling.past == pytest.approx(Scorer(split).ceiling("pairs").past, abs=1e-5)


def test_rows_after_the_last_event_are_not_used(split, table):
    end = int(split.log.time.max())
    timed = table.with_columns(t=pl.lit(end), w=pl.lit(1.0))
    late = timed.with_columns(t=pl.lit(end + 1), item_b="item_a", item_a="item_b", w=pl.lit(9.0))[:200]
    one, two = (
        as_preference(PairTable(given, user="user_id", time="t", weight="w")).match(split).future().reference
        for given in (timed, pl.concat([timed, late.select(timed.columns)]))
    )
    same_vectors(one, two)


def test_a_period_uses_nothing_of_later_ones(log):
    rolling = PreferenceSplit.from_log(log, windows="rolling", num_periods=2)
    first, last = rolling.periods
    assert first.log.time.max() < last.log.time.max()
    seen = []

    def build(events):
        seen.append(events["time"].max())
        return {item: np.eye(4)[item % 4] for item in events["item"].unique()}

    Scorer(first).ceiling(build)
    assert max(seen) == first.log.time.max()


def test_other_units_of_time_are_refused(split, table):
    milliseconds = table.with_columns(t=pl.lit(1_600_000_000_000))
    with pytest.raises(
        ConfigError, match=r"column 't', 1600000000000 to 1600000000000.*16\d{8} to 16\d{8}\).*one unit"
    ):
        as_preference(PairTable(milliseconds, user="user_id", time="t")).match(split)


def test_a_claim_that_times_speak_against_is_told(split, table):
    begin = split.log.time[split.log.window == 1].min()
    timed = table.with_columns(t=pl.when(pl.int_range(pl.len()) < 7).then(int(begin)).otherwise(int(begin) - 1))
    with pytest.warns(LisWarning, match=rf"7 of {table.height} rows .* are in w1 or w2 \(at {begin} or later\)"):
        as_preference(PairTable(timed, time="t", holds_no_evaluation_events=True)).match(split)


def test_users_of_another_system_would_leak_and_are_refused(split, table):
    renamed = table.with_columns(user_id=pl.format("u{}", "user_id"))
    with pytest.raises(
        ConfigError,
        match=r"None of the \d+ scored users .*'user_id'.*it has ids such as 'u0', .*the log such as 0, 1, 2, 3, 4",
    ):
        as_preference(PairTable(renamed, user="user_id")).match(split)
    others = as_preference(PairTable(renamed, user="user_id", holds_no_evaluation_events=True)).match(split)
    assert not others.cross_fitted
    assert len(others.future().folds) == 1


def test_few_known_users_are_told(log, table):
    """One scored user in a hundred, and the rest under other names: what their own events would leak is not cut."""
    split = PreferenceSplit.from_log(log)
    user = int(split.user_ids[0])
    renamed = table.with_columns(user_id=pl.when(pl.col("user_id") == user).then("user_id").otherwise(10_000))
    with pytest.warns(LisWarning, match=rf"Only 1 of the {split.num_users} scored users"):
        as_preference(PairTable(renamed, user="user_id")).match(split)


def test_unknown_items_are_left_out_and_told(split, table):
    more = pl.concat([table, table[:3].with_columns(item_b=pl.Series([7, 8, 8]))])
    with pytest.warns(LisWarning, match=r"2 of \d+ items of column 'item_b' of the pair table .* such as 7, 8"):
        actual = as_preference(PairTable(more.with_columns(w=1.0), user="user_id", weight="w")).match(split)
    expected = as_preference(PairTable(table.with_columns(w=1.0), user="user_id", weight="w")).match(split)
    same_vectors(actual.future().reference, expected.future().reference)


def test_items_of_another_system_are_refused(split, table):
    text = table.with_columns(pl.col("item_a").cast(pl.String))
    with pytest.raises(
        ConfigError, match=r"Only 0 of \d+ item ids of column 'item_a'.*\(text here, integers in the log"
    ):
        as_preference(PairTable(text, user="user_id")).match(split)
    with pytest.raises(
        ConfigError, match=r"Only 0 of 3 item ids of ID embeddings.*such as 1, 2, 3, the log's such as 10\d\d"
    ):
        as_preference(IdEmbeddings(np.eye(3), [1, 2, 3], holds_no_evaluation_events=True)).match(split)
    apart = pl.DataFrame({"item_a": [1001, 1002], "item_b": [1001, 1002], "user_id": [1, 2]})
    with pytest.raises(ConfigError, match="None of the 2 rows of the pair table pairs two different items"):
        as_preference(PairTable(apart, user="user_id")).match(split)


def test_a_large_catalogue_around_a_small_log_is_no_other_system(split):
    ids = np.r_[split.item_ids, 10_000_000 + np.arange(200 * split.num_items)]
    with pytest.warns(LisWarning, match=rf"{200 * split.num_items} of {201 * split.num_items} items of a catalogue"):
        at = log_positions(split, ids, "a catalogue")
    np.testing.assert_array_equal(split.log_item_ids[at[: split.num_items]], split.item_ids)


def test_ids_of_other_integer_types_are_compared_by_value(split):
    wide = np.r_[split.item_ids.astype(np.uint64), np.uint64(2**64 - 1), np.uint64(2**63 + 1001)]
    at = log_positions(split, wide, "hashes", warn=False)
    assert at[-2:].tolist() == [-1, -1]
    assert (at[:-2] >= 0).all()


def fold_embeddings(split, log, item_ids):
    """Train embeddings as a user would: on the log without the users of each fold."""
    folds = split.user_folds()
    item = {item: row for row, item in enumerate(item_ids)}
    vectors = {}
    for fold in range(5):
        held = folds.filter(pl.col("fold") == fold)["user"]
        events = log.filter(~pl.col("user_id").is_in(held.implode()))
        rows = np.array([item[i] for i in events["item_id"]])
        vectors[fold] = id_vectors(
            events["user_id"].to_numpy(), rows, events["label"].to_numpy().astype(float), len(item_ids)
        ).vectors
    return vectors


def test_embeddings_trained_a_fold_reproduce_the_built_in_ceiling(split, log):
    item_ids = sorted(log["item_id"].unique())
    own = Scorer(split).ceiling(IdEmbeddings(fold_embeddings(split, log, item_ids), item_ids))
    built_in = Scorer(split).ceiling("ids")
    assert own.cross_fitted
    assert own.value == pytest.approx(built_in.value, abs=0.1 * built_in.value)
    assert np.isnan(own.past)


def test_the_spaces_of_folds_are_tied_whatever_their_rotation_and_order(split, log):
    item_ids = sorted(log["item_id"].unique())
    rng = np.random.default_rng(0)
    given = fold_embeddings(split, log, item_ids)
    turned = {fold: rows @ np.linalg.qr(rng.standard_normal((16, 16)))[0] for fold, rows in given.items()}
    one, two = (Scorer(split).ceiling(IdEmbeddings(vectors, item_ids)) for vectors in (given, turned))
    assert two.value == pytest.approx(one.value, abs=1e-4)


def test_spaces_that_differ_by_a_rotation_alone_become_one():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((30, 4))
    folds = []
    for _ in range(5):
        present = rng.random(30) < 0.8
        turn = np.linalg.qr(rng.standard_normal((4, 4)))[0]
        folds.append(ItemVectors((rows @ turn) * present[:, None], present))
    leak = tie_folds(folds)
    for fold in leak.folds:
        np.testing.assert_allclose(fold.vectors[fold.present], leak.reference.vectors[fold.present], atol=1e-9)


def test_embeddings_of_w0_are_taken_at_their_word(split, log):
    item_ids = sorted(log["item_id"].unique())
    row = {item: index for index, item in enumerate(item_ids)}
    past = split.alignment
    vectors = id_vectors(
        past["user_id"].to_numpy(),
        np.array([row[i] for i in past["item_id"]]),
        past["label"].to_numpy().astype(float),
        60,
    ).vectors
    ceiling = Scorer(split).ceiling(IdEmbeddings(vectors, item_ids, holds_no_evaluation_events=True))
    assert not ceiling.cross_fitted
    assert ceiling.value < Scorer(split).ceiling("ids").value
    # A row of zeros is an absent item, and a flag in both arms says so.
    assert ceiling.missing_negative == pytest.approx(0.2, abs=0.12)


def embed(events):
    """Train embeddings on events as the built-in builder does."""
    items = events["item"].unique().sort()
    row = {item: index for index, item in enumerate(items)}
    vectors = id_vectors(
        events["user"].rank("dense").cast(pl.Int64).to_numpy(),
        np.array([row[item] for item in events["item"]]),
        events["label"].to_numpy().astype(float),
        items.len(),
    )
    return items.to_numpy(), vectors.vectors


@pytest.mark.parametrize("text", [False, True], ids=["integer ids", "text ids"])
def test_a_callable_that_does_what_we_do_gives_our_ceiling(log, text):
    if text:
        log = log.with_columns(user_id=pl.format("u{}", "user_id"), item_id=pl.format("i{}", "item_id"))
    split = PreferenceSplit.from_log(log)
    calls = []

    def build(events):
        calls.append(events)
        return embed(events)

    own, built_in = Scorer(split).ceiling(build), Scorer(split).ceiling("ids")
    assert own.value == pytest.approx(built_in.value, abs=1e-4)
    assert own.past == pytest.approx(built_in.past, abs=1e-4)
    assert own.cross_fitted
    assert len(calls) == 12
    assert calls[0].columns == ["user", "item", "time", "label"]
    assert calls[0].height == log.height
    held = set(split.user_folds().filter(pl.col("fold") == 0)["user"])
    assert not held & set(calls[1]["user"])
    assert held <= set(calls[0]["user"])
    Scorer(split).ceiling(build)
    Scorer(split).reference_vectors(build)
    assert len(calls) == 12


def test_a_mapping_of_ids_to_vectors_will_do(split):
    one = as_preference(embed).match(split).future().reference

    other = as_preference(lambda events: dict(zip(*embed(events), strict=True))).match(split).future().reference
    same_vectors(other, one)


BAD_BUILDS = {
    "nothing": (lambda e: None, ConfigError, "to return a mapping .* got NoneType"),
    "matrix alone": (lambda e: embed(e)[1], ConfigError, "got ndarray"),
    "rows": (lambda e: (embed(e)[0], embed(e)[1][1:]), ShapeError, r"of shape \[60, dim\].*got \[59, 16\]"),
    "nan": (lambda e: (embed(e)[0], embed(e)[1] * np.nan), NonFiniteError, "in 60 of 60 rows, first for .*1000, 1001"),
    "widths": (lambda e: {1000: np.ones(3), 1001: np.ones(4)}, ShapeError, r"one width, got shapes \[\(3,\), \(4,\)\]"),
    "scalars": (lambda e: {1000: 1.0, 1001: 2.0}, ShapeError, r"one vector an item.*got shapes \[\(\)\]"),
    "no items": (lambda e: {}, ShapeError, r"got shapes \[\]"),
    "row numbers": (lambda e: (np.arange(60), embed(e)[1]), ConfigError, "Only 0 of 60 item ids of the vectors of"),
    "changing": (
        lambda e: (embed(e)[0], embed(e)[1][:, : 16 if e.height == 6000 else 8]),
        ShapeError,
        "Expected vectors of width 16 from .*, as before, got 8",
    ),
}


@pytest.mark.parametrize("case", BAD_BUILDS, ids=str)
def test_what_a_callable_returns_is_checked(split, case):
    build, error, message = BAD_BUILDS[case]
    with pytest.raises(error, match=message) as caught:
        as_preference(build).match(split).future()
    assert "`<lambda>`" in str(caught.value)


def test_a_callable_is_kept_on_disk_only_by_its_own_key(log, tmp_path):
    calls = []

    def build(events):
        calls.append(1)
        return embed(events)

    def score_anew(builder):
        return Scorer(PreferenceSplit.from_log(log, seed=11), cache_dir=tmp_path).ceiling(builder).value

    first = score_anew(build)
    assert score_anew(build) == first
    assert len(calls) == 24
    build.cache_key = "als, 8 rounds"
    assert score_anew(build) == first
    assert len(calls) == 36
    assert score_anew(functools.wraps(build)(lambda events: build(events))) == first
    assert len(calls) == 36


def test_preference_data_by_name_in_a_score(split, latents, table):
    own = PairTable(table, user="user_id")
    result = split.score(latents, ceilings={"ids": "ids", "mine": own}, aligned_to="mine", placebo=False)
    assert list(result.ceilings) == ["ids", "mine"]
    assert result.constants()["ceiling_mine"] == Scorer(split).ceiling(own).value
    assert result.ceiling is result.ceilings["mine"]
    pairs = split.score(latents, ceilings=("pairs",), placebo=False)
    assert result.companions["cka"] == pytest.approx(pairs.companions["cka"], abs=1e-6)
    assert result.realised == pytest.approx(pairs.realised, abs=1e-4, nan_ok=True)
    with pytest.raises(ConfigError, match=r"`aligned_to` among the ceilings \['mine'\], got 'pairs'"):
        split.score(latents, ceilings={"mine": own})


def test_embeddings_of_fewer_dimensions_than_the_probe_has_axes_will_do(split):
    rng = np.random.default_rng(0)
    for width in (1, 2):
        given = IdEmbeddings(rng.standard_normal((split.num_items, width)), split.item_ids, True)
        assert abs(Scorer(split).ceiling(given).value) < 0.02


def test_a_table_of_one_pair_says_nothing(split):
    one = pl.DataFrame({"item_a": [1001], "item_b": [1002], "user_id": split.user_ids[:1]})
    with pytest.warns(LisWarning, match="Only 1 of the"):
        ceiling = Scorer(split).ceiling(PairTable(one, user="user_id"))
    assert ceiling.low <= 0 <= ceiling.high
    assert ceiling.missing_positive > 0.9


def test_leaks_without_folds_are_scored_in_one_space(split):
    rows = np.random.default_rng(0).standard_normal((split.log.num_items, 8))
    space = ItemVectors(rows, np.ones(split.log.num_items, bool))
    one = Scorer(split).leak_arm(CrossFittedVectors(space, [space]))
    five = Scorer(split).leak_arm(CrossFittedVectors(space, [space] * 5))
    np.testing.assert_allclose(one.score, five.score, atol=1e-9)


@pytest.mark.parametrize("preference", ["pairs", "ids"])
def test_the_past_of_a_period_is_all_of_the_period_before(log, preference):
    """Its vectors are the same bits, so that rolling windows build them once."""
    first, last = PreferenceSplit.from_log(log, windows="rolling", num_periods=2).periods
    before = BUILT_IN[preference].match(first).future()
    past = BUILT_IN[preference].match(last).past()
    for one, other in zip([before.reference, *before.folds], [past.reference, *past.folds], strict=True):
        np.testing.assert_array_equal(one.vectors, other.vectors)
        np.testing.assert_array_equal(one.present, other.present)


@pytest.mark.parametrize("cache_dir", ["off", "scores"])
def test_a_ceiling_of_a_later_period_does_not_depend_on_what_is_cached(log, cache_dir, tmp_path):
    folder = cache_dir if cache_dir == "off" else tmp_path / cache_dir
    periods = PreferenceSplit.from_log(log, windows="rolling", num_periods=2).periods
    in_order = [Scorer(split, cache_dir=folder).ceiling("pairs") for split in periods]
    alone = Scorer(
        PreferenceSplit.from_log(log, windows="rolling", num_periods=2).periods[1], cache_dir=tmp_path / "new"
    )
    assert alone.ceiling("pairs").past == in_order[1].past
    np.testing.assert_array_equal(alone.ceiling("pairs").past_influence, in_order[1].past_influence)
