import polars as pl
import pytest

from lis_lightning import PreferenceSplit
from lis_lightning.errors import ConfigError, LogError


def test_alignment_keeps_names_and_types_of_the_log(log):
    own = log.select(
        pl.format("u{}", "user_id").cast(pl.Categorical).alias("who"),
        pl.col("item_id").cast(pl.Float32).alias("sku"),
        pl.from_epoch("timestamp").dt.cast_time_unit("ms").dt.replace_time_zone("UTC").alias("at"),
        pl.col("label").alias("clicked"),
    )
    split = PreferenceSplit.from_log(own, user="who", item="sku", time="at", label="clicked")
    assert split.alignment.columns == ["who", "sku", "at", "label", "drawn"]
    assert [split.alignment.schema[name] for name in ("who", "sku", "at")] == own.dtypes[:3]
    same = split.alignment.join(own, on=["who", "sku", "at"])
    assert (same["label"] == same["clicked"]).all()
    assert same.height >= split.alignment.height
    assert not split.alignment["drawn"].any()


def test_drawn_negatives_are_marked(log):
    positives = log.filter(pl.col("label") == 1)
    alignment = PreferenceSplit.from_log(positives, label=None, negatives=2).alignment
    assert (alignment["drawn"] == (alignment["label"] == 0)).all()
    real = alignment.filter(~pl.col("drawn"))
    assert real.join(positives, on=["user_id", "item_id", "timestamp"], how="anti").height == 0
    drawn = alignment.filter("drawn")
    assert drawn.join(positives, on=["user_id", "timestamp"], how="anti").height == 0
    assert drawn.join(positives, on="item_id", how="anti").height == 0


def test_a_name_of_alignment_cannot_be_that_of_a_column(log):
    with pytest.raises(ConfigError, match=r"Two columns of `split\.alignment` would be called 'drawn'"):
        PreferenceSplit.from_log(log.rename({"user_id": "drawn"}), user="drawn")


def test_pairs_of_alignment_pass(split):
    items = split.alignment["item_id"]
    split.check_alignment(pl.DataFrame({"a": items[:-1], "b": items[1:]}))
    split.check_alignment(split.alignment, items=["item_id"], time="timestamp")
    split.check_alignment(pl.DataFrame({"a": [*items[:2], -1]}))  # an item that the log lacks


def test_withheld_items_are_found(split):
    withheld = split.item_ids[split.events.item[split.events.unseen][0]]
    seen = split.alignment["item_id"][0]
    with pytest.raises(LogError, match=rf"1 of 2 rows have items that are withheld .* row 1 \({seen}, {withheld}\)"):
        split.check_alignment(pl.DataFrame({"a": [seen, seen], "b": [seen, withheld]}))


def test_future_items_are_found(log):
    late = log.with_columns(
        item_id=pl.when(pl.int_range(pl.len()) > 5000).then(pl.col("item_id") + 500).otherwise("item_id")
    )
    split = PreferenceSplit.from_log(late, unseen_items=0)
    with pytest.raises(LogError, match="1 of 1 rows have items that first occur in w1 or w2"):
        split.check_alignment(pl.DataFrame({"a": [int(late["item_id"].max())]}))


def test_later_events_are_found(split, log):
    seen = log.filter(pl.col("item_id").is_in(split.alignment["item_id"].to_list()))
    late = int((seen["timestamp"].to_numpy() >= split.log.time[split.log.window > 0].min()).sum())
    with pytest.raises(LogError, match=f"{late} of {seen.height} rows are of w1 or w2"):
        split.check_alignment(seen, items=["item_id"], time="timestamp")
    dated = seen.with_columns(pl.from_epoch("timestamp"))
    with pytest.raises(LogError, match="not in the unit of the log's"):
        split.check_alignment(dated, items=["item_id"], time="timestamp")


def test_ids_of_another_kind_are_named(split):
    with pytest.raises(LogError, match=r"No id in the columns \['a'\] is an item of the log, .* got 'x'"):
        split.check_alignment(pl.DataFrame({"a": ["x"]}))
    with pytest.raises(ConfigError, match="at least one column of item ids"):
        split.check_alignment(split.alignment, items=[])
