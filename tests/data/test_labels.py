import decimal

import polars as pl
import pytest

from lis_lightning import PreferenceSplit
from lis_lightning.data.columns import task_labels
from lis_lightning.data.labels import binary_labels
from lis_lightning.errors import LogError

BINARY = {
    "float64": pl.Series([0.0, 1.0]),
    "float32": pl.Series([0.0, 1.0], dtype=pl.Float32),
    "int8": pl.Series([0, 1], dtype=pl.Int8),
    "decimal": pl.Series([decimal.Decimal("0"), decimal.Decimal("1")]),
    "boolean": pl.Series([False, True]),
    "digits": pl.Series(["0", "1"]),
    "float digits": pl.Series(["0.0", "1.0"]),
    "words": pl.Series(["False", "True"]),
    "lower words": pl.Series(["false", "true"]),
    "categories": pl.Series(["0", "1"], dtype=pl.Categorical),
}


@pytest.mark.parametrize("case", BINARY)
def test_zeros_and_ones_come_in_many_types(case):
    assert binary_labels(pl.DataFrame({"y": BINARY[case]}), "y").tolist() == [0, 1]


def test_a_threshold_on_text_compares_numbers():
    assert binary_labels(pl.DataFrame({"y": ["10", "9"]}), ("y", 9.5)).tolist() == [1, 0]
    assert binary_labels(pl.DataFrame({"y": [decimal.Decimal("4.5"), decimal.Decimal("4")]}), ("y", 4.5)).tolist() == [
        1,
        0,
    ]


def test_a_text_may_be_the_positive():
    events = pl.DataFrame({"y": ["view", "buy", "cart"]})
    assert binary_labels(events, ("y", "buy")).tolist() == [0, 1, 0]
    with pytest.raises(LogError, match=r"No value of label column 'y' is 'bought'; it holds \["):
        binary_labels(events, ("y", "bought"))
    with pytest.raises(LogError, match=r"'y' is text: it holds .*Say which value is positive, as in label=\(\"y\", "):
        binary_labels(events, "y")


def test_a_pair_is_a_column_and_a_value_if_there_is_no_such_column():
    assert task_labels(("event", "buy"), ["event", "user"]) == {"event": ("event", "buy")}
    assert task_labels(["event", "buy"], ["event", "buy"]) == {"event": "event", "buy": "buy"}
    assert task_labels(["event", "buy"], ["user"]) == {"event": "event", "buy": "buy"}
    assert task_labels({"purchase": ["event", "buy"]}) == {"purchase": ("event", "buy")}


def test_a_text_label_cuts_the_same_split(log, split):
    told = log.with_columns(event=pl.when(pl.col("label") == 1).then(pl.lit("buy")).otherwise(pl.lit("view")))
    assert PreferenceSplit.from_log(told, label=("event", "buy")).hash == split.hash
    assert PreferenceSplit.from_log(log.with_columns(pl.col("label").cast(pl.Float32))).hash == split.hash
