from __future__ import annotations

import numpy as np

from lis_lightning.align.data.pair_keys import PairSet, pair_keys


def test_known_pairs_equal_a_set():
    rng = np.random.default_rng(2)
    pairs = rng.integers(0, 30, (80, 2))
    rows, columns = rng.integers(0, 30, 25), rng.integers(0, 30, 35)
    truth = {frozenset(pair) for pair in pairs.tolist()}
    expected = [[i == j or frozenset((i, j)) in truth for j in columns.tolist()] for i in rows.tolist()]
    assert PairSet(pairs).mask(rows, columns).tolist() == expected


def test_no_known_pairs_leaves_only_same_items():
    mask = PairSet(np.empty((0, 2), dtype=np.int64)).mask(np.array([1, 2]), np.array([2, 3]))
    assert mask.tolist() == [[False, False], [True, False]]


def test_keys_forget_the_order():
    assert pair_keys(np.array([[3, 9]])) == pair_keys(np.array([[9, 3]])) != pair_keys(np.array([[3, 8]]))
