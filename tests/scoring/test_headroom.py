import numpy as np
import pytest
import torch

from lis_lightning import Completed, PreferenceSplit
from lis_lightning.align.world import simulate_world
from lis_lightning.errors import ConfigError, NonFiniteError, ShapeError
from lis_lightning.functional.intervals import paired_difference
from lis_lightning.functional.item_coordinates import principal_coordinates
from lis_lightning.scoring.base_ranker import look_up_items, probe_inputs
from lis_lightning.scoring.gain import evaluate
from lis_lightning.scoring.preferences import as_preference, by_name
from lis_lightning.scoring.scorer import Scorer


@pytest.fixture(scope="module")
def cold():
    """A sparse world where most items arrive late, with the content that they are made of."""
    log, truth = simulate_world(
        num_users=400, num_items=800, num_events=8000, late_items=0.8, recency=10.0, content_share=0.95, taste=3.0
    )
    split = PreferenceSplit.from_log(log, label="clicked")
    return split, truth["content_latents"][split.item_ids - 1].astype(float)


def arm(split, vectors):
    prepared = Scorer(split).base_ranker
    lookup = look_up_items(prepared.histories, [principal_coordinates(torch.from_numpy(np.asarray(vectors, float)))])
    return evaluate(split, prepared, probe_inputs(prepared, lookup), prepared.logits)


def nonsense(events):
    """Vectors that know the items only by name."""
    ids = np.unique(events["item"].to_numpy())
    return ids, np.random.default_rng(ids).standard_normal((ids.size, 8))


def test_without_a_representation_it_is_the_ceiling(split):
    blank = arm(split, np.ones((split.num_items, 4)))
    headroom = Scorer(split).headroom("pairs", blank)
    assert headroom.value == Scorer(split).ceiling("pairs").value
    np.testing.assert_array_equal(headroom.influence, Scorer(split).ceiling("pairs").influence)


def test_a_ceiling_over_the_snapshot_binds_where_that_of_the_data_does_not(cold):
    split, latents = cold
    scored, ceiling = arm(split, latents).gain, Scorer(split).ceiling("pairs")
    assert paired_difference(scored.value, scored.influence, ceiling.value, ceiling.influence).z > 2
    headroom = Scorer(split).headroom("pairs", arm(split, latents))
    assert headroom.estimate.z > -2


def test_completed_by_content_it_sees_what_the_data_alone_does_not(cold):
    split, latents = cold
    blank = arm(split, np.ones((split.num_items, 4)))
    filled = Scorer(split).headroom(Completed("pairs", latents, split.item_ids), blank)
    assert filled.value > 2 * Scorer(split).headroom("pairs", blank).value
    assert filled.value < 1.5 * arm(split, latents).gain.value


def test_worthless_data_has_no_headroom(cold):
    split, latents = cold
    for vectors in (latents, np.ones_like(latents)):
        headroom = Scorer(split).headroom(nonsense, arm(split, vectors))
        assert headroom.value == 0.0 or abs(headroom.estimate.z) < 2.5


def test_what_the_representation_holds_already_is_no_headroom(split, latents):
    scored = arm(split, latents)
    headroom = Scorer(split).headroom("pairs", scored)
    assert headroom.value < 0.2 * Scorer(split).ceiling("pairs").value
    assert headroom.estimate.z > -2


def test_content_is_part_of_the_key(split, latents):
    one, same, other = (Completed("pairs", rows, split.item_ids) for rows in (latents, latents.copy(), 2 * latents))
    assert one.handle == same.handle != other.handle != as_preference("pairs").handle
    assert one.content_key == same.content_key != Completed("ids", latents, split.item_ids).content_key
    assert Completed(nonsense, latents, split.item_ids).content_key is None
    assert by_name({"pairs_content": one}) == {"pairs_content": one}


def test_bad_content_is_refused_in_words(split, latents):
    with pytest.raises(ShapeError, match=rf"content of shape \[{split.num_items}, dim\].*\[3, 4\]"):
        Completed("pairs", latents[:3], split.item_ids)
    with pytest.raises(NonFiniteError, match="content hold NaN or infinity in 1 of"):
        Completed("pairs", np.where(np.arange(latents.shape[0])[:, None] == 2, np.nan, latents), split.item_ids)
    with pytest.raises(ConfigError, match=r"completed yet.*complete it once"):
        Completed(Completed("pairs", latents, split.item_ids), latents, split.item_ids)
    with pytest.raises(ConfigError, match="Unknown preference data 'pear'"):
        Completed("pear", latents, split.item_ids)
    with pytest.raises(ConfigError, match="item ids of the content are known"):
        Scorer(split).ceiling(Completed("pairs", latents, split.item_ids + 10**6))
