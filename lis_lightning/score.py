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

from lis_lightning.base import Prepared, prepare, probe_inputs
from lis_lightning.ceiling import ceiling, reference_vectors
from lis_lightning.errors import ConfigError, NonFiniteError, ShapeError
from lis_lightning.evaluate import Arm, evaluate
from lis_lightning.functional.auroc import auroc, auroc_influence, grouped_auroc
from lis_lightning.functional.companions import linear_cka, pair_auc, rankme
from lis_lightning.functional.features import fit_axes, project
from lis_lightning.functional.intervals import Estimate, cluster_interval, fieller_ratio, paired_difference, user_sums
from lis_lightning.functional.probe import ProbeInputs
from lis_lightning.result import Ceiling, LISResult, Placebo, SliceEstimate
from lis_lightning.split import PreferenceSplit
from lis_lightning.stopping import judge

NUM_COMPANION_PAIRS = 20_000
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
    prepared = prepare(split)
    inputs = _inputs(prepared, vectors, k)
    arm = evaluate(split, prepared, inputs, prepared.logits)
    geometry = evaluate(split, prepared, _attention_only(inputs), prepared.logits)
    limits = {kind: ceiling(split, kind) for kind in ceilings}
    test = ~split.events.train
    labels, users, unseen = split.events.label[test], split.events.user[test], split.events.unseen[test]
    slices = {
        "seen items": _slice_gain(arm, labels, users, ~unseen, split.num_users),
        "unseen items": _slice_gain(arm, labels, users, unseen, split.num_users),
    }
    realised = _realised(arm, limits.get(aligned_to))
    result = LISResult(
        ais=arm.gain.value,
        ais_low=arm.gain.low,
        ais_high=arm.gain.high,
        ais_geometry=geometry.gain.value,
        auc_base=arm.auc_base,
        auc=arm.auc,
        gauc_gain=grouped_auroc(arm.score, labels, users) - grouped_auroc(arm.base, labels, users),
        ais_seen=slices["seen items"].value,
        ais_unseen=slices["unseen items"].value,
        realised=realised.value,
        realised_low=realised.low,
        realised_high=realised.high,
        aligned_to=aligned_to,
        ceilings=limits,
        slices=slices,
        companions=_companions(split, vectors, aligned_to if ceilings else None),
        placebo=_placebo(split, prepared, vectors, k) if placebo else None,
        num_events=int(test.sum()),
        split_hash=split.hash,
        influence=arm.influence,
    )
    judgement = judge([result])
    return replace(
        result,
        verdict=judgement.verdict,
        message=judgement.message,
        score_seconds=time.perf_counter() - began,
    )


def _checked(split: PreferenceSplit, embeddings: Any) -> Tensor:
    """Return the representation as a float64 tensor, or say which rows are wrong."""
    given = embeddings if isinstance(embeddings, Tensor) else torch.as_tensor(np.asarray(embeddings))
    if given.ndim != 2 or given.shape[0] != split.num_items or given.shape[1] == 0:
        raise ShapeError(
            f"Expected `embeddings` of shape [{split.num_items}, dim], one row for each of `split.item_ids`, got "
            f"{list(given.shape)}."
        )
    if not given.is_floating_point():
        raise ShapeError(f"Expected `embeddings` of a float type, got {given.dtype}; ids are not a representation.")
    vectors = given.detach().cpu().double()
    bad = (~vectors.isfinite()).any(1).nonzero()[:, 0].numpy()
    if bad.size:
        raise NonFiniteError(
            f"`embeddings` has NaN or infinity in {bad.size} of {split.num_items} rows, first for the items "
            f"{split.item_ids[bad[:5]].tolist()}; check the encoder on these items."
        )
    return vectors


def _inputs(prepared: Prepared, vectors: Tensor, k: int) -> ProbeInputs:
    return probe_inputs(prepared, [project(vectors, fit_axes(vectors, k=k))])


def _attention_only(inputs: ProbeInputs) -> ProbeInputs:
    """Return the inputs of a ranker that eats cosines and nothing else."""
    return ProbeInputs(inputs.profile[:, :0], inputs.target[:, :0], inputs.attention)


def _slice_gain(
    arm: Arm, labels: NDArray[Any], users: NDArray[Any], inside: NDArray[np.bool_], num_users: int
) -> SliceEstimate:
    """Return the gain among some test events; NaN where they are all of one class."""
    num_events = int(inside.sum())
    if not 0 < labels[inside].sum() < num_events:
        return SliceEstimate(value=np.nan, se=np.nan, low=np.nan, high=np.nan, num_events=num_events)
    auc_base, base_influence = auroc_influence(arm.base[inside], labels[inside])
    auc, influence = auroc_influence(arm.score[inside], labels[inside])
    gain = cluster_interval(auc - auc_base, user_sums(influence - base_influence, users[inside], num_users))
    return SliceEstimate(value=gain.value, se=gain.se, low=gain.low, high=gain.high, num_events=num_events)


def _realised(arm: Arm, limit: Ceiling | None) -> Estimate:
    """Return AIS as a share of the ceiling, NaN where the ceiling is unclear or does not bind."""
    nothing = Estimate(value=np.nan, se=np.nan, low=np.nan, high=np.nan)
    if limit is None or cluster_interval(limit.value, limit.influence).z <= MIN_CEILING_Z:
        return nothing
    excess = paired_difference(arm.gain.value, arm.influence, limit.value, limit.influence)
    if excess.value > 0 and excess.z >= NOT_BINDING_Z:
        return nothing
    return fieller_ratio(arm.gain.value, arm.influence, limit.value, limit.influence)


def _placebo(split: PreferenceSplit, prepared: Prepared, vectors: Tensor, k: int) -> Placebo:
    """Score the same rows in another order, and random ones: neither knows anything of the items."""
    rng = np.random.default_rng([split.settings["seed"], 7])
    permuted = vectors[torch.from_numpy(rng.permutation(split.num_items))]
    random = torch.from_numpy(rng.standard_normal((split.num_items, min(64, vectors.shape[1]))))
    arms = [evaluate(split, prepared, _inputs(prepared, rows, k), prepared.logits).gain for rows in (permuted, random)]
    return Placebo(permuted=arms[0], random=arms[1])


def _companions(split: PreferenceSplit, vectors: Tensor, aligned_to: str | None) -> dict[str, float]:
    """Return the conventional curves of the same vectors."""
    pairs = successive_pairs(split)
    rng = np.random.default_rng([split.settings["seed"], 11])
    if pairs.shape[0] > NUM_COMPANION_PAIRS:
        pairs = pairs[rng.choice(pairs.shape[0], NUM_COMPANION_PAIRS, replace=False)]
    companions = {"pair_auc": pair_auc(vectors, pairs, rng), "rankme": rankme(vectors)}
    if aligned_to is not None:
        reference = reference_vectors(split, aligned_to)
        rows = np.flatnonzero(reference.present[: split.num_items])
        companions["cka"] = linear_cka(vectors[rows], torch.from_numpy(reference.vectors[rows]))
    return companions


def successive_pairs(split: PreferenceSplit) -> NDArray[np.int64]:
    """Return items that a scored user engaged with in succession in w2, [num_pairs, 2] rows of R."""
    test = np.flatnonzero(~split.events.train & (split.events.label == 1))
    user, item = split.events.user[test], split.events.item[test]
    follows = (user[1:] == user[:-1]) & (item[1:] != item[:-1])
    return np.stack([item[:-1][follows], item[1:][follows]], axis=1)


def base_auc(split: PreferenceSplit) -> float:
    """Return the AUC of the base on w2."""
    test = ~split.events.train
    return auroc(prepare(split).logits.numpy()[test], split.events.label[test])
