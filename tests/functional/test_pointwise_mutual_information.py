import numpy as np

from lis_lightning.functional.pointwise_mutual_information import cooccurrence, cooccurrence_vectors, pair_vectors


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
    pairs = pair_vectors(users, items, 32, dim=31)
    left, strength, _ = np.linalg.svd(expected)
    approximation = (left[:, :29] * strength[:29]) @ left[:, :29].T
    np.testing.assert_allclose(pairs.vectors @ pairs.vectors.T, approximation, atol=1e-5)
    assert not pairs.present[30:].any()


def test_the_scale_and_the_diagonal_of_a_cooccurrence_do_not_matter(log):
    users, items, _ = log
    together = cooccurrence(users, items, 32)
    scaled = 7.0 * together
    scaled.setdiag(3.0)
    expected = pair_vectors(users, items, 32)
    pairs = cooccurrence_vectors(scaled.tocsr())
    np.testing.assert_array_equal(pairs.present, expected.present)
    gram = expected.vectors @ expected.vectors.T  # tied components may come in any rotation
    np.testing.assert_allclose(pairs.vectors @ pairs.vectors.T, gram, atol=2e-5)


def test_items_of_one_taste_have_near_vectors(log):
    users, items, _ = log
    pairs = pair_vectors(users, items, 30, dim=4).vectors
    unit = pairs / np.linalg.norm(pairs, axis=1, keepdims=True)
    cosines = unit @ unit.T
    same = np.arange(30)[:, None] // 10 == np.arange(30)[None] // 10
    assert cosines[same].mean() > 0.5 > cosines[~same].mean()


def test_a_log_without_pairs_has_no_vectors():
    pairs = pair_vectors(np.arange(5), np.arange(5), 6)
    assert not pairs.present.any()
    assert not pairs.vectors.any()
