import numpy as np
from hypothesis import given, strategies as st

from lis_lightning.functional.history import as_of, lexical_order, sample_shown_negatives, take_whole_users

logs = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(0, 1)), min_size=1, max_size=40)


@given(logs)
def test_as_of_counts_strictly_earlier_events_only(rows):
    keys, times, labels = (np.array(column) for column in zip(*rows, strict=True))
    known, inverted = as_of(keys, times, np.stack([labels, 1 - labels]))
    assert inverted.count is known.count
    for index in range(keys.size):
        before = (keys == keys[index]) & (times < times[index])
        assert known.count[index] == before.sum()
        assert known.positives[index] == labels[before].sum()
        assert inverted.positives[index] == (1 - labels[before]).sum()


columns = st.one_of(
    st.lists(st.integers(-3, 3), min_size=6, max_size=6).map(np.array),
    st.lists(st.integers(-(2**62), 2**62), min_size=6, max_size=6).map(np.array),
    st.lists(st.sampled_from([-(2**63), 0, 2**63 - 1]), min_size=6, max_size=6).map(np.array),
    st.lists(st.integers(0, 1), min_size=6, max_size=6).map(lambda values: np.array(values, np.int8)),
    st.lists(st.floats(-2, 2), min_size=6, max_size=6).map(np.array),
)


@given(st.lists(columns, min_size=1, max_size=5))
def test_lexical_order_is_that_of_lexsort(keys):
    np.testing.assert_array_equal(lexical_order(*keys), np.lexsort(keys[::-1]))


def test_lexical_order_of_nothing_is_nothing():
    assert lexical_order(np.zeros(0, int), np.zeros(0)).size == 0


def test_rates_are_smoothed_to_the_prior():
    (known,) = as_of(np.array([0, 0]), np.array([1, 2]), np.array([[1, 1]]))
    np.testing.assert_allclose(known.rate(0.4), [0.4, (1 + 5 * 0.4) / 6])


def test_users_are_taken_whole_within_both_budgets():
    rng = np.random.default_rng(0)
    users, items = rng.integers(0, 50, 2000), rng.integers(0, 300, 2000)
    counted = rng.random(2000) < 0.5
    chosen = take_whole_users(users, items, counted, max_events=400, max_items=250, rng=rng)
    inside = chosen[users]
    assert 0 < (counted & inside).sum() <= 400
    assert np.unique(items[inside]).size <= 250


def test_one_user_is_taken_even_over_budget():
    users, items = np.zeros(9, int), np.arange(9)
    chosen = take_whole_users(
        users, items, np.ones(9, bool), max_events=2, max_items=None, rng=np.random.default_rng(0)
    )
    assert chosen.tolist() == [True]


def test_negatives_come_from_others_in_the_same_period():
    rng = np.random.default_rng(0)
    users, items, periods = rng.integers(0, 40, 800), rng.integers(0, 60, 800), rng.integers(5, 9, 800)
    source, negative = sample_shown_negatives(users, items, periods, 3, rng)
    engaged = set(zip(users.tolist(), periods.tolist(), items.tolist(), strict=True))
    shown = set(zip(periods.tolist(), items.tolist(), strict=True))
    for row, item in zip(source.tolist(), negative.tolist(), strict=True):
        assert (users[row], periods[row], item) not in engaged
        assert (periods[row], item) in shown
    assert source.size > 0.95 * 3 * users.size


def test_negatives_are_given_up_where_a_user_is_alone():
    source, _ = sample_shown_negatives(np.zeros(4, int), np.arange(4), np.zeros(4, int), 2, np.random.default_rng(0))
    assert source.size == 0
