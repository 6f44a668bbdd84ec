import numpy as np
import pytest
import torch

from lis_lightning.errors import ConfigError
from lis_lightning.functional.matryoshka import matryoshka_loss
from lis_lightning.functional.regularizers import variance_covariance


def test_nested_dimensions_are_averaged(rows):
    def loss(part):
        return variance_covariance(part)

    expected = np.mean([loss(rows[:, :dim]).item() for dim in (1, 2, 4)])
    assert matryoshka_loss(loss, rows, [1, 2, 4]).item() == pytest.approx(expected)


@pytest.mark.parametrize("dims", [[], [0, 2], [2, 5]])
def test_nested_dimensions_out_of_range(rows, dims):
    with pytest.raises(ConfigError, match="must lie in 1 to 4"):
        matryoshka_loss(torch.sum, rows, dims)
