"""Semantic IDs: prefixes, vectors rebuilt from codes, statistics and churn."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as stn

from lis_lightning.functional.code_vectors import rebuilt_vectors
from lis_lightning.functional.semantic_ids import code_churn, code_statistics, prefix_numbers

CODES = stn.arrays(np.int64, st.tuples(st.integers(1, 30), st.integers(1, 3)), elements=st.integers(0, 4))


@settings(max_examples=50, deadline=None)
@given(CODES)
def test_two_items_share_a_prefix_number_if_and_only_if_their_first_codes_are_equal(codes):
    prefixes = prefix_numbers(codes)
    for level in range(codes.shape[1]):
        equal = (codes[:, None, : level + 1] == codes[None, :, : level + 1]).all(-1)
        assert np.array_equal(prefixes[:, None, level] == prefixes[None, :, level], equal)


def rebuilt(vectors, codes, known=None):
    known = np.ones(len(codes), bool) if known is None else known
    numbers = torch.from_numpy(codes), torch.from_numpy(prefix_numbers(codes))
    return rebuilt_vectors(torch.from_numpy(vectors), *numbers, torch.from_numpy(known)).numpy()


def agreement(found, vectors):
    return np.corrcoef((found - found.mean(0)).ravel(), (vectors - vectors.mean(0)).ravel())[0, 1]


def test_sums_of_code_vectors_are_rebuilt_from_codes_that_items_share_with_others():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 10, (2000, 2))
    vectors = rng.normal(size=(10, 6))[codes[:, 0]] + 0.5 * rng.normal(size=(10, 6))[codes[:, 1]]
    assert agreement(rebuilt(vectors, codes), vectors) > 0.99


def test_codes_whose_meaning_hangs_on_the_prefix_are_rebuilt_too():
    rng = np.random.default_rng(1)
    codes = rng.integers(0, 8, (4000, 2))
    vectors = rng.normal(size=(8, 8, 6))[codes[:, 0], codes[:, 1]]
    assert agreement(rebuilt(vectors, codes), vectors) > 0.97


def test_a_vector_has_no_part_in_what_it_is_rebuilt_from():
    rng = np.random.default_rng(2)
    codes, vectors = rng.integers(0, 3, (60, 2)), rng.normal(size=(60, 4))
    changed = vectors.copy()
    changed[7] += 100.0
    before, after = rebuilt(vectors, codes), rebuilt(changed, codes)
    assert np.array_equal(after[7], before[7])
    assert np.abs(after - before).max() > 5


def test_items_that_the_codes_were_not_learnt_on_count_for_nobody_but_are_rebuilt():
    rng = np.random.default_rng(3)
    codes, vectors = rng.integers(0, 3, (40, 1)), rng.normal(size=(40, 2))
    known = np.arange(40) < 30
    changed = np.where(known[:, None], vectors, 1e3)
    assert np.array_equal(rebuilt(changed, codes, known), rebuilt(vectors, codes, known))
    assert np.abs(rebuilt(vectors, codes, known)[30:]).max() > 0


@pytest.mark.parametrize("codes", [np.zeros((50, 2), np.int64), np.arange(50)[:, None]])
def test_codes_that_all_or_none_share_say_nothing(codes):
    assert not rebuilt(np.random.default_rng(4).normal(size=(50, 3)), codes).any()


def test_statistics_of_uniform_and_of_collapsed_codes():
    grid = np.stack(np.meshgrid(np.arange(4), np.arange(4)), -1).reshape(-1, 2)
    assert code_statistics(grid, np.array([4, 4])) == {"collision_rate": 0.0, "utilisation": 1.0, "entropy": 1.0}
    same = code_statistics(np.zeros((16, 2), np.int64), np.array([4, 4]))
    assert same == {"collision_rate": 1.0, "utilisation": 0.25, "entropy": 0.0}


@settings(max_examples=30, deadline=None)
@given(CODES, st.permutations(range(5)))
def test_new_numbers_for_the_same_codes_are_no_churn(codes, names):
    assert code_churn(codes, np.array(names)[codes]) == 0.0


def test_churn_is_the_share_of_items_that_moved():
    before = np.repeat(np.arange(5), 20)[:, None]
    after = before.copy()
    after[::10] = (after[::10] + 1) % 5
    assert code_churn(before, (after + 3) % 5) == pytest.approx(0.1)


def test_codes_too_many_to_match_have_no_churn_unless_they_are_the_same():
    before = np.arange(5000)[:, None]
    assert code_churn(before, before) == 0.0
    assert np.isnan(code_churn(before, before[::-1]))
