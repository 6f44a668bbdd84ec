import numpy as np
import pytest
import torch
from scipy.special import expit

from lis_lightning.functional.pairwise_losses import bpr, dpo


def test_bpr_and_dpo_against_their_formulas():
    rng = np.random.default_rng(0)
    s, o, r, q = (torch.from_numpy(rng.standard_normal(9)) for _ in range(4))
    assert bpr(s, o).item() == pytest.approx(-np.log(expit((s - o).numpy())).mean())
    expected = -np.log(expit(0.3 * ((s - r) - (o - q)).numpy())).mean()
    assert dpo(s, o, r, q, beta=0.3).item() == pytest.approx(expected)
    assert bpr(torch.tensor([1e4]), torch.tensor([-1e4])).item() == 0.0, "no overflow"
