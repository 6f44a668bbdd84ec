"""One pass over a representation: its results on every task and period of a split."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lis_lightning.data.random_streams import random_stream
from lis_lightning.data.split import PreferenceSplit
from lis_lightning.errors import NonFiniteError, ShapeError
from lis_lightning.functional.grouped_auc import grouped_auroc_influence
from lis_lightning.functional.intervals import Estimate, cluster_interval, fieller_ratio, paired_difference
from lis_lightning.functional.item_coordinates import ItemCoordinates, compute_dtype, principal_coordinates
from lis_lightning.results.result import Ceiling, LISResult, Placebo, SliceEstimate
from lis_lightning.results.stopping import MIN_CEILING_Z, NOT_BINDING_Z, judge
from lis_lightning.scoring.base_ranker import ItemLookup, look_up_items, prepare, probe_inputs
from lis_lightning.scoring.cache import SplitCache
from lis_lightning.scoring.ceiling import ceiling_of, reference_vectors
from lis_lightning.scoring.companions import companions
from lis_lightning.scoring.gain import Arm, evaluate
from lis_lightning.scoring.headroom import headroom_of
from lis_lightning.scoring.options import ScoreOptions
from lis_lightning.scoring.power import smallest_detectable_gain

MIN_SLICE_EVENTS = 200
MIN_SLICE_CLASS = 20  # events of the rarer class
NOTHING = Estimate(value=np.nan, se=np.nan, low=np.nan, high=np.nan)


def score_representation(cache: SplitCache, embeddings: Any, options: ScoreOptions) -> LISResult:
    """Score item representations on all tasks and periods of a split by one pass over them.

    Args:
        cache: The split, and where its base ranker and ceilings are kept.
        embeddings: [num_items, dim]; see :meth:`lis_lightning.scoring.Scorer.score`.
        options: What is scored.
    """
    split, preferences = cache.split, options.preferences
    vectors = _checked(split, embeddings)
    items = _placed(vectors, options.k)
    reading = look_up_items(prepare(cache, vectors.device).histories, [items])
    reference = reference_vectors(cache, preferences[options.aligned_to]) if preferences else None
    scoring = _ScoringPass(items, options, companions(split, items, reference))
    tasks = {
        name: scoring.result(cache.of(task), reading, placebo=options.placebo) for name, task in split.tasks.items()
    }
    later = split.periods[1:] if split.period == 0 else ()
    periods = tuple(scoring.result(cache.of(period)) for period in later)
    result = tasks.pop(split.task)
    return replace(result, tasks=tasks, periods=periods)


@dataclass(frozen=True, eq=False)
class _ScoringPass:
    """What the results of all tasks and periods share.

    Attributes:
        items: The representation in its principal coordinates.
        options: What is scored.
        companions: Conventional metrics of the representation.
    """

    items: ItemCoordinates
    options: ScoreOptions
    companions: Mapping[str, float]

    def result(self, cache: SplitCache, reading: ItemLookup | None = None, *, placebo: bool = False) -> LISResult:
        """Score one label on one pair of windows.

        Args:
            cache: The split of the label and its windows.
            reading: What the events see of the items, where it is known already.
            placebo: Whether to score representations that know nothing too.
        """
        split, prepared = cache.split, prepare(cache, self.items.profile.device)
        inputs = probe_inputs(prepared, reading or look_up_items(prepared.histories, [self.items]))
        arm = evaluate(split, prepared, inputs, prepared.logits)
        geometry = evaluate(split, prepared, inputs.attention_only(), prepared.logits)
        limits = {name: ceiling_of(cache, preference) for name, preference in self.options.preferences.items()}
        slices = _slices(arm, split)
        gain, gauc = arm.gain.estimate, _gauc_gain(arm)
        weighted = NOTHING if arm.weighted_gain is None else arm.weighted_gain.estimate
        realised = _realised(arm, limits.get(self.options.aligned_to))
        left = self._headroom(cache, arm)
        item_gains = arm.item_gains(split.num_items) if split.period == 0 else (np.zeros(0), np.zeros(0))
        found_nothing = 0.0 in (gain.value, *(limit.value for limit in limits.values()))
        result = LISResult(
            task=split.task,
            ais=gain.value,
            ais_low=gain.low,
            ais_high=gain.high,
            ais_geometry=geometry.gain.value,
            auc_base=arm.gain.auc_base,
            auc=arm.gain.auc,
            ais_weighted=weighted.value,
            ais_weighted_low=weighted.low,
            ais_weighted_high=weighted.high,
            gauc_gain=gauc.value,
            gauc_gain_low=gauc.low,
            gauc_gain_high=gauc.high,
            ais_seen=slices["seen items"].value,
            ais_unseen=slices["unseen items"].value,
            realised=realised.value,
            realised_low=realised.low,
            realised_high=realised.high,
            headroom=left.value,
            headroom_low=left.low,
            headroom_high=left.high,
            aligned_to=self.options.aligned_to,
            ceilings=limits,
            slices=slices,
            companions=self.companions,
            placebo=self._placebo(cache) if placebo else None,
            num_events=arm.labels.size,
            detectable=smallest_detectable_gain(cache) if found_nothing else math.nan,
            split_hash=split.hash,
            influence=arm.gain.influence,
            item_gains=item_gains[0],
            item_errors=item_gains[1],
        )
        judgement = judge([result])
        return replace(result, verdict=judgement.verdict, message=judgement.message)

    def _headroom(self, cache: SplitCache, arm: Arm) -> Estimate:
        """Return what the preference data would still add to the representation; NaN without any."""
        if not self.options.preferences:
            return NOTHING
        return headroom_of(cache, self.options.preferences[self.options.aligned_to], arm).estimate

    def _placebo(self, cache: SplitCache) -> Placebo:
        """Score the same rows in another order, and random ones: neither knows anything of the items."""
        split = cache.split
        rng = random_stream(split.settings["seed"], "placebo")
        device = self.items.profile.device
        prepared = prepare(cache, device)
        # Items that trade names see each other's rows: no second copy of them, and no second frame.
        renamed = prepared.histories.rename(torch.from_numpy(rng.permutation(split.num_items)).to(device))
        noise = rng.standard_normal((split.num_items, min(64, self.items.vectors.shape[1])))
        random = principal_coordinates(torch.from_numpy(noise).to(device, self.items.profile.dtype), k=self.options.k)
        permuted, drawn = (
            probe_inputs(prepared, look_up_items(histories, [rows]))
            for rows, histories in ((self.items, renamed), (random, prepared.histories))
        )
        arms = [evaluate(split, prepared, inputs, prepared.logits).gain.estimate for inputs in (permuted, drawn)]
        return Placebo(permuted=arms[0], random=arms[1])


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
    if vectors.sum(dtype=compute_dtype(vectors.dtype)).isfinite():  # a third of the time of looking at each number
        return vectors
    bad = (~vectors.isfinite()).any(1).nonzero()[:, 0].cpu().numpy()
    if bad.size:
        raise NonFiniteError(
            f"`embeddings` has NaN or infinity in {bad.size} of {split.num_items} rows, first for the items "
            f"{split.item_ids[bad[:5]].tolist()}; check the encoder on these items."
        )
    return vectors


def _placed(vectors: Tensor, k: int) -> ItemCoordinates:
    """Return the representation in its frame, at any scale."""
    items = principal_coordinates(vectors, k=k)
    if not items.present.any():  # all rows are equal, or so large or small that their squares leave the type's range
        top = max(abs(float(end)) for end in vectors.aminmax())
        items = principal_coordinates(vectors.to(compute_dtype(vectors.dtype)) / top, k=k) if top > 0 else items
    return items


def _slices(arm: Arm, split: PreferenceSplit) -> dict[str, SliceEstimate]:
    """Return the gain in each slice of the test events; NaN where a slice is too small to say anything."""
    return {name: _slice_gain(arm, inside[~split.events.train]) for name, inside in split.slices.items()}


def _slice_gain(arm: Arm, inside: NDArray[np.bool_]) -> SliceEstimate:
    num_events, positives = int(inside.sum()), int(arm.labels[inside].sum())
    enough = num_events >= MIN_SLICE_EVENTS and MIN_SLICE_CLASS <= positives <= num_events - MIN_SLICE_CLASS
    gain = arm.gain_of(inside).estimate if enough else NOTHING
    return SliceEstimate(value=gain.value, se=gain.se, low=gain.low, high=gain.high, num_events=num_events)


def _gauc_gain(arm: Arm) -> Estimate:
    """Return the gain of the impression-weighted per-user AUC; its interval holds the sampling of test users only."""
    after, influence = grouped_auroc_influence(arm.score, arm.labels, arm.users, arm.num_users)
    if arm.score_upper is not None:
        influence = grouped_auroc_influence(arm.score_upper, arm.labels, arm.users, arm.num_users)[1]
    before, base_influence = grouped_auroc_influence(arm.base, arm.labels, arm.users, arm.num_users)
    return cluster_interval(after - before, influence - base_influence)


def _realised(arm: Arm, limit: Ceiling | None) -> Estimate:
    """Return AIS as a share of the ceiling, NaN where the ceiling is unclear or does not bind."""
    if limit is None or cluster_interval(limit.value, limit.influence).z <= MIN_CEILING_Z:
        return NOTHING
    excess = paired_difference(arm.gain.value, arm.gain.influence, limit.value, limit.influence)
    if excess.value > 0 and excess.z >= NOT_BINDING_Z:
        return NOTHING
    return fieller_ratio(arm.gain.value, arm.gain.influence, limit.value, limit.influence)
