"""What all losses share: checks of their inputs, and full precision under autocast."""

import pytest
import torch

from lis_lightning.errors import ConfigError, ShapeError
from lis_lightning.functional.distillation import contrastive_distillation, cosine_distillation, gram_distillation
from lis_lightning.functional.pairwise_losses import bpr, dpo
from lis_lightning.functional.regularizers import uniformity, variance_covariance


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
