import numpy as np

from lis_lightning.functional.sampling import sample_shown_negatives, take_whole_users


def test_users_are_taken_whole_within_both_budgets():
    rng = np.random.default_rng(0)
    users, items = rng.integers(0, 50, 2000), rng.integers(0, 300, 2000)
    counted = rng.random(2000) < 0.5
    chosen = take_whole_users(users, items, counted, rng.permutation(50), max_events=400, max_items=250)
    inside = chosen[users]
    assert 0 < (counted & inside).sum() <= 400
    assert np.unique(items[inside]).size <= 250


def test_one_user_is_taken_even_over_budget():
    users, items = np.zeros(9, int), np.arange(9)
    chosen = take_whole_users(users, items, np.ones(9, bool), np.array([0]), max_events=2, max_items=None)
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
