import torch

from lis_lightning.functional.item_coordinates import principal_coordinates


def test_a_collapsed_matrix_has_no_coordinates():
    noise = 1e-7 * torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    constant = torch.full((50, 8), 3.7) + noise
    coordinates = principal_coordinates(constant)
    assert not coordinates.profile.any()
    assert not coordinates.present.any()


def test_absent_rows_stay_zero_and_do_not_move_the_frame(vectors):
    present = torch.ones(12, dtype=torch.bool)
    present[[2, 5]] = False
    changed = vectors.clone()
    changed[[2, 5]] = 1e6
    first = principal_coordinates(vectors, present=present)
    second = principal_coordinates(changed, present=present)
    torch.testing.assert_close(first.profile, second.profile)
    assert not first.profile[[2, 5]].any()


def test_fewer_dimensions_than_axes_are_padded_with_zeros():
    narrow = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    assert principal_coordinates(narrow, k=16).profile.shape == (20, 16)
