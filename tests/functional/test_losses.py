import jaxtyping
import numpy as np
import pytest
import torch
from scipy.special import expit
from scipy.stats import special_ortho_group

from lis_lightning.errors import ConfigError, NonFiniteError, ShapeError
from lis_lightning.functional.distillation import contrastive_distillation, cosine_distillation, gram_distillation
from lis_lightning.functional.pairwise import bpr, dpo, pool_history
from lis_lightning.functional.regularizers import matryoshka, uniformity, variance_covariance


@pytest.fixture
def rows():
    return torch.from_numpy(np.random.default_rng(0).standard_normal((7, 4)))


@pytest.fixture
def unchecked_shapes(monkeypatch):
    """As for a user: the test run's own check of the annotations would speak before the function does."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


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


def test_histories_pool_unit_rows_and_an_empty_one_is_zero(rows):
    histories = torch.stack([rows[:3], rows[3:6]])
    present = torch.tensor([[True, False, True], [False, False, False]])
    unit = rows / rows.norm(dim=1, keepdim=True)
    expected = torch.stack([(unit[0] + unit[2]) / 2, torch.zeros(4, dtype=torch.float64)])
    torch.testing.assert_close(pool_history(histories, present), expected)


def test_bpr_and_dpo_against_their_formulas():
    rng = np.random.default_rng(0)
    s, o, r, q = (torch.from_numpy(rng.standard_normal(9)) for _ in range(4))
    assert bpr(s, o).item() == pytest.approx(-np.log(expit((s - o).numpy())).mean())
    expected = -np.log(expit(0.3 * ((s - r) - (o - q)).numpy())).mean()
    assert dpo(s, o, r, q, beta=0.3).item() == pytest.approx(expected)
    assert bpr(torch.tensor([1e4]), torch.tensor([-1e4])).item() == 0.0, "no overflow"


def test_variance_and_covariance_against_numpy(rows):
    covariance = np.cov(rows.numpy(), rowvar=False)
    hinge = np.maximum(0, 1 - np.sqrt(np.diag(covariance) + 1e-4)).mean()
    squares = (covariance - np.diag(np.diag(covariance))) ** 2
    expected = hinge + 0.04 * squares.sum() / 4
    assert variance_covariance(rows).item() == pytest.approx(expected)


def test_uniformity_is_lowest_far_apart_and_collapse_has_gradients():
    spread = torch.cat([torch.eye(3), -torch.eye(3)])
    assert uniformity(spread) < uniformity(torch.rand(6, 3, generator=torch.Generator().manual_seed(0)))
    collapsed = torch.ones(4, 3).add_(1e-4 * torch.eye(4, 3)).requires_grad_()
    (uniformity(collapsed) + variance_covariance(collapsed)).backward()
    assert torch.isfinite(collapsed.grad).all()
    assert collapsed.grad.abs().sum() > 0


def test_nested_dimensions_are_averaged(rows):
    def loss(part):
        return variance_covariance(part)

    expected = np.mean([loss(rows[:, :dim]).item() for dim in (1, 2, 4)])
    assert matryoshka(loss, rows, [1, 2, 4]).item() == pytest.approx(expected)


@pytest.mark.parametrize("dims", [[], [0, 2], [2, 5]])
def test_nested_dimensions_out_of_range(rows, dims):
    with pytest.raises(ConfigError, match="must lie in 1 to 4"):
        matryoshka(torch.sum, rows, dims)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("loss", "shapes"),
    [
        (cosine_distillation, [(4, 3), (4, 2)]),
        (gram_distillation, [(4, 3), (5, 3)]),
        (gram_distillation, [(1, 3), (1, 3)]),
        (variance_covariance, [(1, 3)]),
        (uniformity, [(3,)]),
        (bpr, [(3,), (4,)]),
        (dpo, [(3,), (3,), (3,), (2,)]),
    ],
)
def test_shapes_that_do_not_fit(loss, shapes):
    with pytest.raises(ShapeError):
        loss(*(torch.ones(shape) for shape in shapes))


@pytest.mark.parametrize("loss", [cosine_distillation, gram_distillation, contrastive_distillation])
def test_rows_that_are_not_finite_are_named(loss, rows):
    broken = rows.clone()
    broken[2, 1] = np.nan
    with pytest.raises(
        NonFiniteError, match=r"`(rows|anchors)` has NaN or infinity in 1 of 7 rows, the first is row 2"
    ):
        loss(broken, rows)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda x: contrastive_distillation(x, x, 0.0), "temperature"),
        (lambda x: uniformity(x, t=-1.0), "t"),
        (lambda x: variance_covariance(x, target=0.0), "target"),
        (lambda x: dpo(x[:, 0], x[:, 0], x[:, 0], x[:, 0], beta=0.0), "beta"),
    ],
)
def test_numbers_out_of_range(call, name, rows):
    with pytest.raises(ConfigError, match=f"`{name}` must be a finite number above 0"):
        call(rows)


def test_under_autocast_losses_are_of_full_precision(rows):
    small = rows.to(torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for loss in (gram_distillation(small, small), cosine_distillation(small, small), uniformity(small)):
            assert loss.dtype == torch.float32
