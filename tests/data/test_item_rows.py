"""Vectors by item id: rows in any order, of more items or fewer, as arrays and tensors."""

import numpy as np
import pytest
import torch

from lis_lightning.errors import ConfigError, ItemError, LisWarning, ShapeError

OPTIONS = {"ceilings": (), "placebo": False, "cache_dir": "off"}


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_rows_of_a_catalogue_in_any_order_have_the_score_of_the_rows_in_order(split, latents, kind):
    rng = np.random.default_rng(0)
    others = split.item_ids.max() + 1 + np.arange(5)
    order = rng.permutation(split.num_items + 5)
    ids = np.concatenate([split.item_ids, others])[order]
    vectors = np.concatenate([latents, rng.standard_normal((5, latents.shape[1]))])[order]
    assert split.score(kind(vectors), item_ids=ids, **OPTIONS).ais == split.score(latents, **OPTIONS).ais


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_items_without_a_row_get_the_mean_of_the_others(split, latents, kind):
    absent = latents.copy()
    absent[0] = latents[1:].mean(axis=0)
    with pytest.warns(LisWarning, match=rf"{split.num_items - 1} of {split.num_items} items .* have a vector"):
        result = split.score(kind(latents[1:]), item_ids=split.item_ids[1:], missing="mean", **OPTIONS)
    assert result.ais == pytest.approx(split.score(absent, **OPTIONS).ais, abs=1e-6)


def test_ids_that_do_not_fit_are_named(split, latents):
    first = split.item_ids[0]
    with pytest.raises(
        ItemError, match=rf"1 of {split.num_items} item ids have no row in the given item_ids .*{first}"
    ):
        split.score(latents[1:], item_ids=split.item_ids[1:], **OPTIONS)
    with pytest.raises(ItemError, match=rf"occur more than once: {first}"):
        split.score(latents, item_ids=np.r_[first, first, split.item_ids[2:]], **OPTIONS)
    with pytest.raises(ShapeError, match=rf"{split.num_items} rows for {split.num_items - 1} ids"):
        split.score(latents, item_ids=split.item_ids[1:], **OPTIONS)
    with pytest.raises(ItemError, match=r"likely cause: .* strings"):
        split.score(latents, item_ids=split.item_ids.astype(str), missing="mean", **OPTIONS)
    with pytest.raises(ConfigError, match="got 'zero'"):
        split.score(latents, item_ids=split.item_ids, missing="zero", **OPTIONS)
    with pytest.raises(ShapeError, match="numbers, got object"):
        split.score(latents.astype(object), item_ids=split.item_ids, **OPTIONS)
    with pytest.raises(ShapeError, match="integers or text, got bool"):
        split.score(latents, item_ids=np.ones(split.num_items, bool), **OPTIONS)
    with pytest.raises(ConfigError, match="`missing` needs `item_ids`"):
        split.score(latents, missing="mean", **OPTIONS)
