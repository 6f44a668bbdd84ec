"""A log reduced where it is gives the split that the whole log in memory gives, bit for bit, on every engine."""

import shutil

import duckdb
import numpy as np
import polars as pl
import pytest

from lis_lightning import PreferenceSplit
from lis_lightning.errors import LogError
from tests._helpers.large_logs import assert_equal_splits, big_log

BUDGETS = {"max_events": 400, "max_alignment_events": 1000}
LABELS = {"click": "clicked", "like": ("rating", 4), "buy": ("event", "buy")}


def relation(log: pl.DataFrame) -> duckdb.DuckDBPyRelation:
    return duckdb.connect().from_arrow(log.to_arrow())


@pytest.mark.parametrize("windows", [(0.5, 0.25, 0.25), "rolling", ("2023-11-25", "2023-12-03")])
def test_duckdb_cuts_the_split_of_the_log_in_memory(windows):
    log = big_log()
    options = {"label": LABELS, "windows": windows, "slices": ["surface"], "weight": "weight"} | BUDGETS
    in_memory = PreferenceSplit.from_log(log, **options)
    assert in_memory.log.user.size < log.height / 2
    assert_equal_splits(in_memory, PreferenceSplit.from_log(relation(log.sample(fraction=1, shuffle=True)), **options))


@pytest.mark.parametrize("negatives", [0, 2])
def test_parquet_above_the_budget_is_reduced_and_gives_the_same_split(tmp_path, negatives, capfd):
    log = big_log().with_columns(clicked=pl.lit(1)) if negatives else big_log()
    (tmp_path / "day=1").mkdir()
    (tmp_path / "day=2").mkdir()
    log[:2000].write_parquet(tmp_path / "day=1" / "it's.parquet")
    log[2000:].write_parquet(tmp_path / "day=2" / "b.parquet")
    options = {"label": "clicked", "negatives": negatives, "memory_limit": "200MB"} | BUDGETS
    split = PreferenceSplit.from_log(tmp_path, slices=["day"], **options)
    assert "6,000 events" in capfd.readouterr().err
    keyed = log.with_columns(day=pl.Series(["1"] * 2000 + ["2"] * 4000))
    assert_equal_splits(PreferenceSplit.from_log(keyed, slices=["day"], **options), split)


@pytest.mark.parametrize("time", ["seconds", "hours", "day"])
def test_every_kind_of_time_and_id_gives_the_same_split(time):
    log = big_log().with_columns(
        seconds=pl.col("timestamp").dt.epoch("s"),
        hours=pl.col("timestamp").dt.epoch("us") / 3.6e9,
        day=pl.col("timestamp").dt.date(),
        user_id=pl.col("user_id").str.slice(1).cast(pl.Float64),
        clicked=pl.col("clicked") == 1,
    )
    options = {"label": "clicked", "time": time} | BUDGETS
    assert_equal_splits(PreferenceSplit.from_log(log, **options), PreferenceSplit.from_log(relation(log), **options))


def test_a_budget_that_holds_the_log_reduces_nothing():
    log = big_log()
    whole = PreferenceSplit.from_log(log, label="clicked", max_events=None)
    for budget in (6000, None):
        reduced = PreferenceSplit.from_log(relation(log), label="clicked", max_events=None, max_alignment_events=budget)
        assert_equal_splits(whole, reduced)


def test_counts_of_items_are_those_of_the_whole_log():
    log = big_log()
    split = PreferenceSplit.from_log(log, label="clicked", **BUDGETS)
    # `events` follows `log` in its order, so a row of each is one event.
    times = split.log.time[(split.log.window > 0) & (split.log.user < split.num_users)]
    micros, item, clicked = (log[name].to_numpy() for name in ("timestamp", "item_id", "clicked"))
    micros = micros.astype("datetime64[us]").astype(np.int64)
    for event in range(0, len(split.events), 7):
        earlier = (item == split.item_ids[split.events.item[event]]) & (micros < times[event])
        assert split.events.by_item.count[event] == earlier.sum()
        assert split.events.by_item.positives[event] == clicked[earlier].sum()


def test_a_larger_budget_keeps_the_users_of_a_smaller_one():
    log = big_log()
    small, large = (
        PreferenceSplit.from_log(log, label="clicked", max_events=100, max_alignment_events=budget)
        for budget in (500, 1500)
    )
    assert small.user_ids.tolist() == large.user_ids.tolist()
    assert set(small.log_user_ids.tolist()) < set(large.log_user_ids.tolist())
    withheld = [set(split.item_ids[split.events.item[split.events.unseen]].tolist()) for split in (small, large)]
    assert withheld[0] == withheld[1]


@pytest.mark.parametrize("kind", [pl.Int16, pl.UInt32, pl.UInt64])
def test_ids_of_any_width_give_the_same_split(kind):
    log = big_log().with_columns((pl.col("item_id") - 2**33).cast(kind), pl.col("user_id").str.slice(1).cast(kind))
    options = {"label": "clicked"} | BUDGETS
    assert_equal_splits(PreferenceSplit.from_log(log, **options), PreferenceSplit.from_log(relation(log), **options))


def test_keys_of_folders_are_those_of_the_log_in_memory(tmp_path):
    log = big_log().with_columns(surface=pl.lit("inside"))
    for key, part in (("k%200", log[:2000]), ("k1", log[2000:])):
        (tmp_path / f"surface={key}" / f"a b={key}").mkdir(parents=True)
        part.write_parquet(tmp_path / f"surface={key}" / f"a b={key}" / "a.parquet")
    options = {"label": "clicked", "slices": ["surface", "a b"]} | BUDGETS
    split = PreferenceSplit.from_log(tmp_path, **options)
    assert {"surface=inside", "a b=k 0", "a b=k1"} <= set(split.slices), "a column of the files comes before a key"
    in_memory = log.with_columns(pl.Series("a b", ["k 0"] * 2000 + ["k1"] * 4000))
    assert_equal_splits(PreferenceSplit.from_log(in_memory, **options), split)
    with pytest.raises(LogError, match="Column 'a b' is a key of folders"):
        PreferenceSplit.from_log(tmp_path, **(options | {"item": "a b"}))


def test_a_file_named_like_a_pattern_is_read_alone(tmp_path):
    log = big_log()
    log.write_parquet(tmp_path / "log[1].parquet")
    log[:3000].write_parquet(tmp_path / "log1.parquet")
    options = {"label": "clicked"} | BUDGETS
    split = PreferenceSplit.from_log(tmp_path / "log[1].parquet", **options)
    assert_equal_splits(PreferenceSplit.from_log(log, **options), split)


BAD = {
    "missing user": ({"user_id": None}, "Column 'user_id' has 6000 missing ids"),
    "NaN user": ({"user_id": pl.lit(float("nan"))}, "Column 'user_id' has 6000 missing ids"),
    "NaN label": ({"clicked": pl.lit(float("nan"))}, "has 6000 missing values among 6000"),
    "decimal ids": (
        {"user_id": pl.col("rating").cast(pl.Decimal(9, 2))},
        r"must hold integer or text ids, got DECIMAL",
    ),
    "reserved name": ({"lis_item": pl.lit(1)}, "'lis_item' has a name that queries use"),
    "missing time": ({"timestamp": None}, "Time column 'timestamp'"),
    "text time": ({"timestamp": pl.lit("soon")}, "must hold numbers, dates or timestamps, got text"),
    "ratings": ({"clicked": pl.col("rating")}, r"'clicked' is not binary: .* neither 0 nor 1"),
    "missing label": ({"clicked": pl.lit(None, pl.Int8)}, "has 6000 missing values among 6000"),
    "filled": (
        {"timestamp": pl.when(pl.col("rating") == 1).then(pl.datetime(1970, 1, 1)).otherwise("timestamp")},
        "which stand for missing ones",
    ),
    "mixed units": (
        {"timestamp": pl.col("timestamp").dt.epoch("s") * pl.when(pl.col("rating") == 1).then(1000).otherwise(1)},
        "mixes units",
    ),
    "calendar": ({"timestamp": pl.lit(20260131235959)}, "calendar digits such as 20260131235959"),
    "fractions": ({"user_id": pl.col("rating") / 2}, "have fractions"),
    "one moment": ({"timestamp": pl.lit(1_700_000_000)}, "holds no event"),
}


@pytest.mark.parametrize("name", BAD)
def test_unsuitable_values_are_named_by_the_whole_log(name):
    columns, message = BAD[name]
    columns = {column: pl.lit(value) if value is None else value for column, value in columns.items()}
    with pytest.raises(LogError, match=message):
        PreferenceSplit.from_log(relation(big_log().with_columns(**columns)), label="clicked")


def test_a_missing_column_is_named_with_those_of_the_relation():
    with pytest.raises(LogError, match=r"has no column 'liked'; it has .*'clicked'"):
        PreferenceSplit.from_log(relation(big_log()), label="liked")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("java") is None, reason="Spark needs Java")
def test_spark_cuts_the_same_split():
    zone = "America/New_York"  # of the session: times without a zone are UTC all the same
    sql = pytest.importorskip("pyspark.sql")
    builder = sql.SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
    session = (
        builder.config("spark.sql.session.timeZone", zone).config("spark.sql.shuffle.partitions", "2").getOrCreate()
    )
    try:
        log = big_log()
        seconds = log.with_columns(timestamp=pl.col("timestamp").dt.epoch("s"))
        aware = log.with_columns(pl.col("timestamp").dt.replace_time_zone("UTC"))
        options = {"label": LABELS, "slices": ["surface"], "weight": "weight"} | BUDGETS
        for table, windows in ((seconds, (0.5, 0.25, 0.25)), (aware, "rolling")):
            frame = session.createDataFrame(table.to_arrow())
            in_memory = PreferenceSplit.from_log(table, windows=windows, **options)
            assert_equal_splits(in_memory, PreferenceSplit.from_log(frame, windows=windows, **options))
    finally:
        session.stop()
