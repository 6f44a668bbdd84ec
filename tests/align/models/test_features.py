from __future__ import annotations

import numpy as np
import pytest
import torch

from lis_lightning.align.data import ItemTable
from lis_lightning.align.models import FeatureEncoder, ItemEncoder
from lis_lightning.errors import ConfigError, ItemError, ShapeError


def _features(num_items=40, dim=6, seed=0) -> ItemTable:
    features = np.random.default_rng(seed).standard_normal((num_items, dim)).astype(np.float32)
    return ItemTable(np.arange(num_items), ("",) * num_items, (None,) * num_items, features)


def test_features_start_as_their_principal_components():
    items = _features()
    encoder = FeatureEncoder.from_items(items, output_dim=3)
    batch = next(iter(encoder.loader(encoder.prepare(items, ""))))
    z = (items.features - items.features.mean(0)) / items.features.std(0)
    u, s, _ = np.linalg.svd(z, full_matrices=False)
    out = encoder(batch).detach().numpy()
    np.testing.assert_allclose(np.abs(out), np.abs(u[:, :3] * s[:3]), rtol=1e-3, atol=1e-4)


def test_features_keep_their_geometry_where_no_dimension_is_dropped():
    items = _features()
    encoder = FeatureEncoder.from_items(items)
    assert encoder.output_dim == 6
    out = encoder(next(iter(encoder.loader(encoder.prepare(items, ""))))).detach()
    z = torch.from_numpy((items.features - items.features.mean(0)) / items.features.std(0))
    torch.testing.assert_close(out @ out.T, z @ z.T, rtol=1e-4, atol=1e-4)


def test_features_branch_learns():
    items = _features()
    encoder = FeatureEncoder.from_items(items, hidden_dim=8)
    encoder(next(iter(encoder.loader(encoder.prepare(items, ""))))).square().sum().backward()
    assert encoder.residual[2].weight.grad.abs().max() > 0


def test_linear_head_has_one_matrix():
    encoder = FeatureEncoder(6, output_dim=3, hidden_dim=0)
    assert [tuple(weight.shape) for weight in encoder.parameters()] == [(3, 6)]


def test_statistics_travel_with_the_weights():
    items = _features()
    encoder, other = FeatureEncoder.from_items(items), FeatureEncoder(6, output_dim=6)
    other.load_state_dict(encoder.state_dict())
    batch = next(iter(encoder.loader(encoder.prepare(items, ""))))
    assert torch.equal(encoder(batch), other(batch))


@pytest.mark.parametrize("constant", [0, slice(None)], ids=["one column", "all"])
def test_constant_features_stay_finite(constant):
    items = _features()
    items.features[:, constant] = 3.0
    encoder = FeatureEncoder.from_items(items)
    assert torch.isfinite(encoder(next(iter(encoder.loader(encoder.prepare(items, "")))))).all()


def test_error_without_features(pictured):
    with pytest.raises(ItemError, match=r"6 items have no precomputed features.*use a model that reads images"):
        FeatureEncoder.from_items(pictured)


def test_error_on_features_of_another_kind():
    with pytest.raises(ShapeError, match="reads 6 features an item, but got 5"):
        FeatureEncoder(6, output_dim=2).prepare(_features(dim=5), "")


@pytest.mark.parametrize(("output_dim", "hidden_dim"), [(7, 4), (0, 4), (3, -1)])
def test_error_on_dimensions(output_dim, hidden_dim):
    with pytest.raises(ConfigError, match=rf"the 6 dimensions.* got {output_dim} and {hidden_dim}"):
        FeatureEncoder(6, output_dim=output_dim, hidden_dim=hidden_dim)


def test_base_class_promises_only():
    encoder = ItemEncoder()
    for call in (lambda: encoder.prepare(_features(), ""), lambda: encoder.collate([]), lambda: encoder({})):
        with pytest.raises(NotImplementedError):
            call()


def test_items_with_string_ids_are_rows_like_any_other():
    ids = np.array(["a", "b"], dtype=object)
    items = ItemTable(ids, ("", ""), (None, None), features=np.eye(2, dtype=np.float32))
    rows = FeatureEncoder(2, output_dim=2).prepare(items, "")
    assert [rows[row]["item_id"] for row in range(2)] == ["a", "b"]
