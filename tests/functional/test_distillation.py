import numpy as np
import pytest
import torch
from scipy.stats import special_ortho_group

from lis_lightning.errors import NonFiniteError
from lis_lightning.functional.distillation import contrastive_distillation, cosine_distillation, gram_distillation


def cosines(x, y):
    x, y = np.asarray(x), np.asarray(y)
    return x @ y.T / np.linalg.norm(x, axis=1)[:, None] / np.linalg.norm(y, axis=1)


def turned(rows, seed=1):
    return rows @ torch.from_numpy(special_ortho_group.rvs(rows.shape[1], random_state=seed))


def test_cosine_distillation_is_one_less_the_mean_cosine(rows):
    teacher = turned(rows)
    assert cosine_distillation(rows, teacher).item() == pytest.approx(1 - np.diag(cosines(rows, teacher)).mean())
    assert cosine_distillation(rows, 3 * rows).item() == pytest.approx(0, abs=1e-12)


def test_gram_distillation_compares_all_pairs_and_forgets_the_rotation(rows):
    teacher = torch.from_numpy(np.random.default_rng(1).standard_normal((7, 2)))
    expected = (cosines(rows, rows) - cosines(teacher, teacher)) ** 2
    off_diagonal = expected[~np.eye(7, dtype=bool)].mean()
    assert gram_distillation(rows, teacher).item() == pytest.approx(off_diagonal)
    assert gram_distillation(turned(rows), 2 * teacher).item() == pytest.approx(off_diagonal)
    assert gram_distillation(rows, turned(rows)).item() == pytest.approx(0, abs=1e-20)


def test_contrastive_distillation_finds_its_own_teacher(rows):
    assert contrastive_distillation(rows, rows, 0.05) < contrastive_distillation(rows, rows.flip(0), 0.05)


@pytest.mark.parametrize("loss", [cosine_distillation, gram_distillation, contrastive_distillation])
def test_rows_that_are_not_finite_are_named(loss, rows):
    broken = rows.clone()
    broken[2, 1] = np.nan
    with pytest.raises(
        NonFiniteError, match=r"`(rows|anchors)` has NaN or infinity in 1 of 7 rows, the first is row 2"
    ):
        loss(broken, rows)
