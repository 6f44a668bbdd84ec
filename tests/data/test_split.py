import copy

import numpy as np
import pandas as pd
import polars as pl
import pytest

from lis_lightning import PreferenceSplit
from lis_lightning.errors import ConfigError, LogError, ShapeError


def test_windows_follow_time_and_shares(split, log):
    sizes = np.bincount(split.log.window)
    np.testing.assert_allclose(sizes / len(log), [0.5, 0.25, 0.25], atol=0.001)
    last = [split.log.time[split.log.window == window].max() for window in (0, 1)]
    first = [split.log.time[split.log.window == window].min() for window in (1, 2)]
    assert last[0] < first[0]
    assert last[1] < first[1]


@pytest.mark.filterwarnings("ignore:.*repeat the user, item and time")
def test_histories_are_the_last_strictly_earlier_events_of_the_user(log):
    coarse = log.with_columns(pl.col("timestamp") // 500_000 * 500_000)  # many ties
    split = PreferenceSplit.from_log(coarse, history=5)
    events = split.events
    rows = split.log
    boundary = split.log.time[split.log.window > 0].min()
    for event in range(0, len(events), 97):
        own = np.flatnonzero(rows.user == events.user[event])
        got = range(events.start[event], events.stop[event])
        position = np.flatnonzero((rows.user == events.user[event]) & (rows.window > 0))[
            np.sum(events.user[:event] == events.user[event])
        ]
        assert rows.item[position] == events.item[event]
        assert rows.time[position] >= boundary
        expected = own[rows.time[own] < rows.time[position]][-5:]
        assert list(got) == expected.tolist()
        np.testing.assert_array_equal(split.history_item[got], rows.item[expected])
        np.testing.assert_array_equal(split.history_label[got], rows.label[expected])


def test_counts_are_as_of_the_event(split):
    events, rows = split.events, split.log
    scored = np.flatnonzero((rows.user < split.num_users) & (rows.window > 0))
    for event in range(0, len(events), 131):
        before = rows.time < rows.time[scored[event]]
        same = before & (rows.item == events.item[event])
        assert events.by_item.count[event] == same.sum()
        assert events.by_item.positives[event] == rows.label[same].sum()


def test_alignment_holds_w0_without_unseen_items(split, log):
    assert split.alignment["timestamp"].max() < split.log.time[split.log.window == 1].min()
    unseen = set(split.item_ids[np.unique(split.events.item[split.events.unseen])].tolist())
    assert unseen
    assert not unseen & set(split.alignment["item_id"].to_list())
    assert 0.05 < len(unseen) / split.num_items < 0.4


def test_every_kind_of_table_gives_the_same_split(log, split, tmp_path):
    log.write_parquet(tmp_path / "log.parquet")
    log.write_csv(tmp_path / "log.csv")
    (tmp_path / "parts").mkdir()
    log[:3000].write_parquet(tmp_path / "parts/a.parquet")
    log[3000:].write_parquet(tmp_path / "parts/b.parquet")
    sources = [
        str(tmp_path / "log.parquet"),
        tmp_path / "log.csv",
        str(tmp_path / "parts/*.parquet"),
        pd.DataFrame(log.to_dict(as_series=False)),
        log.to_arrow(),
        log.lazy(),
    ]
    assert {PreferenceSplit.from_log(source).hash for source in sources} == {split.hash}


def test_the_order_of_rows_does_not_matter(log, split):
    shuffled = log.sample(fraction=1, shuffle=True, seed=3)
    assert PreferenceSplit.from_log(shuffled).hash == split.hash


def test_datetimes_and_date_edges(log, split):
    dated = log.with_columns(pl.from_epoch("timestamp").alias("timestamp"))
    assert PreferenceSplit.from_log(dated).num_items == split.num_items
    edged = PreferenceSplit.from_log(dated, windows=("2020-10-20", "2020-11-30"))
    assert edged.log.time[edged.log.window == 1].min() >= np.datetime64("2020-10-20", "us").astype(np.int64)


def test_string_ids_and_thresholded_labels(log, split):
    renamed = log.select(
        pl.format("u{}", pl.col("user_id")).alias("user_id"),
        pl.format("i{}", pl.col("item_id")).alias("item_id"),
        "timestamp",
        (pl.col("label") * 3 + 1).alias("stars"),
    )
    other = PreferenceSplit.from_log(renamed, label=("stars", 4))
    assert other.num_items == split.num_items
    assert other.item_rows(other.item_ids[:3]).tolist() == [0, 1, 2]
    np.testing.assert_array_equal(np.sort(other.events.label), np.sort(split.events.label))


def test_categorical_ids_are_text(log, split):
    categorical = log.with_columns(pl.col("item_id").cast(pl.String).cast(pl.Categorical))
    assert PreferenceSplit.from_log(categorical).num_items == split.num_items


def test_budget_takes_whole_users(log):
    small = PreferenceSplit.from_log(log, max_events=700)
    assert len(small.events) <= 700
    full = PreferenceSplit.from_log(log)
    of_user = {u: int((full.user_ids[full.events.user] == u).sum()) for u in small.user_ids}
    for index, user in enumerate(small.user_ids):
        assert (small.events.user == index).sum() == of_user[user]
    assert PreferenceSplit.from_log(log, max_items=58).num_items <= 58


def test_positive_only_logs_get_negatives_of_the_same_day(log):
    positives = log.filter(pl.col("label") == 1)
    split = PreferenceSplit.from_log(positives, label=None, negatives=3)
    assert split.events.label.mean() == pytest.approx(0.25, abs=0.02)
    assert "negatives: 3 a positive" in str(split)
    assert split.describe()["item_count_auc"] == pytest.approx(0.5, abs=0.06)


def test_item_rows_of_unknown_ids_are_minus_one(split):
    assert split.item_rows([split.item_ids[3], -5]).tolist() == [3, -1]
    with pytest.raises(ShapeError, match=r"integers \(such as .*got <U1 \(such as "):
        split.item_rows(["x"])


def test_every_user_and_item_of_the_log_has_its_id(log):
    split = PreferenceSplit.from_log(log, max_events=1000)
    assert split.log_user_ids[: split.num_users].tolist() == split.user_ids.tolist()
    rows = {"user_id": split.log_user_ids[split.log.user], "item_id": split.log_item_ids[split.log.item]}
    told = pl.DataFrame(rows | {"timestamp": split.log.time, "label": split.log.label})
    assert told.sort(log.columns).equals(log.sort(log.columns))


def test_user_folds_are_equal_parts_of_the_scored_users(split):
    folds = split.user_folds()
    assert folds["user"].to_list() == split.user_ids.tolist()
    sizes = folds.group_by("fold").len().sort("fold")
    assert sizes["fold"].to_list() == [0, 1, 2, 3, 4]
    assert sizes["len"].max() - sizes["len"].min() <= 1
    assert split.user_folds().equals(folds)
    assert split.user_folds(3)["fold"].max() == 2


def test_print_says_whether_the_split_is_usable(log, split):
    text = str(split)
    for expected in ("w1 probe-train", "smallest detectable gain", "base (built in): AUC"):
        assert expected in text
    assert "usable for large steps only" in text
    assert "too small to detect useful gains" in str(PreferenceSplit.from_log(log, max_events=300))


def test_a_split_is_never_copied(split):
    assert copy.deepcopy(split) is split


def test_hash_changes_with_a_label(log, split):
    flipped = log["label"].to_numpy().copy()
    flipped[5000] ^= 1
    assert PreferenceSplit.from_log(log.with_columns(label=pl.Series(flipped))).hash != split.hash


BAD = {
    "missing column": ({}, {"user": "user"}, LogError, r"no column 'user'; it has .*Did you mean 'user_id'"),
    "no file": (None, {}, LogError, "'absent.parquet' does not exist"),
    "labels": ({"label": [0, 1, 2] * 2000}, {}, LogError, r"not binary: it holds \[0, 1, 2\].*label=\(\"label\", 1\)"),
    "text labels": (
        {"label": ["a"] * 6000},
        {},
        LogError,
        r"'label' is text: it holds \['a'\]. Say which",
    ),
    "null label": ({"label": [None] + [0, 1] * 2999 + [1]}, {}, LogError, "1 missing values among 6000"),
    "nan time": ({"timestamp": [float("nan")] + [1.6e9] * 5999}, {}, LogError, "1 missing or non-finite.*row 0"),
    "text time": ({"timestamp": ["soon"] * 6000}, {}, LogError, "format that is not known for certain .'soon'.*time=."),
    "mixed units": (
        {"timestamp": [1_600_000_000] * 3000 + [1_600_000_000_000] * 3000},
        {},
        LogError,
        "mixes units: 3000 values look like unix seconds, 3000 values look like unix milliseconds",
    ),
    "one time": ({"timestamp": [1_600_000_000] * 6000}, {}, LogError, "holds no event.*spans 1600000000 to 1600000000"),
    "one class": ({"label": [0, 1] * 1500 + [1] * 3000}, {}, LogError, "w1 probe-train needs events of both classes"),
    "only positives": ({"label": [1] * 6000}, {}, LogError, "All 6000 labels are positive.*Set `negatives`"),
    "null user": ({"user_id": [None] + [1] * 5999}, {}, LogError, "'user_id' has 1 missing ids, the first in row 0"),
    "float item": ({"item_id": [1.5] * 6000}, {}, LogError, "'item_id' must hold integer or string ids, got Float64"),
    "logit": (
        {"b": [float("inf")] + [0.0] * 5999},
        {"base_logit": "b"},
        LogError,
        "must hold finite numbers, got 1 values",
    ),
    "negatives": ({}, {"negatives": 2}, ConfigError, "this log has .* real negatives"),
    "windows": ({}, {"windows": (0.5, 0.6, 0.1)}, ConfigError, r"sum to 1 in `windows`, got \(0.5, 0.6, 0.1\)"),
    "history": ({}, {"history": 0}, ConfigError, "`history` to be an integer of at least 1, got 0"),
    "unseen": ({}, {"unseen_items": 1.5}, ConfigError, r"`unseen_items` to be a share in \[0, 1\), got 1.5"),
    "no label": ({}, {"label": None}, ConfigError, "set `negatives`"),
}


@pytest.mark.parametrize("case", BAD, ids=str)
def test_bad_logs_are_refused_in_words(case, log):
    columns, options, error, message = BAD[case]
    table = "absent.parquet" if columns is None else log.with_columns(**{k: pl.Series(v) for k, v in columns.items()})
    with pytest.raises(error, match=message):
        PreferenceSplit.from_log(table, **options)


def test_files_that_cannot_be_read_are_named(tmp_path, log):
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(LogError, match=r"interaction log '.*broken\.parquet' cannot be read"):
        PreferenceSplit.from_log(tmp_path / "broken.parquet")
    with pytest.raises(LogError, match=r"interaction log '.*none-\*\.parquet' matches no file"):
        PreferenceSplit.from_log(f"{tmp_path}/none-*.parquet")
    log.write_csv(tmp_path / "log.xls")
    with pytest.raises(LogError, match=r"end in \.parquet, .*\.csv, \.tsv, .*got '.*log\.xls'"):
        PreferenceSplit.from_log(tmp_path / "log.xls")


def test_columns_that_are_not_asked_for_do_not_matter(tmp_path, log, split):
    log.with_columns(vector=pl.lit([0.0] * 4)).write_parquet(tmp_path / "a.parquet")
    assert PreferenceSplit.from_log(tmp_path / "a.parquet").hash == split.hash
    renamed = log.rename({"label": "clicked"})
    with pytest.raises(LogError, match=r"no column 'label'; it has \['user_id', 'item_id', 'timestamp', 'clicked'\]"):
        PreferenceSplit.from_log(renamed.lazy())


def test_not_a_table():
    with pytest.raises(LogError, match="got dict"):
        PreferenceSplit.from_log({"a": 1})


def test_an_empty_log_is_refused(log):
    with pytest.raises(LogError, match="has no rows"):
        PreferenceSplit.from_log(log[:0])
