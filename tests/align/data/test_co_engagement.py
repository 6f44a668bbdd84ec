from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from lis_lightning.align.data.co_engagement import co_engagement_pairs, pointwise_mutual_information
from lis_lightning.errors import ConfigError, LogError, ShapeError


def _brute_force(events: list[tuple[int, int, int]], window: int) -> Counter:
    counts: Counter = Counter()
    for user in {user for user, _, _ in events}:
        own = sorted((time, item) for u, item, time in events if u == user)
        for i, (_, first) in enumerate(own):
            for _, second in own[i + 1 : i + 1 + window]:
                if first != second:
                    counts[min(first, second), max(first, second)] += 1
    return counts


@settings(max_examples=40, deadline=None)
@given(
    events=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6)), min_size=2, max_size=40),
    window=st.integers(1, 6),
    seed=st.integers(0, 1000),
)
def test_equals_brute_force(events, window, seed):
    times = np.random.default_rng(seed).permutation(len(events)).tolist()  # without ties the order is given
    log = [(user, item, time) for (user, item), time in zip(events, times, strict=True)]
    expected = _brute_force(log, window)
    if not expected:
        with pytest.raises(LogError, match=f"{len(events)} positive events"):
            co_engagement_pairs(*zip(*log, strict=True), window=window)
        return
    pairs, counts = co_engagement_pairs(*zip(*log, strict=True), window=window)
    assert dict(zip(map(tuple, pairs.tolist()), counts.tolist(), strict=True)) == expected
    assert pairs.tolist() == sorted(pairs.tolist())


def test_ties_do_not_depend_on_row_order():
    rng = np.random.default_rng(0)
    users, items, times = rng.integers(0, 5, 200), rng.integers(0, 40, 200), rng.integers(0, 3, 200)
    order = rng.permutation(200)
    pairs, counts = co_engagement_pairs(users, items, times, window=2)
    again, counts_again = co_engagement_pairs(users[order], items[order], times[order], window=2)
    np.testing.assert_array_equal(pairs, again)
    np.testing.assert_array_equal(counts, counts_again)


def test_ties_do_not_favour_neighbouring_item_numbers():
    users, items = np.repeat(np.arange(300), 20), np.tile(np.arange(20), 300)
    pairs, counts = co_engagement_pairs(users, items, np.zeros(len(users)), window=1)
    distance = np.repeat(pairs[:, 1] - pairs[:, 0], counts.astype(int))
    assert distance.mean() == pytest.approx(7.0, abs=0.3)  # (n + 1) / 3 for random neighbours, 1 for sorted ones


def test_datetimes_order_events():
    times = np.array(["2024-01-03", "2024-01-01", "2024-01-02"], dtype="datetime64[s]")
    pairs, _ = co_engagement_pairs([0, 0, 0], [0, 1, 2], times, window=1)
    assert pairs.tolist() == [[0, 2], [1, 2]]


def test_a_million_events_take_seconds():
    rng = np.random.default_rng(1)
    users, items, times = rng.integers(0, 20_000, 10**6), rng.integers(0, 50_000, 10**6), rng.random(10**6)
    pairs, counts = co_engagement_pairs(users, items, times)
    assert counts.sum() == pytest.approx(5 * 10**6 - 20_000 * 15, rel=1e-3)
    assert pairs.max() < 50_000


def test_error_without_pairs_says_what_there_is():
    with pytest.raises(LogError, match=r"3 positive events of 2 users.*within 4 successive"):
        co_engagement_pairs([1, 1, 2], [5, 5, 6], [0, 1, 2], window=4)


def test_error_on_empty_window():
    with pytest.raises(LogError, match="0 positive events of 0 users"):
        co_engagement_pairs([], [], [])


def test_error_on_lengths():
    with pytest.raises(ShapeError, match=r"\(2,\), \(3,\), \(2,\)"):
        co_engagement_pairs([1, 1], [0, 1, 2], [0, 1])


def test_error_on_window():
    with pytest.raises(ConfigError, match="1 or more successive positives, but got 0"):
        co_engagement_pairs([1, 1], [0, 1], [0, 1], window=0)


def test_error_on_rows_that_are_no_rows():
    with pytest.raises(LogError, match=r"but got -3 to 1"):
        co_engagement_pairs([1, 1], [-3, 1], [0, 1])


def test_a_gap_in_time_ends_a_session_and_datetimes_count_in_seconds():
    users, items, times = np.zeros(4, int), np.arange(4), np.array([0, 60, 4000, 4010])
    pairs, _ = co_engagement_pairs(users, items, times, max_gap=100)
    assert pairs.tolist() == [[0, 1], [2, 3]]
    stamps = np.datetime64("2024-01-01", "us") + times.astype("timedelta64[s]")
    assert co_engagement_pairs(users, items, stamps, max_gap=100)[0].tolist() == [[0, 1], [2, 3]]


def test_pairs_of_heavy_users_count_less():
    users, items = np.array([0, 0, 1, 1, 1, 1]), np.array([0, 1, 0, 1, 2, 3])
    pairs, counts = co_engagement_pairs(users, items, np.arange(6), window=1, user_power=0.5)
    assert dict(zip(map(tuple, pairs.tolist()), counts.tolist(), strict=True)) == pytest.approx(
        {(0, 1): 2**-0.5 + 4**-0.5, (1, 2): 4**-0.5, (2, 3): 4**-0.5}
    )


@pytest.mark.parametrize("options", [{"max_gap": 0}, {"user_power": -1.0}])
def test_error_on_gap_and_power(options):
    with pytest.raises(ConfigError, match=f"but got {options.get('max_gap')} and {options.get('user_power', 0.0)}"):
        co_engagement_pairs([1, 1], [0, 1], [0, 1], **options)


def test_information_against_the_definition():
    rng = np.random.default_rng(0)
    counts = np.triu(rng.integers(1, 9, (5, 5)).astype(float), 1)
    pairs = np.argwhere(counts)
    whole = counts + counts.T
    expected = np.log((whole * whole.sum() / np.outer(whole.sum(0), whole.sum(0)))[pairs[:, 0], pairs[:, 1]])
    np.testing.assert_allclose(pointwise_mutual_information(pairs, counts[pairs[:, 0], pairs[:, 1]]), expected)
