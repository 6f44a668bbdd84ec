import numpy as np
import torch
from scipy import sparse

from lis_lightning.functional.alternating_least_squares import id_vectors
from lis_lightning.functional.randomized_svd import truncated_svd


def test_id_vectors_solve_their_own_ridge(log):
    users, items, labels = log
    values = labels.copy()
    values -= values.mean()
    for index in (users, items):
        values = values - (np.bincount(index, values) / (np.bincount(index) + 5.0))[index]
    ids = id_vectors(users, items, labels, 30, dim=3, iterations=1)
    residual_matrix = sparse.csr_matrix((values, (users, items)), shape=(60, 30), dtype=np.float32)
    start = truncated_svd(residual_matrix, 3)[1]
    of_users = np.zeros((60, 3))
    for user in range(60):
        own = start[items[users == user]]
        of_users[user] = np.linalg.solve(own.T @ own + 5 * np.eye(3), own.T @ values[users == user])
    for item in range(30):
        own = of_users[users[items == item]]
        expected = np.linalg.solve(own.T @ own + 5 * np.eye(3), own.T @ values[items == item])
        np.testing.assert_allclose(ids.vectors[item], expected, atol=1e-5)


def test_the_global_generator_does_not_move(log):
    users, items, labels = log
    before = torch.get_rng_state()
    id_vectors(users, items, labels, 30)
    assert torch.equal(before, torch.get_rng_state())
