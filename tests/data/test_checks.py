import warnings

import numpy as np
import polars as pl
import pytest

from lis_lightning import PreferenceSplit
from lis_lightning.errors import ConfigError, LisWarning, LogError


def with_logit(log, logit):
    return log.with_columns(b=pl.Series(np.asarray(logit, np.float64)))


@pytest.fixture(scope="module")
def honest(log):
    """What an honest ranker would have logged."""
    return np.random.default_rng(0).standard_normal(len(log)) + 1.5 * log["label"].to_numpy()


def test_an_honest_logit_is_taken_in_silence(log, honest):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        split = PreferenceSplit.from_log(with_logit(log, honest), base_logit="b")
        PreferenceSplit.from_log(
            with_logit(log, np.random.default_rng(3).standard_normal(len(log)) - 0.5), base_logit="b"
        )
    assert set(split.events.base_logit) <= set(honest)


def test_a_logit_that_holds_the_label_is_refused(log, honest):
    label = log["label"].to_numpy()
    leaked = r"w1 probe-train: column 'b' tells all \d+ positives from all \d+ negatives \(AUC 1\).*before the outcome"
    with pytest.raises(LogError, match=leaked):
        PreferenceSplit.from_log(with_logit(log, 8.0 * label - 4), base_logit="b")
    with pytest.raises(LogError, match=r"\(AUC 0, with the sign turned\)"):
        PreferenceSplit.from_log(with_logit(log, -label), base_logit="b")
    late = np.where(np.arange(len(log)) > 4500, label * 20.0, honest)
    with pytest.raises(LogError, match=r"Task 'label': window w2 probe-test: column 'b' tells all .*\(AUC 1\)"):
        PreferenceSplit.from_log(with_logit(log, late), base_logit="b")


def test_a_constant_logit_is_refused(log, honest):
    with pytest.raises(LogError, match=r"w1 probe-train: all 1500 logits in 'b' are 0.25, which ranks nothing"):
        PreferenceSplit.from_log(with_logit(log, np.full(len(log), 0.25)), base_logit="b")
    late = np.where(np.arange(len(log)) > 4400, 0.0, honest)
    with pytest.raises(LogError, match=r"w2 probe-test: all 1500 logits in 'b' are 0.0"):
        PreferenceSplit.from_log(with_logit(log, late), base_logit="b")


def test_a_logit_of_the_wrong_sign_is_used_and_named(log, honest):
    with pytest.warns(LisWarning, match=r"Task 'label': `base_logit` column 'b' ranks negatives above.*AUC 0\.1\d\d"):
        split = PreferenceSplit.from_log(with_logit(log, -honest), base_logit="b")
    assert set(split.events.base_logit) <= set(-honest)


def test_probabilities_are_used_as_they_are_and_named(log, honest):
    probability = 1 / (1 + np.exp(-honest))
    with pytest.warns(LisWarning, match=r"'b' lie in \[0, 1\].*used as logits, as they are.*log\(p / \(1 - p\)\)"):
        split = PreferenceSplit.from_log(with_logit(log, probability), base_logit="b")
    assert set(split.events.base_logit) <= set(probability)


def test_each_task_is_checked_against_its_own_logit(log, honest):
    table = with_logit(log, honest).with_columns(buy=pl.int_range(pl.len()) % 2, c=(pl.int_range(pl.len()) % 2) * 2.0)
    with pytest.raises(LogError, match="Task 'buy': window w1 probe-train: column 'c' tells all"):
        PreferenceSplit.from_log(table, label=["label", "buy"], base_logit={"label": "b", "buy": "c"})


def test_one_user_is_not_enough(log):
    with pytest.raises(LogError, match=r"w0 align needs events of at least 2 users.*got 1\. Use longer"):
        PreferenceSplit.from_log(log.with_columns(user_id=0))
    late = log.with_columns(user_id=pl.when(pl.int_range(pl.len()) >= 4500).then(7).otherwise("user_id"))
    with pytest.raises(LogError, match=r"w2 probe-test needs events of at least 2 users.*got 1"):
        PreferenceSplit.from_log(late)


def test_a_budget_of_one_event_is_too_small(log):
    with pytest.raises(LogError, match=r"needs events of (both classes|at least 2 users).*larger `max_events`"):
        PreferenceSplit.from_log(log, max_events=1)


def test_two_users_are_enough_for_a_number(log):
    assert "smallest detectable gain" in str(PreferenceSplit.from_log(log.with_columns(pl.col("user_id") % 2)))


def test_equal_timestamps_leave_no_window(log):
    with pytest.raises(LogError, match=r"holds no event.*spans 5 to 5.*all equal"):
        PreferenceSplit.from_log(log.with_columns(timestamp=5))
    with pytest.raises(LogError, match="Window w0 align holds no event"):
        PreferenceSplit.from_log(log.with_columns(timestamp=5), windows="rolling")


def test_doubled_rows_are_counted_and_named(log, split):
    repeats = log.unique(["user_id", "item_id", "timestamp"]).height
    message = rf"{2 * len(log) - repeats} of {2 * len(log)} rows of the log \(50%\) repeat.*\.unique\(\)"
    with pytest.warns(LisWarning, match=message):
        doubled = PreferenceSplit.from_log(pl.concat([log, log]))
    assert len(doubled.events) == 2 * len(split.events)
    assert doubled.events.label.mean() == split.events.label.mean()
    np.testing.assert_array_equal(doubled.events.by_item.count[::2], 2 * split.events.by_item.count)


BAD = {
    "windows of two and a half": ({"windows": (0.5, 0.5, 0.5)}, r"sum to 1 in `windows`, got \(0.5, 0.5, 0.5\)"),
    "windows of words": ({"windows": ("a", "b", "c")}, r"three shares, which are numbers, in `windows`, got \('a'"),
    "no date": ({"windows": ("foo", "bar")}, "a date such as '2026-01-31' in `windows`, got 'foo'"),
    "no edge": ({"windows": (None, None)}, "numbers, dates or text such as '2026-01-31' in `windows`, got None"),
    "no length": ({"windows": 0.5}, "two timestamps or 'rolling', got 0.5"),
    "word": ({"windows": "sliding"}, "three shares, two timestamps or 'rolling', got 'sliding'"),
    "four": ({"windows": (1, 2, 3, 4)}, r"two timestamps or 'rolling', got \(1, 2, 3, 4\)"),
    "backwards": ({"windows": (1_605_000_000, 1_603_000_000)}, r"w1 to begin before w2 in `windows`, got \(1605000000"),
    "no user": ({"user": None}, "`user` to name a column, got None"),
    "items of two columns": ({"item": ["a", "b"]}, r"`item` to name a column, got \['a', 'b'\]"),
    "slices of none": ({"slices": None}, "`slices` to be a list of different columns, got None"),
    "text budget": ({"max_alignment_events": "x"}, "`max_alignment_events` to be an integer of at least 1, got 'x'"),
    "one period": ({"windows": "rolling", "num_periods": 1}, "`num_periods` to be an integer of at least 2, got 1"),
    "no history": ({"history": None}, "`history` to be an integer of at least 1, got None"),
    "seed": ({"seed": -1}, "`seed` to be an integer of at least 0, got -1"),
    "a mapping of positives": ({"label": {"bought": None}}, "every row is a positive.*set `negatives`"),
}


@pytest.mark.parametrize("case", BAD)
def test_arguments_out_of_range_are_refused(case, log):
    options, message = BAD[case]
    with pytest.raises(ConfigError, match=message):
        PreferenceSplit.from_log(log, **options)
