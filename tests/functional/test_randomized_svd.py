import numpy as np
from scipy import sparse

from lis_lightning.functional import randomized_svd
from lis_lightning.functional.randomized_svd import truncated_svd


def test_sparse_and_dense_products_give_the_same_components(monkeypatch):
    matrix = sparse.random(60, 30, density=0.3, random_state=0, format="csr")
    dense = truncated_svd(matrix, 4)
    monkeypatch.setattr(randomized_svd, "_DENSE_ENTRIES", 0)
    for part, expected in zip(truncated_svd(matrix, 4), dense, strict=True):
        np.testing.assert_allclose(part, expected, atol=1e-5)


def test_components_equal_those_of_an_exact_svd():
    matrix = sparse.random(50, 30, density=0.3, random_state=0, format="csr")
    left, right = truncated_svd(matrix, 5)
    u, s, vt = np.linalg.svd(matrix.toarray())
    np.testing.assert_allclose(left @ right.T, (u[:, :5] * s[:5]) @ vt[:5], atol=1e-4)
