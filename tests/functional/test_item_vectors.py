import numpy as np
import pytest

from lis_lightning.functional import item_vectors
from lis_lightning.functional.item_vectors import ItemVectors, complete_vectors, rotate_onto


def test_rotation_onto_a_reference_undoes_a_rotation():
    rng = np.random.default_rng(0)
    reference = ItemVectors(rng.standard_normal((20, 5)), np.ones(20, bool))
    turn, _ = np.linalg.qr(rng.standard_normal((5, 5)))
    back = rotate_onto(ItemVectors(reference.vectors @ turn, np.arange(20) > 3), reference)
    np.testing.assert_allclose(back.vectors, reference.vectors, atol=1e-10)


def completion_case(strength=0.0, num_items=40):
    rng = np.random.default_rng(1)
    content = rng.standard_normal((num_items, 5))
    vectors = content @ rng.standard_normal((5, 3)) + 2.0 + strength * rng.standard_normal((num_items, 3))
    present = np.arange(num_items) % 4 != 0
    counts = np.where(present, rng.integers(1, 50, num_items), 0)
    return ItemVectors(vectors * present[:, None], present), counts, content, vectors


def test_missing_vectors_follow_from_content_where_it_determines_them():
    preference, counts, content, truth = completion_case()
    full = complete_vectors(preference, counts, ItemVectors(content, np.ones(40, bool)))
    assert full.present.all()
    np.testing.assert_allclose(full.vectors, truth, atol=1e-3)


def test_the_prediction_of_an_item_leaves_it_out():
    preference, counts, content, _ = completion_case(strength=0.5)
    everywhere = ItemVectors(content, np.ones(40, bool))
    fitted = complete_vectors(preference, counts, everywhere, strength=1e12).vectors
    for item in (1, 2, 7):
        remaining = preference.present & (np.arange(40) != item)
        weight = np.where(remaining, counts / (counts + 3.0), 0.0)
        errors = []
        for (
            penalty
        ) in item_vectors._RIDGES:  # the ridge that the closed form chose is among these, centred on all items
            whole = np.where(preference.present, counts / (counts + 3.0), 0.0)
            x, y = (v - np.average(v, axis=0, weights=whole) for v in (content, preference.vectors))
            gram = x.T @ (whole[:, None] * x)
            scale = penalty * np.linalg.eigvalsh(gram)[-1]
            design = x * np.sqrt(weight)[:, None]
            solved = np.linalg.solve(design.T @ design + scale * np.eye(5), design.T @ (y * np.sqrt(weight)[:, None]))
            predicted = x[item] @ solved + np.average(preference.vectors, axis=0, weights=whole)
            errors.append(np.abs(predicted - fitted[item]).max())
        assert min(errors) < 1e-8


def test_data_outweighs_content_as_events_grow():
    preference, counts, content, _ = completion_case(strength=1.0)
    everywhere = ItemVectors(content, np.ones(40, bool))
    none, half, all_of_it = (
        complete_vectors(preference, counts, everywhere, strength=strength).vectors for strength in (1e12, 30.0, 0.0)
    )
    np.testing.assert_allclose(all_of_it[preference.present], preference.vectors[preference.present])
    share = (counts / (counts + 30.0))[:, None]
    np.testing.assert_allclose(
        half, none + share * np.where(preference.present[:, None], preference.vectors - none, 0.0)
    )


def test_items_without_content_stay_as_they_are():
    preference, counts, content, _ = completion_case(strength=1.0)
    some = np.arange(40) < 30
    full = complete_vectors(preference, counts, ItemVectors(content * some[:, None], some))
    np.testing.assert_array_equal(full.present, preference.present | some)
    np.testing.assert_array_equal(full.vectors[~some], preference.vectors[~some])


@pytest.mark.parametrize("content", [np.zeros((40, 5)), np.ones((40, 5))], ids=["nothing", "a constant"])
def test_content_that_says_nothing_predicts_the_mean(content):
    preference, counts, _, _ = completion_case(strength=1.0)
    full = complete_vectors(preference, counts, ItemVectors(content, np.ones(40, bool)))
    mean = np.average(preference.vectors, axis=0, weights=np.where(preference.present, counts / (counts + 3.0), 0.0))
    np.testing.assert_allclose(full.vectors[~preference.present], np.tile(mean, (10, 1)), atol=1e-9)


def test_nothing_known_completes_to_zeros():
    nothing = ItemVectors(np.zeros((6, 2)), np.zeros(6, bool))
    full = complete_vectors(nothing, np.zeros(6, np.int64), ItemVectors(np.eye(6), np.ones(6, bool)))
    assert full.present.all()
    assert not full.vectors.any()
