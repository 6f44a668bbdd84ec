import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from sklearn.linear_model import LogisticRegression

from lis_lightning.functional.logistic_regression import fit_logistic, fit_slope


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    features = torch.from_numpy(np.c_[rng.standard_normal((400, 3)), np.ones(400)])
    logits = features @ torch.tensor([1.0, -0.5, 0.0, 0.3], dtype=torch.float64)
    labels = torch.from_numpy((rng.random(400) < torch.sigmoid(logits).numpy()).astype(float))
    return features, labels


def test_logistic_equals_sklearn(data):
    features, labels = data
    weight = fit_logistic(features, labels, penalty=10.0)
    peer = LogisticRegression(C=0.1, tol=1e-10, max_iter=1000).fit(features[:, :3].numpy(), labels.numpy())
    np.testing.assert_allclose(weight[:3], peer.coef_[0], atol=1e-5)
    assert float(weight[3]) == pytest.approx(peer.intercept_[0], abs=1e-5)


def test_logistic_survives_a_perfect_separator():
    features = torch.tensor([[-2.0, 1.0], [-1.0, 1.0], [1.0, 1.0], [2.0, 1.0]], dtype=torch.float64)
    weight = fit_logistic(features, torch.tensor([0.0, 0, 1, 1], dtype=torch.float64), penalty=0.0)
    assert torch.isfinite(weight).all()
    assert float(weight[0]) > 1


def test_slope_maximises_the_likelihood(data):
    features, labels = data
    offset = 0.5 * features[:, 1]

    def loss(slope):
        logits = offset + slope * features[:, 0]
        return float(torch.nn.functional.binary_cross_entropy_with_logits(logits, labels))

    best = minimize_scalar(loss, bounds=(0, 10), method="bounded", options={"xatol": 1e-8}).x
    assert fit_slope(features[:, 0], labels, offset)[0] == pytest.approx(best, abs=1e-4)


def test_slope_of_a_harmful_score_is_zero(data):
    features, labels = data
    slope, error = fit_slope(-features[:, 0], labels, torch.zeros(400, dtype=torch.float64))
    assert slope == 0.0
    # The information at 0 is that of fair coins.
    assert error == pytest.approx(2 / float(features[:, 0].norm()))
