"""Precomputed features beside what a model makes of an item: neither drowns, and both survive what a run does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from lis_lightning.align.models import TextEncoder
from lis_lightning.align.models.hugging_face import quiet_transformers
from lis_lightning.align.models.joined_features import JoinedFeatures, WithFeatures
from lis_lightning.cli import resource_dir
from lis_lightning.errors import ItemError, ShapeError
from lis_lightning.monitor.batches import make_batches


@pytest.fixture(scope="module")
def featured(pictured):
    """The six items with features of which one is constant, and one is ten thousand times as large as the others."""
    features = np.random.default_rng(0).standard_normal((6, 50)).astype(np.float32)
    features[:, 0] = 3.0
    features[:, 1] *= 1e4
    return replace(pictured, features=features)


def build(items, folder, kind="text", *overrides):
    with initialize_config_dir(str(resource_dir("conf")), version_base="1.3"):
        given = [f"model={kind}", f"cache_dir={folder}", "model.features=true", *overrides]
        config = compose("align", overrides=given)
    torch.manual_seed(0)
    with quiet_transformers():
        return instantiate(config.model)(items)


def encoded(encoder, items, folder):
    encoder.eval()
    with torch.no_grad():
        return encoder(encoder.collate(list(encoder.prepare(items, folder))))


@pytest.mark.parametrize("kind", ["text", "vision", "dual", "vlm"])
def test_features_and_content_both_move_every_encoder(kind, featured, tmp_path):
    encoder = build(featured, tmp_path, kind)
    assert encoder.output_dim == 64
    rows = encoded(encoder, featured, tmp_path)
    others = np.roll(featured.features, 1, axis=0)
    assert not torch.allclose(rows, encoded(encoder, replace(featured, features=others), tmp_path))
    blank = replace(featured, texts=("",) * 6, images=(None,) * 6)
    assert not torch.allclose(rows, encoded(encoder, blank, tmp_path))


def test_both_blocks_vary_equally_much_from_the_raw_snapshot_on(featured, tmp_path):
    encoder = build(featured, tmp_path, "text", "model.output_dim=null")
    states, features = encoded(encoder, featured, tmp_path).split([encoder.output_dim - 50, 50], dim=1)
    ratio = float(features.var(dim=0, correction=0).sum() / states.var(dim=0, correction=0).sum())
    assert ratio == pytest.approx((49 / 50) / (5 / 6), rel=1e-2), "one feature is constant; BatchNorm counts n - 1"
    assert torch.isfinite(features).all()


def test_wide_features_do_not_drown_narrow_states():
    joined = JoinedFeatures(3, 300, momentum=0.3)
    draw = torch.Generator().manual_seed(0)
    features = 100 * torch.randn(200, 300, generator=draw) + 7
    joined.features.fit(features)
    out = joined(0.001 * torch.randn(200, 3, generator=draw) + 5, features)
    assert float(out[:, :3].var(dim=0).sum() / out[:, 3:].var(dim=0).sum()) == pytest.approx(1.0, rel=0.3)


def test_statistics_are_reloaded_with_the_weights(featured, tmp_path):
    encoder = build(featured, tmp_path)
    encoder(encoder.collate(list(encoder.prepare(featured, tmp_path)))).square().sum().backward()
    other = build(replace(featured, features=featured.features + 5), tmp_path)
    before = encoded(other, featured, tmp_path)
    other.load_state_dict(encoder.state_dict())
    assert torch.equal(encoded(other, featured, tmp_path), encoded(encoder, featured, tmp_path))
    assert not torch.equal(before, encoded(encoder, featured, tmp_path))


def test_features_are_read_from_the_table_and_not_from_what_is_kept_of_items(featured, tmp_path):
    encoder = build(featured, tmp_path)
    encoder.prepare(featured, tmp_path)
    doubled = encoder.prepare(replace(featured, features=2 * featured.features), tmp_path)
    assert len(list((tmp_path / "items").glob("*-inputs"))) == 1, "the texts are the same"
    np.testing.assert_array_equal(doubled[3]["features"], 2 * featured.features[3:4])
    assert isinstance(doubled, WithFeatures)
    assert doubled.lengths.tolist() == build(featured, tmp_path).prepare(featured, tmp_path).items.lengths.tolist()
    batches = make_batches(doubled, featured.ids, batch_size=4, collate_fn=encoder.collate, item_key="item_id")
    assert batches is not None


def test_a_batch_holds_them_in_order(featured, tmp_path):
    encoder = build(featured, tmp_path)
    prepared = encoder.prepare(featured, tmp_path)
    batch = encoder.collate([prepared[4], prepared[1]])
    np.testing.assert_array_equal(batch["features"], featured.features[[4, 1]])
    assert batch["item_id"].tolist() == [14, 11]


def test_the_head_learns_from_both(featured, tmp_path):
    encoder = build(featured, tmp_path, "text", "model.tuning.mode=lora")
    encoder.train()
    out = encoder(encoder.collate(list(encoder.prepare(featured, tmp_path))))
    (out * torch.randn(out.shape, generator=torch.Generator().manual_seed(0))).sum().backward()
    gradient = encoder.head[0].weight.grad
    assert gradient[:, :-50].abs().max() > 0
    assert gradient[:, -50:].abs().max() > 0
    assert any(
        "lora" in name and one.grad is not None and one.grad.abs().max() > 0 for name, one in encoder.named_parameters()
    )


def test_building_leaves_the_encoder_in_training(featured, tmp_path):
    assert build(featured, tmp_path).training


def test_without_the_option_features_are_not_read(featured, pictured, bert, tmp_path):
    encoder = TextEncoder(bert)
    assert encoder.joined is None
    assert "features" not in encoder.prepare(featured, tmp_path)[0]


def test_error_where_items_have_no_features(pictured, tmp_path):
    with pytest.raises(
        ItemError, match=r"The 6 items have no precomputed features, which model.features=true needs.*data.features"
    ):
        build(pictured, tmp_path)


def test_error_on_other_features_than_it_was_built_for(featured, tmp_path):
    encoder = build(featured, tmp_path)
    with pytest.raises(ShapeError, match="reads 50 features an item, but got 7"):
        encoder.prepare(replace(featured, features=featured.features[:, :7]), tmp_path)
