import numpy as np
import pytest
import torch

from lis_lightning.functional.features import (
    TEMPERATURES,
    Histories,
    attention,
    history_cosines,
    place,
    profiles,
    repeats,
)


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


def rows(histories, event):
    return range(int(histories.start[event]), int(histories.stop[event]))


def test_profiles_equal_a_loop_over_histories(histories, vectors):
    got = profiles(vectors, histories)
    for event in range(25):
        expected = torch.zeros(6, dtype=torch.float64)
        for row in rows(histories, event):
            residual = histories.label[row] - histories.user_rate[event]
            expected += residual * vectors[histories.item[row]]
        torch.testing.assert_close(got[event], expected / (5 + len(rows(histories, event))))


def test_no_events_have_no_profiles(histories, vectors):
    nobody = histories.select(torch.arange(0))
    assert profiles(vectors, nobody).shape == (0, 6)
    assert history_cosines(place(vectors, k=3), nobody).shape == (0, histories.length)


def test_attention_equals_a_loop_over_histories(histories, vectors):
    train = torch.arange(25) < 15
    coordinates = place(vectors, k=3)
    cosines = history_cosines(coordinates, histories)
    got = attention(cosines, histories, train)
    unit = vectors - vectors.mean(0)
    unit = unit / unit.norm(dim=1, keepdim=True)
    known = {
        event: [float(unit[histories.target[event]] @ unit[histories.item[row]]) for row in rows(histories, event)]
        for event in range(25)
    }
    pooled = np.array([c for event in range(15) for c in known[event]])
    for event in range(25):
        z = (np.array(known[event]) - pooled.mean()) / pooled.std()
        residual = np.array([float(histories.label[r] - histories.user_rate[event]) for r in rows(histories, event)])
        for column, tau in enumerate(TEMPERATURES):
            weight = np.exp(np.minimum(tau * z, 8))
            expected = (residual * weight).sum() / (3 * np.exp(tau) + weight.sum())
            assert float(got[event, column]) == pytest.approx(expected, abs=1e-9)
        assert float(got[event, 3]) == pytest.approx((residual * z).mean() if z.size else 0.0, abs=1e-9)


def test_repeats_count_the_target_in_its_own_history(histories):
    got = repeats(histories)
    for event in range(25):
        same = [r for r in rows(histories, event) if histories.item[r] == histories.target[event]]
        positive = sum(float(histories.label[r]) for r in same)
        assert got[event].tolist() == pytest.approx([np.log1p(positive), np.log1p(len(same) - positive)])


def test_a_collapsed_matrix_has_no_coordinates():
    noise = 1e-7 * torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    constant = torch.full((50, 8), 3.7) + noise
    coordinates = place(constant)
    assert not coordinates.profile.any()
    assert not coordinates.present.any()


def test_absent_rows_stay_zero_and_do_not_move_the_frame(vectors):
    present = torch.ones(12, dtype=torch.bool)
    present[[2, 5]] = False
    changed = vectors.clone()
    changed[[2, 5]] = 1e6
    first = place(vectors, present=present)
    second = place(changed, present=present)
    torch.testing.assert_close(first.profile, second.profile)
    assert not first.profile[[2, 5]].any()


def test_fewer_dimensions_than_axes_are_padded_with_zeros():
    narrow = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    assert place(narrow, k=16).profile.shape == (20, 16)
