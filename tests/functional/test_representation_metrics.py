import numpy as np
import pytest
import torch

from lis_lightning.functional.item_coordinates import principal_coordinates
from lis_lightning.functional.representation_metrics import linear_cka, pair_auc, rankme


def test_rankme_of_equal_directions_is_their_number():
    rng = np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.standard_normal((50, 6)))
    centered = basis - basis.mean(0)
    orthonormal, _ = np.linalg.qr(centered)
    assert rankme(torch.from_numpy(orthonormal - orthonormal.mean(0))) == pytest.approx(6, abs=0.1)


def test_rankme_equals_the_entropy_of_singular_values():
    vectors = np.random.default_rng(0).standard_normal((40, 7)) * np.arange(1, 8)
    strength = np.linalg.svd(vectors - vectors.mean(0), compute_uv=False)
    share = strength / strength.sum()
    assert rankme(torch.from_numpy(vectors)) == pytest.approx(np.exp(-(share * np.log(share)).sum()))


def test_rankme_of_a_constant_is_zero():
    assert rankme(torch.full((9, 4), 2.3)) == 0.0


def test_cka_ignores_rotation_and_scale_and_equals_the_kernel_form():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((30, 5)), rng.standard_normal((30, 4))
    turn, _ = np.linalg.qr(rng.standard_normal((5, 5)))
    assert linear_cka(torch.from_numpy(x), torch.from_numpy(3 * x @ turn)) == pytest.approx(1.0)
    center = np.eye(30) - 1 / 30
    kx, ky = center @ x @ x.T @ center, center @ y @ y.T @ center
    expected = (kx * ky).sum() / np.sqrt((kx * kx).sum() * (ky * ky).sum())
    assert linear_cka(torch.from_numpy(x), torch.from_numpy(y)) == pytest.approx(expected)


def test_pair_auc_tells_true_pairs_from_shuffled_ones():
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((20, 8))
    vectors = torch.from_numpy(np.repeat(centers, 5, axis=0) + 0.05 * rng.standard_normal((100, 8)))
    group = rng.integers(0, 20, 500)
    pairs = np.stack([5 * group + rng.integers(0, 5, 500), 5 * group + rng.integers(0, 5, 500)], 1)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    assert pair_auc(principal_coordinates(vectors), pairs, np.random.default_rng(1)) > 0.95
    noise = torch.from_numpy(rng.standard_normal((100, 8)))
    assert pair_auc(principal_coordinates(noise), pairs, np.random.default_rng(1)) == pytest.approx(0.5, abs=0.1)
