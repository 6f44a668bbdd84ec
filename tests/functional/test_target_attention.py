import numpy as np
import pytest
import torch

from lis_lightning.functional.histories import Histories, user_profiles
from lis_lightning.functional.item_coordinates import principal_coordinates
from lis_lightning.functional.target_attention import TEMPERATURES, attention_features, history_cosines


def history_rows(histories, event):
    return range(int(histories.start[event]), int(histories.stop[event]))


def test_no_events_have_no_profiles(histories, vectors):
    nobody = histories.select(torch.arange(0))
    assert user_profiles(vectors, nobody).shape == (0, 6)
    assert history_cosines(principal_coordinates(vectors, k=3), nobody).shape == (0, histories.length)


def test_attention_equals_a_loop_over_histories(histories, vectors):
    train = torch.arange(25) < 15
    coordinates = principal_coordinates(vectors, k=3)
    cosines = history_cosines(coordinates, histories)
    got = attention_features(cosines, histories, train)
    unit = vectors - vectors.mean(0)
    unit = unit / unit.norm(dim=1, keepdim=True)
    expected_cosines = {
        event: [
            float(unit[histories.target[event]] @ unit[histories.item[row]]) for row in history_rows(histories, event)
        ]
        for event in range(25)
    }
    pooled = np.array([c for event in range(15) for c in expected_cosines[event]])
    for event in range(25):
        z = (np.array(expected_cosines[event]) - pooled.mean()) / pooled.std()
        residual = np.array(
            [float(histories.label[r] - histories.user_rate[event]) for r in history_rows(histories, event)]
        )
        for column, tau in enumerate(TEMPERATURES):
            weight = np.exp(np.minimum(tau * z, 8))
            expected = (residual * weight).sum() / (3 * np.exp(tau) + weight.sum())
            assert float(got[event, column]) == pytest.approx(expected, abs=1e-9)
        assert float(got[event, 3]) == pytest.approx((residual * z).mean() if z.size else 0.0, abs=1e-9)


def test_targets_that_stand_in_the_history_rows_are_not_looked_up_again_and_give_the_same_cosines():
    generator = torch.Generator().manual_seed(0)
    num_rows, length = 300, 12
    item = torch.randint(0, 40, (num_rows,), generator=generator)
    stop = torch.arange(20, num_rows)
    histories = Histories(
        item=item,
        label=torch.zeros(num_rows, dtype=torch.float64),
        start=stop - torch.randint(0, length + 1, stop.shape, generator=generator),
        stop=stop,
        target=item[stop],
        user_rate=torch.full(stop.shape, 0.5, dtype=torch.float64),
        length=length,
    )
    items = principal_coordinates(torch.randn(40, 24, generator=generator, dtype=torch.float64))
    assert histories.rows_of_targets()
    cosines = history_cosines(items, histories)
    units = items.unit(torch.arange(40))
    for event in range(stop.numel()):
        own = item[histories.start[event] : stop[event]]
        expected = units[own] @ units[histories.target[event]]
        torch.testing.assert_close(cosines[event, : own.numel()], expected)
        assert cosines[event, own.numel() :].isnan().all()
