import polars as pl
import pytest

from lis_lightning import PreferenceSplit
from lis_lightning.data.columns import task_labels, task_logits
from lis_lightning.errors import ConfigError, LogError

LABELS = {
    "column": ("clicked", {"clicked": "clicked"}),
    "threshold": (("rating", 4), {"rating": ("rating", 4)}),
    "threshold of a configuration": (["rating", 4.5], {"rating": ("rating", 4.5)}),
    "all positive": (None, {"positive": None}),
    "list": (["clicked", "bought"], {"clicked": "clicked", "bought": "bought"}),
    "pair of columns": (("clicked", "bought"), {"clicked": "clicked", "bought": "bought"}),
    "list with a threshold": (["clicked", ("rating", 4)], {"clicked": "clicked", "rating": ("rating", 4)}),
    "mapping": ({"a": "clicked", "b": ["rating", 4]}, {"a": "clicked", "b": ("rating", 4)}),
    "reserved but first": (["label", "bought"], {"label": "label", "bought": "bought"}),
}


@pytest.mark.parametrize("case", LABELS)
def test_labels_come_in_many_forms(case):
    given, expected = LABELS[case]
    assert list(task_labels(given).items()) == list(expected.items())


BAD_LABELS = {
    "none": ([], "at least one column"),
    "empty mapping": ({}, "at least one column"),
    "number": (["a", 1, 2], "column and a threshold.*got 1"),
    "no column": (3, "to name a column, got 3; quote a name that is a number"),
    "truth is no threshold": (["a", True], "column and a threshold.*got True"),
    "a list in a list": ([["a", "b", "c"]], r"got \['a', 'b', 'c'\]"),
    "all positive among others": ({"a": None, "b": "b"}, "every row is a positive; it cannot stand among several"),
    "twice": (["a", "a"], r"names a column twice: \['a', 'a'\]"),
    "hides a column": (["a", "label"], "Task 'label' would hide a column of `split.alignment`.*'my_label': 'label'"),
}


@pytest.mark.parametrize("case", BAD_LABELS)
def test_other_labels_are_refused(case):
    given, message = BAD_LABELS[case]
    with pytest.raises(ConfigError, match=message):
        task_labels(given)


def test_a_logit_belongs_to_a_task():
    assert task_logits(None, ["a"]) == {}
    assert task_logits("logit", ["a"]) == {"a": "logit"}
    assert task_logits({"b": "logit"}, ["a", "b"]) == {"b": "logit"}
    with pytest.raises(ConfigError, match=r"which of the tasks \['a', 'b'\].*base_logit=\{'a': 'logit'\}"):
        task_logits("logit", ["a", "b"])
    with pytest.raises(ConfigError, match=r"names the task 'c'; the tasks of `label` are \['a', 'b'\]"):
        task_logits({"c": "logit"}, ["a", "b"])


def of(values, log):
    return pl.Series([*values, *[1.0] * (len(log) - len(values))], strict=False)


WEIGHTS = {
    "negative": ([3.0, -2.5], r"'w' must hold finite non-negative numbers, got 1 .*first in row 1 \(-2.5\)"),
    "nan": ([float("nan")], r"got 1 values that are not, the first in row 0 \(nan\)"),
    "infinite": ([1.0, 1.0, float("inf")], r"first in row 2 \(inf\)"),
    "missing": ([None, None], r"got 2 values that are not.*row 0 \(None\).*fill_null\(1.0\)"),
}


@pytest.mark.parametrize("case", WEIGHTS)
def test_weights_that_weigh_nothing_are_refused(case, log):
    values, message = WEIGHTS[case]
    with pytest.raises(LogError, match=message):
        PreferenceSplit.from_log(log.with_columns(w=of(values, log)), weight="w")


def test_weights_are_numbers_of_a_column(log):
    with pytest.raises(LogError, match="Weight column 'w' must hold numbers, got String"):
        PreferenceSplit.from_log(log.with_columns(w=pl.lit("a")), weight="w")
    with pytest.raises(LogError, match=r"no column 'lable'.*Did you mean 'label'"):
        PreferenceSplit.from_log(log, weight="lable")


def test_a_class_needs_weight(log):
    dwell = log.with_columns(w=pl.col("label") * 2.0)
    with pytest.raises(LogError, match=r"w1 probe-train: the weights 'w' of all \d+ negatives are 0.*1 say"):
        PreferenceSplit.from_log(dwell, weight="w")
    assert PreferenceSplit.from_log(dwell.with_columns(pl.col("w").clip(1)), weight="w").events.weight.min() == 1


def test_drawn_negatives_have_neither_weight_nor_logit(log):
    positives = log.filter(pl.col("label") == 1).with_columns(w=1.0, b=0.5)
    with pytest.raises(ConfigError, match=r"Drawn negatives have no `weight`.*log what was shown"):
        PreferenceSplit.from_log(positives, label=None, negatives=2, weight="w")
    with pytest.raises(ConfigError, match="Drawn negatives have no `base_logit`"):
        PreferenceSplit.from_log(positives, label=None, negatives=2, base_logit="b")


def test_drawn_negatives_are_negatives_of_every_task(log):
    positives = log.filter(pl.col("label") == 1).with_columns(buy=(pl.int_range(pl.len()) % 3 == 0))
    split = PreferenceSplit.from_log(positives, label=["label", "buy"], negatives=2)
    buys = split.tasks["buy"].log.label
    assert not buys[split.log.label == 0].any()
    assert buys.sum() == positives["buy"].sum()
