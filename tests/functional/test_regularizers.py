import numpy as np
import pytest
import torch

from lis_lightning.functional.regularizers import uniformity, variance_covariance


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
