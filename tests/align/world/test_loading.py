from __future__ import annotations

import numpy as np
import pytest

from lis_lightning.align.world import load_world
from lis_lightning.data.split import PreferenceSplit
from lis_lightning.errors import ConfigError

WORLD = {"num_users": 80, "num_items": 15, "num_events": 2000, "image_size": 16}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return load_world(tmp_path_factory.mktemp("worlds"), **WORLD)


def test_world_has_images_texts_and_the_truth(world):
    assert world.name == "world"
    assert world.log.height == world.truth.click_probability.size == 2000
    assert all(path.is_file() for path in world.items.images)
    assert world.items is world.truth.items


def test_columns_are_what_a_split_takes(world):
    split = PreferenceSplit.from_log(world.log, **world.columns)
    assert split.item_ids.size <= 15
    assert len(world.items.select(split.item_ids)) == split.item_ids.size


def test_world_without_content_is_the_same_world_and_writes_nothing(tmp_path, world):
    bare = load_world(tmp_path, content=False, **WORLD)
    assert bare.log.equals(world.log)
    np.testing.assert_array_equal(bare.truth.content_latents, world.truth.content_latents)
    assert bare.truth.bayes_auc() == world.truth.bayes_auc()
    np.testing.assert_array_equal(bare.items.ids, world.items.ids)
    assert bare.items.images == (None,) * 15
    assert not list(tmp_path.iterdir())


def test_damaged_world_image_is_drawn_again(tmp_path):
    path = load_world(tmp_path, **WORLD).items.images[3]
    whole = path.read_bytes()
    path.write_bytes(whole[:50])
    assert load_world(tmp_path, **WORLD).items.images[3].read_bytes() == whole


def test_unknown_world_parameter_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no parameter 'users'"):
        load_world(tmp_path, users=5)
