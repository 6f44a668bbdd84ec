import numpy as np
import pytest

from lis_lightning.functional import item_vectors as leak
from lis_lightning.functional.item_vectors import (
    ItemVectors,
    complete_vectors,
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
    np.testing.assert_allclose(found.vectors @ found.vectors.T, approximation, atol=1e-5)
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
    np.testing.assert_allclose(found.vectors @ found.vectors.T, gram, atol=2e-5)


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
    np.testing.assert_allclose(id_vectors(users, items, labels, 30, dim=4).vectors, dense, atol=1e-5)


def test_id_vectors_solve_their_own_ridge(log):
    users, items, labels = log
    values = labels.copy()
    values -= values.mean()
    for index in (users, items):
        values = values - (np.bincount(index, values) / (np.bincount(index) + 5.0))[index]
    found = id_vectors(users, items, labels, 30, dim=3, iterations=1)
    given = leak.sparse.csr_matrix((values, (users, items)), shape=(60, 30), dtype=np.float32)
    start = leak._truncated_svd(given, 3, leak._POWER_STEPS)[1]
    of_users = np.zeros((60, 3))
    for user in range(60):
        own = start[items[users == user]]
        of_users[user] = np.linalg.solve(own.T @ own + 5 * np.eye(3), own.T @ values[users == user])
    for item in range(30):
        own = of_users[users[items == item]]
        expected = np.linalg.solve(own.T @ own + 5 * np.eye(3), own.T @ values[items == item])
        np.testing.assert_allclose(found.vectors[item], expected, atol=1e-5)


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


def completion_case(strength=0.0, num_items=40):
    rng = np.random.default_rng(1)
    content = rng.standard_normal((num_items, 5))
    vectors = content @ rng.standard_normal((5, 3)) + 2.0 + strength * rng.standard_normal((num_items, 3))
    present = np.arange(num_items) % 4 != 0
    counts = np.where(present, rng.integers(1, 50, num_items), 0)
    return ItemVectors(vectors * present[:, None], present), counts, content, vectors


def test_missing_vectors_follow_from_content_where_it_determines_them():
    known, counts, content, truth = completion_case()
    full = complete_vectors(known, counts, ItemVectors(content, np.ones(40, bool)))
    assert full.present.all()
    np.testing.assert_allclose(full.vectors, truth, atol=1e-3)


def test_the_prediction_of_an_item_leaves_it_out():
    known, counts, content, _ = completion_case(strength=0.5)
    everywhere = ItemVectors(content, np.ones(40, bool))
    fitted = complete_vectors(known, counts, everywhere, strength=1e12).vectors
    for item in (1, 2, 7):
        rest = known.present & (np.arange(40) != item)
        weight = np.where(rest, counts / (counts + 3.0), 0.0)
        errors = []
        for penalty in leak._RIDGES:  # the ridge that the closed form chose is among these, centred on all items
            whole = np.where(known.present, counts / (counts + 3.0), 0.0)
            x, y = (v - np.average(v, axis=0, weights=whole) for v in (content, known.vectors))
            gram = x.T @ (whole[:, None] * x)
            scale = penalty * np.linalg.eigvalsh(gram)[-1]
            design = x * np.sqrt(weight)[:, None]
            solved = np.linalg.solve(design.T @ design + scale * np.eye(5), design.T @ (y * np.sqrt(weight)[:, None]))
            predicted = x[item] @ solved + np.average(known.vectors, axis=0, weights=whole)
            errors.append(np.abs(predicted - fitted[item]).max())
        assert min(errors) < 1e-8


def test_data_outweighs_content_as_events_grow():
    known, counts, content, _ = completion_case(strength=1.0)
    everywhere = ItemVectors(content, np.ones(40, bool))
    none, half, all_of_it = (
        complete_vectors(known, counts, everywhere, strength=strength).vectors for strength in (1e12, 30.0, 0.0)
    )
    np.testing.assert_allclose(all_of_it[known.present], known.vectors[known.present])
    share = (counts / (counts + 30.0))[:, None]
    np.testing.assert_allclose(half, none + share * np.where(known.present[:, None], known.vectors - none, 0.0))


def test_items_without_content_stay_as_they_are():
    known, counts, content, _ = completion_case(strength=1.0)
    some = np.arange(40) < 30
    full = complete_vectors(known, counts, ItemVectors(content * some[:, None], some))
    np.testing.assert_array_equal(full.present, known.present | some)
    np.testing.assert_array_equal(full.vectors[~some], known.vectors[~some])


@pytest.mark.parametrize("content", [np.zeros((40, 5)), np.ones((40, 5))], ids=["nothing", "a constant"])
def test_content_that_says_nothing_predicts_the_mean(content):
    known, counts, _, _ = completion_case(strength=1.0)
    full = complete_vectors(known, counts, ItemVectors(content, np.ones(40, bool)))
    mean = np.average(known.vectors, axis=0, weights=np.where(known.present, counts / (counts + 3.0), 0.0))
    np.testing.assert_allclose(full.vectors[~known.present], np.tile(mean, (10, 1)), atol=1e-9)


def test_nothing_known_completes_to_zeros():
    nothing = ItemVectors(np.zeros((6, 2)), np.zeros(6, bool))
    full = complete_vectors(nothing, np.zeros(6, np.int64), ItemVectors(np.eye(6), np.ones(6, bool)))
    assert full.present.all()
    assert not full.vectors.any()
