import itertools
import pickle

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings, strategies as st

from lis_lightning import PreferenceSplit
from lis_lightning.errors import ConfigError, LogError
from lis_lightning.scoring import cache as _cache

TASKS = {"click": "label", "like": ("stars", 4), "buy": "buy"}


@pytest.fixture(scope="module")
def rich(log):
    """The log with more to know of each event."""
    rng = np.random.default_rng(1)
    buys = log["label"].to_numpy() * (rng.random(len(log)) < 0.4)
    return log.with_columns(
        buy=pl.Series(buys.astype(np.int8)),
        stars=pl.Series(rng.integers(1, 6, len(log))),
        dwell=pl.Series(rng.exponential(10, len(log))),
        ranker=pl.Series(rng.standard_normal(len(log)) + log["label"].to_numpy()),
    )


@pytest.fixture(scope="module")
def several(rich):
    return PreferenceSplit.from_log(rich, label=TASKS, max_events=2000)


@pytest.fixture(scope="module")
def rolling(rich):
    return PreferenceSplit.from_log(rich, label=["label", "buy"], windows="rolling", num_periods=3)


def test_the_first_label_is_the_primary_task(several):
    assert several.task == "click"
    assert list(several.tasks) == ["click", "like", "buy"]
    assert several.tasks["click"] is several
    assert several.tasks["buy"].tasks["click"] is several


def test_tasks_share_all_but_what_a_label_decides(several):
    for split in several.tasks.values():
        for name in ("item_ids", "user_ids", "log_item_ids", "history_item", "alignment", "slices", "settings"):
            assert getattr(split, name) is getattr(several, name), name
        for name in ("user", "item", "train", "start", "stop", "unseen"):
            assert getattr(split.events, name) is getattr(several.events, name), name
        for name in ("user", "item", "time", "window"):
            assert getattr(split.log, name) is getattr(several.log, name), name
        assert split.events.by_user.count is several.events.by_user.count
        assert split.events.by_item.count is several.events.by_item.count


@pytest.mark.parametrize("task", TASKS)
def test_a_task_is_the_split_of_its_label_alone(several, rich, task):
    alone = PreferenceSplit.from_log(rich, label=TASKS[task], max_events=2000)
    among = several.tasks[task]
    assert among.hash == alone.hash
    assert among.prior == alone.prior
    np.testing.assert_array_equal(among.events.label, alone.events.label)
    np.testing.assert_array_equal(among.history_label, alone.history_label)
    np.testing.assert_array_equal(among.events.by_item.positives, alone.events.by_item.positives)
    np.testing.assert_array_equal(among.events.by_user.positives, alone.events.by_user.positives)


def test_tasks_differ_in_hash_and_prior(several):
    assert len({split.hash for split in several.tasks.values()}) == 3
    assert len({split.prior for split in several.tasks.values()}) == 3


def test_alignment_has_the_label_of_each_task(several, rich):
    assert several.alignment.columns == ["user_id", "item_id", "timestamp", "label", "like", "buy", "drawn"]
    labelled = several.alignment.join(rich, on=["user_id", "item_id", "timestamp"], suffix="_log")
    assert labelled.height >= several.alignment.height
    assert (labelled["like"] == (labelled["stars"] >= 4)).all()
    assert (labelled["buy"] == labelled["buy_log"]).all()
    assert (labelled["label"] == labelled["label_log"]).all()


def test_one_column_twice_needs_names(rich):
    split = PreferenceSplit.from_log(rich, label={"like": ("stars", 4), "love": ("stars", 5)})
    assert split.events.label.mean() > split.tasks["love"].events.label.mean()
    with pytest.raises(ConfigError, match=r"names a column twice: \['stars', 'stars'\]"):
        PreferenceSplit.from_log(rich, label=[("stars", 4), ("stars", 5)])


def test_each_task_may_have_its_own_base_logit(rich):
    split = PreferenceSplit.from_log(rich, label=["label", "buy"], base_logit={"buy": "ranker"})
    assert split.events.base_logit is None
    assert split.tasks["buy"].events.base_logit.size == len(split.events)


def test_weights_follow_their_events(rich):
    split = PreferenceSplit.from_log(rich, weight="dwell", max_events=1500)
    rows = {"user_id": split.user_ids[split.events.user], "item_id": split.item_ids[split.events.item]}
    weighted = pl.DataFrame(rows | {"dwell": split.events.weight})
    assert weighted.join(rich, on=["user_id", "item_id", "dwell"], how="semi").height == weighted.height
    assert PreferenceSplit.from_log(rich).events.weight is None


def test_periods_follow_one_another(rolling, rich):
    assert len(rolling.periods) == 3
    assert rolling.periods[0] is rolling
    assert rolling.periods[2].periods is rolling.periods
    spans = []
    for index, split in enumerate(rolling.periods):
        assert split.period == index
        windows = [split.log.time[split.log.window == window] for window in (0, 1, 2)]
        assert windows[0].max() < windows[1].min()
        assert windows[1].max() < windows[2].min()
        assert split.events.train.sum() == pytest.approx(len(rich) / 8, rel=0.02)
        spans.append((windows[1].min(), windows[1].max(), windows[2].min(), windows[2].max()))
    for earlier, later in itertools.pairwise(spans):
        assert earlier[2:] == later[:2], "the test window of one period trains the next"
    assert spans[0][0] > np.median(rich["timestamp"].to_numpy())
    assert spans[-1][3] == rich["timestamp"].max()


def test_a_period_knows_nothing_of_what_comes_after_it(rolling):
    for split in rolling.periods:
        assert split.log.time.max() == split.log.time[split.log.window == 2].max()
        assert set(np.unique(split.log.window)) == {0, 1, 2}
    sizes = [split.log.user.size for split in rolling.periods]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1] == 6000


def test_alignment_stays_before_the_first_period(rolling):
    first = rolling.log.time[rolling.log.window == 1].min()
    assert rolling.alignment["timestamp"].max() < first
    assert all(split.alignment is rolling.alignment for split in rolling.periods)


def test_periods_share_items_and_users(rolling):
    for split in rolling.periods:
        assert split.item_ids is rolling.item_ids
        assert split.user_ids is rolling.user_ids
        assert split.history_item is rolling.history_item
        assert split.slices.keys() == rolling.slices.keys()


def test_a_period_is_the_split_of_its_windows(rolling, rich):
    """Cut by hand at the same timestamps, from a log that ends there."""
    for split in rolling.periods:
        w1, w2 = (int(split.log.time[split.log.window == window].min()) for window in (1, 2))
        seen = rich.filter(pl.col("timestamp") <= split.log.time.max())
        alone = PreferenceSplit.from_log(seen, windows=(w1, w2))
        assert alone.prior == split.prior
        for name in ("label", "train"):
            np.testing.assert_array_equal(getattr(alone.events, name), getattr(split.events, name))
        np.testing.assert_array_equal(alone.item_ids[alone.events.item], split.item_ids[split.events.item])
        np.testing.assert_array_equal(alone.user_ids[alone.events.user], split.user_ids[split.events.user])
        np.testing.assert_array_equal(alone.events.by_item.positives, split.events.by_item.positives)
        for event in range(0, len(split.events), 53):
            own, other = (s.history_item[s.events.start[event] : s.events.stop[event]] for s in (split, alone))
            np.testing.assert_array_equal(split.item_ids[own], alone.item_ids[other])


def test_each_period_has_every_task(rolling):
    later = rolling.tasks["buy"].periods[2]
    assert later is rolling.periods[2].tasks["buy"]
    assert later.task == "buy"
    assert len({split.hash for task in rolling.tasks.values() for split in task.periods}) == 6


def test_the_budget_counts_every_period_once_and_whole_users(rich):
    split = PreferenceSplit.from_log(rich, windows="rolling", num_periods=3, max_events=1000)
    rows = {
        (u, t, i) for p in split.periods for u, t, i in zip(p.events.user, p.events.stop, p.events.item, strict=True)
    }
    assert 900 < len(rows) <= 1000
    half = np.quantile(rich["timestamp"], 0.5, method="higher")
    own = rich.filter(pl.col("user_id").is_in(split.user_ids.tolist()), pl.col("timestamp") >= half)
    assert sum(len(p.events) for p in split.periods) == own.height + sum(
        p.events.train.sum() for p in split.periods[1:]
    )


def test_fixed_windows_have_no_periods(split):
    assert split.periods == ()
    assert split.tasks == {"label": split}


def test_print_shows_every_task_and_period(rolling):
    text = str(rolling)
    rates = [other.events.label[~other.events.train].mean() for other in (rolling.tasks["buy"], rolling.periods[2])]
    assert f"also task 'buy': {rates[0]:.1%} of the test events are positive" in text
    assert f"also period 3: 750 and 750 events scored; {rates[1]:.1%}" in text
    assert "also period 1" not in text


def test_a_period_is_scored_without_what_comes_after_it(rolling, rich):
    """Labels after its w2 are turned: neither the base nor a ceiling of the period changes."""
    end = int(rolling.log.time.max())
    turned = rich.with_columns(
        pl.when(pl.col("timestamp") > end).then(1 - pl.col("label")).otherwise("label").alias("label")
    )
    other = PreferenceSplit.from_log(turned, label=["label", "buy"], windows="rolling", num_periods=3)
    assert other.hash == rolling.hash
    assert other.periods[1].hash != rolling.periods[1].hash
    assert (other.history_label != rolling.history_label).any()
    latents = np.random.default_rng(0).standard_normal((rolling.num_items, 4))
    scores, later = [], []
    for split in (rolling, other):
        _cache._alive.clear()  # one base would serve both, since their content is the same
        result = split.score(latents, ceilings=["pairs"], placebo=False, cache_dir="off")
        scores.append((result.ais, result.auc_base, result.ceilings["pairs"].value))
        later.append(result.periods[0].auc_base)
    assert scores[0] == scores[1]
    assert later[0] != later[1]


def test_a_family_survives_pickling(rolling):
    again = pickle.loads(pickle.dumps(rolling))
    assert again.tasks["label"] is again
    assert again.tasks["buy"].periods[1].hash == rolling.tasks["buy"].periods[1].hash
    assert again.periods[2].item_ids is again.item_ids


CHANGES = {
    "seed": {"seed": 1},
    "label": {"label": "buy"},
    "threshold": {"label": ("stars", 5)},
    "weight": {"weight": "dwell"},
    "other weight": {"weight": "stars"},
    "shares": {"windows": (0.5, 0.3, 0.2)},
    "rolling": {"windows": "rolling"},
    "periods": {"windows": "rolling", "num_periods": 2},
    "history": {"history": 49},
    "budget": {"max_events": 1000},
    "items": {"max_items": 59},
    "unseen": {"unseen_items": 0.3},
    "base": {"base_logit": "ranker"},
}


def test_hash_changes_with_all_that_a_score_depends_on(rich):
    hashes = {name: PreferenceSplit.from_log(rich, **options).hash for name, options in CHANGES.items()}
    hashes["as it is"] = PreferenceSplit.from_log(rich).hash
    assert len(set(hashes.values())) == len(hashes), hashes


@pytest.mark.parametrize("column", ["user_id", "item_id", "timestamp", "label"])
def test_hash_changes_with_any_value(rich, column):
    values = rich[column].to_numpy().copy()
    values[5900] = 1 - values[5900] if column == "label" else values[5900] + 1
    shifted = rich.with_columns(pl.Series(column, values))
    assert PreferenceSplit.from_log(shifted).hash != PreferenceSplit.from_log(rich).hash


def test_hash_does_not_change_with_what_a_score_does_not_depend_on(rich, split):
    assert PreferenceSplit.from_log(rich, slices=["stars"]).hash == split.hash
    narrow = rich.with_columns(pl.col("timestamp").cast(pl.Int32), pl.col("user_id").cast(pl.UInt16))
    assert PreferenceSplit.from_log(narrow).hash == split.hash
    assert PreferenceSplit.from_log(rich, windows=(0.5, 0.25, 0.25), num_periods=9).hash == split.hash
    assert PreferenceSplit.from_log(rich.rename({"label": "y"}), label={"click": "y"}).hash == split.hash


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), drawn=st.booleans())
def test_the_order_of_rows_never_matters(log, seed, drawn):
    table, options = (log.filter(pl.col("label") == 1), {"label": None, "negatives": 2}) if drawn else (log, {})
    options |= {"windows": "rolling", "max_events": 1200}
    given_order = PreferenceSplit.from_log(table, **options)
    shuffled = PreferenceSplit.from_log(table.sample(fraction=1, shuffle=True, seed=seed), **options)
    assert [split.hash for split in given_order.periods] == [split.hash for split in shuffled.periods]


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_names_of_users_do_not_matter(log, split, seed):
    names = np.random.default_rng(seed).permutation(10_000)[:150]
    renamed = PreferenceSplit.from_log(log.with_columns(user_id=pl.Series(names)[log["user_id"]].cast(pl.String)))
    assert (renamed.num_users, renamed.num_items, len(renamed.events)) == (
        split.num_users, split.num_items, len(split.events),
    )  # fmt: skip
    assert renamed.prior == split.prior
    for name, inside in split.slices.items():
        assert renamed.slices[name].sum() == inside.sum()
    np.testing.assert_array_equal(np.sort(renamed.events.by_user.count), np.sort(split.events.by_user.count))


@settings(max_examples=15, deadline=None)
@given(shift=st.integers(-1000, 1000), stretch=st.integers(1, 5))
def test_only_the_order_of_time_matters(log, split, shift, stretch):
    begin = log["timestamp"].min()
    moved = PreferenceSplit.from_log(log.with_columns((pl.col("timestamp") - begin) * stretch + shift))
    np.testing.assert_array_equal(moved.events.item, split.events.item)
    np.testing.assert_array_equal(moved.events.start, split.events.start)
    np.testing.assert_array_equal(moved.events.train, split.events.train)


def test_rolling_windows_without_events_are_named(rich):
    coarse = rich.with_columns(pl.col("timestamp") // 2_500_000)
    with pytest.raises(
        LogError, match=r"Window 2 of the 4 after w0 holds no event.*640 to 643.*begin at 641 and 642 and"
    ):
        PreferenceSplit.from_log(coarse, windows="rolling", num_periods=3)


def test_a_task_of_one_class_is_named_with_its_window(rich):
    early = rich.with_columns(pl.when(pl.int_range(pl.len()) < 3000).then("buy").otherwise(0).alias("buy"))
    with pytest.raises(LogError, match=r"Task 'buy': window w1 probe-train needs events of both classes, got 0 posit"):
        PreferenceSplit.from_log(early, label=["label", "buy"])
    late = rich.with_columns(pl.when(pl.int_range(pl.len()) >= 5400).then(1).otherwise("buy").alias("buy"))
    with pytest.raises(LogError, match="Task 'buy': window w2 probe-test of period 5 needs events of both classes"):
        PreferenceSplit.from_log(late, label=["label", "buy"], windows="rolling")
    with pytest.raises(LogError, match="Task 'rare': window w0 align needs events of both classes, got 0 positives"):
        PreferenceSplit.from_log(rich.with_columns(rare=pl.int_range(pl.len()) > 3000), label=["label", "rare"])
