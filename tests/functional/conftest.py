import jaxtyping
import numpy as np
import pytest
import torch

from lis_lightning.functional.histories import Histories


@pytest.fixture(scope="module")
def histories():
    rng = np.random.default_rng(0)
    stop = rng.integers(0, 40, 25)
    start = np.maximum(0, stop - 7)
    return Histories(
        item=torch.from_numpy(rng.integers(0, 12, 40)),
        label=torch.from_numpy(rng.integers(0, 2, 40)).double(),
        start=torch.from_numpy(start),
        stop=torch.from_numpy(stop),
        target=torch.from_numpy(rng.integers(0, 12, 25)),
        user_rate=torch.from_numpy(rng.random(25)),
        length=7,
    )


@pytest.fixture(scope="module")
def vectors():
    return torch.from_numpy(np.random.default_rng(1).standard_normal((12, 6)))


@pytest.fixture(scope="module")
def log():
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(60) % 3, 20)
    users = np.repeat(np.arange(60), 20)
    items = 10 * group + rng.integers(0, 10, users.size)
    labels = (rng.random(users.size) < 0.6).astype(float)
    return users, items, labels


@pytest.fixture
def rows():
    return torch.from_numpy(np.random.default_rng(0).standard_normal((7, 4)))


@pytest.fixture
def unchecked_shapes(monkeypatch):
    """As for a user: the test run's own check of the annotations would speak before the function does."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
