"""The score: a split and a matrix of item representations in, AIS, ceilings and a verdict out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lis_lightning.base import Prepared, prepare, probe_inputs, read_items
from lis_lightning.ceiling import ceiling, reference_vectors
from lis_lightning.companions import companions
from lis_lightning.errors import ConfigError, NonFiniteError, ShapeError
from lis_lightning.evaluate import Arm, evaluate
from lis_lightning.functional.auroc import auroc, grouped_auroc
from lis_lightning.functional.features import ItemCoordinates, place
from lis_lightning.functional.intervals import Estimate, cluster_interval, fieller_ratio, paired_difference
from lis_lightning.result import Ceiling, LISResult, Placebo, SliceEstimate
from lis_lightning.split import PreferenceSplit
from lis_lightning.stopping import judge

MIN_CEILING_Z = 6.0  # below this a share of the ceiling is noise over noise
NOT_BINDING_Z = 2.0


def score(
    split: PreferenceSplit,
    embeddings: Any,
    *,
    ceilings: Sequence[str] = ("pairs", "ids"),
    aligned_to: str = "pairs",
    placebo: bool = True,
    k: int = 16,
) -> LISResult:
    """Score item representations: what a ranker gains from them today, and what it could gain at best.

    Args:
        split: The validation preference split.
        embeddings: Tensor or array [num_items, dim], rows in the order of ``split.item_ids``, any float type.
        ceilings: Preference data to compute ceilings for; they are computed once a split.
        aligned_to: The one that `realised` refers to.
        placebo: Whether to score a permutation of the rows and random vectors too.
        k: Principal axes that the probe reads.

    Returns:
        The result; AUC gains on w2 with 95 % intervals clustered by user.

    Raises:
        ShapeError: If there is not one row an item.
        NonFiniteError: If a row holds NaN or infinity; the first five ids are named.
        ConfigError: If `aligned_to` is not among `ceilings`.
    """
    if ceilings and aligned_to not in ceilings:
        raise ConfigError(f"Expected `aligned_to` among the ceilings {list(ceilings)}, got {aligned_to!r}.")
    began = time.perf_counter()
    vectors = _checked(split, embeddings)
    prepared = prepare(split, vectors.device)
    items = place(vectors, k=k)
    inputs = probe_inputs(prepared, read_items(prepared.histories, [items]))
    arm = evaluate(split, prepared, inputs, prepared.logits)
    geometry = evaluate(split, prepared, inputs.attention_only(), prepared.logits)
    limits = {kind: ceiling(split, kind) for kind in ceilings}
    test = ~split.events.train
    labels, users, unseen = split.events.label[test], split.events.user[test], split.events.unseen[test]
    whole = arm.gain.estimate
    slices = {
        "seen items": _slice_gain(arm, ~unseen),
        "unseen items": _slice_gain(arm, unseen),
    }
    realised = _realised(arm, limits.get(aligned_to))
    result = LISResult(
        ais=whole.value,
        ais_low=whole.low,
        ais_high=whole.high,
        ais_geometry=geometry.gain.value,
        auc_base=arm.gain.auc_base,
        auc=arm.gain.auc,
        gauc_gain=grouped_auroc(arm.score, labels, users) - grouped_auroc(arm.base, labels, users),
        ais_seen=slices["seen items"].value,
        ais_unseen=slices["unseen items"].value,
        realised=realised.value,
        realised_low=realised.low,
        realised_high=realised.high,
        aligned_to=aligned_to,
        ceilings=limits,
        slices=slices,
        companions=companions(split, vectors, reference_vectors(split, aligned_to) if ceilings else None),
        placebo=_placebo(split, prepared, items, k) if placebo else None,
        num_events=int(test.sum()),
        split_hash=split.hash,
        influence=arm.gain.influence,
    )
    judgement = judge([result])
    return replace(
        result,
        verdict=judgement.verdict,
        message=judgement.message,
        score_seconds=time.perf_counter() - began,
    )


def _checked(split: PreferenceSplit, embeddings: Any) -> Tensor:
    """Return the representation as a tensor, where and as precise as it is given, or say which rows are wrong."""
    given = embeddings if isinstance(embeddings, Tensor) else torch.as_tensor(np.asarray(embeddings))
    if given.ndim != 2 or given.shape[0] != split.num_items or given.shape[1] == 0:
        raise ShapeError(
            f"Expected `embeddings` of shape [{split.num_items}, dim], one row for each of `split.item_ids`, got "
            f"{list(given.shape)}."
        )
    if not given.is_floating_point():
        raise ShapeError(f"Expected `embeddings` of a float type, got {given.dtype}; ids are not a representation.")
    vectors = given.detach()
    bad = (~vectors.isfinite()).any(1).nonzero()[:, 0].cpu().numpy()
    if bad.size:
        raise NonFiniteError(
            f"`embeddings` has NaN or infinity in {bad.size} of {split.num_items} rows, first for the items "
            f"{split.item_ids[bad[:5]].tolist()}; check the encoder on these items."
        )
    return vectors


def _slice_gain(arm: Arm, inside: NDArray[np.bool_]) -> SliceEstimate:
    """Return the gain among some test events; NaN where they are all of one class."""
    num_events = int(inside.sum())
    if not 0 < arm.labels[inside].sum() < num_events:
        return SliceEstimate(value=np.nan, se=np.nan, low=np.nan, high=np.nan, num_events=num_events)
    gain = arm.gain_of(inside).estimate
    return SliceEstimate(value=gain.value, se=gain.se, low=gain.low, high=gain.high, num_events=num_events)


def _realised(arm: Arm, limit: Ceiling | None) -> Estimate:
    """Return AIS as a share of the ceiling, NaN where the ceiling is unclear or does not bind."""
    nothing = Estimate(value=np.nan, se=np.nan, low=np.nan, high=np.nan)
    if limit is None or cluster_interval(limit.value, limit.influence).z <= MIN_CEILING_Z:
        return nothing
    excess = paired_difference(arm.gain.value, arm.gain.influence, limit.value, limit.influence)
    if excess.value > 0 and excess.z >= NOT_BINDING_Z:
        return nothing
    return fieller_ratio(arm.gain.value, arm.gain.influence, limit.value, limit.influence)


def _placebo(split: PreferenceSplit, prepared: Prepared, items: ItemCoordinates, k: int) -> Placebo:
    """Score the same rows in another order, and random ones: neither knows anything of the items."""
    rng = np.random.default_rng([split.settings["seed"], 7])
    device = items.profile.device
    # Items that trade names see each other's rows: no second copy of them, and no second frame.
    renamed = prepared.histories.rename(torch.from_numpy(rng.permutation(split.num_items)).to(device))
    noise = rng.standard_normal((split.num_items, min(64, items.vectors.shape[1])))
    random = place(torch.from_numpy(noise).to(device, items.profile.dtype), k=k)
    permuted, drawn = (
        probe_inputs(prepared, read_items(histories, [rows]), histories)
        for rows, histories in ((items, renamed), (random, prepared.histories))
    )
    arms = [evaluate(split, prepared, inputs, prepared.logits).gain.estimate for inputs in (permuted, drawn)]
    return Placebo(permuted=arms[0], random=arms[1])


def base_auc(split: PreferenceSplit) -> float:
    """Return the AUC of the base on w2."""
    test = ~split.events.train
    return auroc(prepare(split).logits.numpy()[test], split.events.label[test])
