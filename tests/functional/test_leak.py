import numpy as np
import pytest

from lis_lightning.functional import leak
from lis_lightning.functional.leak import (
    ItemVectors,
    cooccurrence,
    cooccurrence_vectors,
    id_vectors,
    pair_vectors,
    rotate_onto,
)


@pytest.fixture(scope="module")
def log():
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(60) % 3, 20)
    users = np.repeat(np.arange(60), 20)
    items = 10 * group + rng.integers(0, 10, users.size)
    labels = (rng.random(users.size) < 0.6).astype(float)
    return users, items, labels


def brute_force_ppmi(users, items, num_items, smoothing=0.75):
    together = np.zeros((num_items, num_items))
    for user in np.unique(users):
        own = np.unique(items[users == user])
        for first in own:
            for second in own:
                if first != second:
                    together[first, second] += own.size**-0.5
    target, context = together.sum(1), together.sum(0) ** smoothing
    with np.errstate(divide="ignore", invalid="ignore"):
        information = np.log(together * context.sum() / np.outer(target, context))
    return np.where(np.isfinite(information), np.maximum(information, 0), 0)


def test_pair_vectors_rebuild_the_information_of_a_double_loop(log):
    users, items, _ = log
    expected = brute_force_ppmi(users, items, 32)
    found = pair_vectors(users, items, 32, dim=31)
    left, strength, _ = np.linalg.svd(expected)
    approximation = (left[:, :29] * strength[:29]) @ left[:, :29].T
    np.testing.assert_allclose(found.vectors @ found.vectors.T, approximation, atol=1e-6)
    assert not found.present[30:].any()


def test_the_scale_and_the_diagonal_of_a_cooccurrence_do_not_matter(log):
    users, items, _ = log
    together = cooccurrence(users, items, 32)
    scaled = 7.0 * together
    scaled.setdiag(3.0)
    expected = pair_vectors(users, items, 32)
    found = cooccurrence_vectors(scaled.tocsr())
    np.testing.assert_array_equal(found.present, expected.present)
    gram = expected.vectors @ expected.vectors.T  # tied components may come in any rotation
    np.testing.assert_allclose(found.vectors @ found.vectors.T, gram, atol=1e-9)


def test_items_of_one_taste_have_near_vectors(log):
    users, items, _ = log
    found = pair_vectors(users, items, 30, dim=4).vectors
    unit = found / np.linalg.norm(found, axis=1, keepdims=True)
    cosines = unit @ unit.T
    same = np.arange(30)[:, None] // 10 == np.arange(30)[None] // 10
    assert cosines[same].mean() > 0.5 > cosines[~same].mean()


def test_sparse_and_dense_products_give_the_same_vectors(log, monkeypatch):
    users, items, labels = log
    dense = id_vectors(users, items, labels, 30, dim=4).vectors
    monkeypatch.setattr(leak, "_DENSE_ENTRIES", 0)
    np.testing.assert_allclose(id_vectors(users, items, labels, 30, dim=4).vectors, dense, atol=1e-8)


def test_id_vectors_solve_their_own_ridge(log):
    users, items, labels = log
    values = labels.copy()
    values -= values.mean()
    for index in (users, items):
        values = values - (np.bincount(index, values) / (np.bincount(index) + 5.0))[index]
    found = id_vectors(users, items, labels, 30, dim=3, iterations=1)
    start = leak._truncated_svd(leak.sparse.csr_matrix((values, (users, items)), shape=(60, 30)), 3)[1]
    of_users = np.zeros((60, 3))
    for user in range(60):
        own = start[items[users == user]]
        of_users[user] = np.linalg.solve(own.T @ own + 5 * np.eye(3), own.T @ values[users == user])
    for item in range(30):
        own = of_users[users[items == item]]
        expected = np.linalg.solve(own.T @ own + 5 * np.eye(3), own.T @ values[items == item])
        np.testing.assert_allclose(found.vectors[item], expected, atol=1e-9)


def test_rotation_onto_a_reference_undoes_a_rotation():
    rng = np.random.default_rng(0)
    reference = ItemVectors(rng.standard_normal((20, 5)), np.ones(20, bool))
    turn, _ = np.linalg.qr(rng.standard_normal((5, 5)))
    back = rotate_onto(ItemVectors(reference.vectors @ turn, np.arange(20) > 3), reference)
    np.testing.assert_allclose(back.vectors, reference.vectors, atol=1e-10)


def test_the_global_generator_does_not_move(log):
    import torch

    users, items, labels = log
    before = torch.get_rng_state()
    id_vectors(users, items, labels, 30)
    assert torch.equal(before, torch.get_rng_state())


def test_a_log_without_pairs_has_no_vectors():
    found = pair_vectors(np.arange(5), np.arange(5), 6)
    assert not found.present.any()
    assert not found.vectors.any()
