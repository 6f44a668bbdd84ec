import numpy as np
import polars as pl
import pytest

from lis_lightning import PreferenceSplit
from lis_lightning.errors import ConfigError, LogError

BUILT_IN = ["seen items", "unseen items", "head items", "tail items", "new items", "known users", "new users"]


@pytest.fixture(scope="module")
def skewed(log):
    """Popular and rare items, and items and users that come late."""
    rng = np.random.default_rng(2)
    item = (1000 + 60 * rng.random(len(log)) ** 3).astype(int)
    late = np.arange(len(log)) > 4500
    return log.with_columns(
        item_id=pl.Series(np.where(late & (rng.random(len(log)) < 0.2), item + 100, item)),
        user_id=pl.Series(np.where(late & (rng.random(len(log)) < 0.1), 500, 0)) + pl.col("user_id"),
        surface=pl.Series(rng.choice(["home", "search"], len(log))),
        many=pl.Series(rng.integers(0, 50, len(log)) ** 2 // 100),
    )


@pytest.fixture(scope="module")
def sliced(skewed):
    return PreferenceSplit.from_log(skewed, slices=["surface", "many"])


def test_every_split_has_the_built_in_slices(split):
    assert list(split.slices) == BUILT_IN
    assert all(inside.dtype == bool and inside.shape == (len(split.events),) for inside in split.slices.values())


@pytest.mark.parametrize(
    ("one", "other"), [("seen items", "unseen items"), ("head items", "tail items"), ("known users", "new users")]
)
def test_slices_complement_each_other(sliced, one, other):
    assert sliced.slices[one].any()
    assert sliced.slices[other].any()
    np.testing.assert_array_equal(sliced.slices[one], ~sliced.slices[other])


def test_new_users_and_items_were_not_there_before(sliced):
    log, events = sliced.log, sliced.events
    before = log.window == 0
    np.testing.assert_array_equal(sliced.slices["new users"], ~np.isin(events.user, log.user[before]))
    np.testing.assert_array_equal(sliced.slices["new items"], ~np.isin(events.item, log.item[before]))
    assert not (sliced.slices["new items"] & sliced.slices["head items"]).any()
    assert sliced.slices["new items"].any()


def test_the_head_is_the_fewest_items_that_make_four_fifths_of_the_past(sliced):
    log, events = sliced.log, sliced.events
    counts = np.bincount(log.item[log.window == 0], minlength=log.num_items)
    head = np.unique(events.item[sliced.slices["head items"]])
    tail = np.unique(events.item[sliced.slices["tail items"]])
    assert not np.intersect1d(head, tail).size
    assert counts[tail].max() < counts[head].min()
    threshold = next(c for c in np.unique(counts)[::-1] if counts[counts >= c].sum() >= 0.8 * counts.sum())
    np.testing.assert_array_equal(sliced.slices["head items"], counts[events.item] >= threshold)


def column_values(split, table, column):
    """The column's value for each scored event, found by user, item and time."""
    rows = np.flatnonzero((split.log.user < split.num_users) & (split.log.window > 0))
    keys = pl.DataFrame(
        {
            "user_id": split.log_user_ids[split.log.user[rows]],
            "item_id": split.log_item_ids[split.log.item[rows]],
            "timestamp": split.log.time[rows],
        }
    )
    return keys.join(table, on=keys.columns, how="left", maintain_order="left")[column].to_numpy()


def test_columns_are_sliced_by_value(sliced, skewed):
    values = column_values(sliced, skewed, "surface")
    np.testing.assert_array_equal(sliced.slices["surface=home"], values == "home")
    np.testing.assert_array_equal(sliced.slices["surface=search"], values == "search")
    assert "surface=(other)" not in sliced.slices


def test_twelve_most_frequent_values_of_the_test_window_and_the_others(sliced, skewed):
    values = column_values(sliced, skewed, "many")
    names = [name for name in sliced.slices if name.startswith("many=")]
    assert len(names) == 13
    assert names[-1] == "many=(other)"
    test = pl.Series(values[~sliced.events.train].astype(str)).value_counts(sort=True)
    common = test["count"].to_list()
    assert [int((values[~sliced.events.train].astype(str) == name[5:]).sum()) for name in names[:12]] == common[:12]
    other = ~np.isin(values.astype(str), [name[5:] for name in names[:12]])
    np.testing.assert_array_equal(sliced.slices["many=(other)"], other)


def test_missing_values_are_a_group(log):
    surface = pl.Series(["home", None, "search"] * 2000)
    split = PreferenceSplit.from_log(log.with_columns(surface=surface), slices=["surface"])
    groups = {name: inside for name, inside in split.slices.items() if "=" in name}
    assert set(groups) == {"surface=home", "surface=search", "surface=(none)"}
    assert sum(inside.astype(int) for inside in groups.values()).tolist() == [1] * len(split.events)


@pytest.mark.parametrize("kind", [pl.Boolean, pl.Int8, pl.UInt32, pl.Categorical, pl.Enum(["0", "1"])], ids=str)
def test_any_categorical_column_will_do(log, kind):
    text = isinstance(kind, pl.Enum) or kind == pl.Categorical
    values = log["user_id"] % 2
    column = values.cast(pl.String).cast(kind) if text else values.cast(kind)
    split = PreferenceSplit.from_log(log.with_columns(half=column), slices=["half"])
    names = {"half=false", "half=true"} if kind == pl.Boolean else {"half=0", "half=1"}
    assert {name for name in split.slices if "=" in name} == names


def test_ids_and_values_named_other_are_swallowed(log):
    odd = log.with_columns(
        tag=pl.when(pl.col("user_id") < 100).then(pl.lit("(other)")).otherwise(pl.col("item_id").cast(pl.String))
    )
    split = PreferenceSplit.from_log(odd, slices=["tag", "item_id"])
    groups = {name: inside for name, inside in split.slices.items() if name.startswith("tag=")}
    assert len(groups) == 12
    assert sum(inside.astype(int) for inside in groups.values()).tolist() == [1] * len(split.events)
    assert sum("item_id=" in name for name in split.slices) == 13


def test_periods_have_the_same_column_slices(skewed):
    split = PreferenceSplit.from_log(skewed, slices=["many"], windows="rolling")
    assert len({tuple(period.slices) for period in split.periods}) == 1
    shares = [period.slices["new items"].mean() for period in split.periods]
    assert shares[-1] < max(shares), "items are new before the period, not before the first"


def test_drawn_negatives_take_the_category_of_their_item_and_the_surface_of_their_positive(log):
    positives = log.filter(pl.col("label") == 1).with_columns(
        category=pl.col("item_id") % 3, surface=pl.col("user_id") % 2
    )
    split = PreferenceSplit.from_log(positives, label=None, negatives=3, slices=["category", "surface"])
    for remainder in range(3):
        own = split.item_ids[split.events.item] % 3 == remainder
        np.testing.assert_array_equal(split.slices[f"category={remainder}"], own)
    for remainder in range(2):
        own = split.user_ids[split.events.user] % 2 == remainder
        np.testing.assert_array_equal(split.slices[f"surface={remainder}"], own)


BAD = {
    "unknown": (["surfaces"], LogError, "no column 'surfaces'.*Did you mean 'surface'"),
    "float": (["dwell"], LogError, r"'dwell' must be categorical \(text, integers, booleans\), got Float64.*\.cut"),
    "user": (["user_id"], ConfigError, "`slices` names 'user_id', the user column"),
    "label": (["label"], ConfigError, "`slices` names 'label', the label column"),
    "time": (["timestamp"], ConfigError, "`slices` names 'timestamp', the time column"),
    "twice": (["surface", "surface"], ConfigError, r"list of different columns, got \['surface', 'surface'\]"),
    "text": ("surface", ConfigError, "list of different columns, got 'surface'"),
}


@pytest.mark.parametrize("case", BAD)
def test_columns_that_cannot_be_sliced_by_are_refused(case, log):
    slices, error, message = BAD[case]
    table = log.with_columns(surface=pl.lit("home"), dwell=1.5)
    with pytest.raises(error, match=message):
        PreferenceSplit.from_log(table, slices=slices)
