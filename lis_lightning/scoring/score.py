"""The score: a split and a matrix of item representations in, AIS, ceilings and a verdict out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lis_lightning.data.split import PreferenceSplit
from lis_lightning.errors import ConfigError, NonFiniteError, ShapeError
from lis_lightning.functional.auc import auroc
from lis_lightning.functional.grouped_auc import grouped_auroc_influence
from lis_lightning.functional.intervals import Estimate, cluster_interval, fieller_ratio, paired_difference
from lis_lightning.functional.item_coordinates import ItemCoordinates, compute_dtype, principal_coordinates
from lis_lightning.results.result import Ceiling, LISResult, Placebo, SliceEstimate
from lis_lightning.results.stopping import MIN_CEILING_Z, NOT_BINDING_Z, judge
from lis_lightning.scoring.base_ranker import Reading, prepare, probe_inputs, read_items
from lis_lightning.scoring.ceiling import ceiling, reference_vectors
from lis_lightning.scoring.companions import companions
from lis_lightning.scoring.gain import Arm, evaluate
from lis_lightning.scoring.headroom import headroom
from lis_lightning.scoring.power import smallest_detectable_gain
from lis_lightning.scoring.preference import Preference, named

MIN_SLICE_EVENTS = 200
MIN_SLICE_CLASS = 20  # events of the rarer class
NOTHING = Estimate(value=np.nan, se=np.nan, low=np.nan, high=np.nan)


def score(
    split: PreferenceSplit,
    embeddings: Any,
    *,
    ceilings: Sequence[str] | Mapping[str, Preference] = ("pairs", "ids"),
    aligned_to: str = "pairs",
    placebo: bool = True,
    k: int = 16,
    cache_dir: str | Path | None = None,
) -> LISResult:
    """Score item representations: what a ranker gains from them today, and what it could gain at best.

    Several labels, and rolling windows, are scored by one pass over the representation; see ``tasks`` and ``periods``
    of the result.

    Args:
        split: The validation preference split.
        embeddings: Tensor or array [num_items, dim], rows in the order of ``split.item_ids``, any float type, on any
            device. float64 is computed with throughout; of other types, products are float32 and sums float64.
        ceilings: Preference data to compute ceilings for, once a split: built-in kinds, or a mapping of names to any
            preference data that :func:`lis_lightning.scoring.ceiling.ceiling` takes.
        aligned_to: The one that `realised` refers to.
        placebo: Whether to score a permutation of the rows and random vectors too.
        k: Principal axes that the probe reads.
        cache_dir: Folder where base and ceilings are kept by content, or ``"off"``; None means ``$LIS_CACHE``, else
            ``~/.cache/lis-lightning``.

    Returns:
        The result; AUC gains on w2 with 95 % intervals clustered by user.

    Raises:
        ShapeError: If there is not one row an item.
        NonFiniteError: If a row holds NaN or infinity; the first five ids are named.
        ConfigError: If `aligned_to` is not among `ceilings`, or preference data does not go with the split.
    """
    preferences = chosen_preferences(ceilings, aligned_to)
    vectors = _checked(split, embeddings)
    items = _placed(vectors, k)
    reading = read_items(prepare(split, vectors.device, cache_dir=cache_dir).histories, [items])
    reference = reference_vectors(split, preferences[aligned_to], cache_dir=cache_dir) if preferences else None
    scorer = _Scorer(items, k, preferences, aligned_to, companions(split, items, reference), cache_dir)
    tasks = {name: scorer.result(task, reading, placebo=placebo) for name, task in split.tasks.items()}
    later = split.periods[1:] if split.period == 0 else ()
    periods = tuple(scorer.result(period) for period in later)
    result = tasks.pop(split.task)
    return replace(result, tasks=tasks, periods=periods)


def chosen_preferences(ceilings: Sequence[str] | Mapping[str, Preference], aligned_to: str) -> dict[str, Preference]:
    """Return preference data by name.

    Raises:
        ConfigError: If `aligned_to` is not among them, or a name or a kind is none.
    """
    preferences = named(ceilings)
    if preferences and aligned_to not in preferences:
        raise ConfigError(f"Expected `aligned_to` among the ceilings {list(preferences)}, got {aligned_to!r}.")
    return preferences


@dataclass(frozen=True, eq=False)
class _Scorer:
    """What the results of all tasks and periods share.

    Attributes:
        items: The representation in its frame.
        k: Principal axes that the probe reads.
        ceilings: Preference data to compute ceilings for.
        aligned_to: The one that `realised` refers to.
        companions: Conventional curves of the representation.
        cache_dir: Folder where base and ceilings are kept.
    """

    items: ItemCoordinates
    k: int
    ceilings: Mapping[str, Preference]
    aligned_to: str
    companions: Mapping[str, float]
    cache_dir: str | Path | None

    def result(self, split: PreferenceSplit, reading: Reading | None = None, *, placebo: bool = False) -> LISResult:
        """Score one label on one pair of windows.

        Args:
            split: The label and its windows.
            reading: What the events see of the items, where it is known already.
            placebo: Whether to score representations that know nothing too.
        """
        prepared = prepare(split, self.items.profile.device, cache_dir=self.cache_dir)
        inputs = probe_inputs(prepared, reading or read_items(prepared.histories, [self.items]))
        arm = evaluate(split, prepared, inputs, prepared.logits)
        geometry = evaluate(split, prepared, inputs.attention_only(), prepared.logits)
        limits = {name: ceiling(split, data, cache_dir=self.cache_dir) for name, data in self.ceilings.items()}
        slices = _slices(arm, split)
        gain, gauc = arm.gain.estimate, _gauc_gain(arm)
        weighted = NOTHING if arm.weighted_gain is None else arm.weighted_gain.estimate
        realised = _realised(arm, limits.get(self.aligned_to))
        left = self._headroom(split, arm)
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
            aligned_to=self.aligned_to,
            ceilings=limits,
            slices=slices,
            companions=self.companions,
            placebo=self._placebo(split) if placebo else None,
            num_events=arm.labels.size,
            detectable=smallest_detectable_gain(split) if found_nothing else math.nan,
            split_hash=split.hash,
            influence=arm.gain.influence,
            item_gains=item_gains[0],
            item_errors=item_gains[1],
        )
        judgement = judge([result])
        return replace(result, verdict=judgement.verdict, message=judgement.message)

    def _headroom(self, split: PreferenceSplit, arm: Arm) -> Estimate:
        """Return what the preference data would still add to the representation; NaN without any."""
        if not self.ceilings:
            return NOTHING
        return headroom(split, self.ceilings[self.aligned_to], arm, cache_dir=self.cache_dir).estimate

    def _placebo(self, split: PreferenceSplit) -> Placebo:
        """Score the same rows in another order, and random ones: neither knows anything of the items."""
        rng = np.random.default_rng([split.settings["seed"], 7])
        device = self.items.profile.device
        prepared = prepare(split, device)
        # Items that trade names see each other's rows: no second copy of them, and no second frame.
        renamed = prepared.histories.rename(torch.from_numpy(rng.permutation(split.num_items)).to(device))
        noise = rng.standard_normal((split.num_items, min(64, self.items.vectors.shape[1])))
        random = principal_coordinates(torch.from_numpy(noise).to(device, self.items.profile.dtype), k=self.k)
        permuted, drawn = (
            probe_inputs(prepared, read_items(histories, [rows]))
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
    if arm.unruled is not None:
        influence = grouped_auroc_influence(arm.unruled, arm.labels, arm.users, arm.num_users)[1]
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


def base_auc(split: PreferenceSplit) -> float:
    """Return the AUC of the base on w2."""
    test = ~split.events.train
    return auroc(prepare(split).logits.numpy()[test], split.events.label[test])
