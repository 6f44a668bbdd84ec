"""One pass over a representation: its results on every task and period of a split."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lis_lightning.data.random_streams import random_stream
from lis_lightning.data.split import PreferenceSplit
from lis_lightning.errors import ConfigError, NonFiniteError, ShapeError
from lis_lightning.functional.auc import auroc
from lis_lightning.functional.grouped_auc import grouped_auroc_influence
from lis_lightning.functional.histories import Histories
from lis_lightning.functional.intervals import Estimate, cluster_interval, fieller_ratio, paired_difference
from lis_lightning.functional.item_coordinates import (
    ItemCoordinates,
    compute_dtype,
    num_axes,
    principal_coordinates,
)
from lis_lightning.functional.item_vectors import ItemVectors
from lis_lightning.functional.threads import concurrently, map_blocks
from lis_lightning.results.reading import Reading
from lis_lightning.results.result import Ceiling, LISResult, Placebo, SliceEstimate
from lis_lightning.results.verdict import MIN_CEILING_Z, NOT_BINDING_Z, judge
from lis_lightning.scoring.base_ranker import ItemLookup, look_up_items, prepare, probe_inputs
from lis_lightning.scoring.cache import SplitCache
from lis_lightning.scoring.ceiling import ceiling_of, reference_vectors
from lis_lightning.scoring.companions import companions
from lis_lightning.scoring.gain import Arm, evaluate
from lis_lightning.scoring.headroom import headroom_of
from lis_lightning.scoring.options import ScoreOptions
from lis_lightning.scoring.power import smallest_detectable_gain, tested_days
from lis_lightning.scoring.reads.alternative import Alternative
from lis_lightning.scoring.reads.naming import reads_by_name
from lis_lightning.scoring.reads.read import Read, ScoredItems

MIN_SLICE_EVENTS = 200
MIN_SLICE_CLASS = 20  # events of the rarer class
NOTHING = Estimate(value=np.nan, se=np.nan, low=np.nan, high=np.nan)


def score_representation(cache: SplitCache, embeddings: Any, options: ScoreOptions) -> LISResult:
    """Score item representations on all tasks and periods of a split by one pass over them.

    Args:
        cache: The split, with the cache of its base ranker and ceilings.
        embeddings: [num_items, dim], or several by name; see :meth:`lis_lightning.scoring.Scorer.score`.
        options: Ceilings, placebo, probe size and readings.

    Returns:
        The result of the primary task, with those of the other tasks and periods nested in it.
    """
    split, preferences = cache.split, options.preferences
    named = dict(embeddings) if isinstance(embeddings, Mapping) else {"": embeddings}
    if not named:
        raise ShapeError("Expected representations by name, got an empty mapping.")
    vectors, *others = (_checked(split, given) for given in named.values())
    alternatives = reads_by_name({name: Alternative(other) for name, other in zip([*named][1:], others, strict=True)})
    items = _coordinates(vectors, min(vectors.shape[1], num_axes(split.num_items, options.k)))
    lookup = look_up_items(prepare(cache, vectors.device).histories, [items])
    reference = reference_vectors(cache, preferences[options.aligned_to]) if preferences else None
    _check_distinct(options.readers, alternatives)
    scoring = _ScoringPass(split, items, options, reference, options.readers | alternatives)
    tasks = {
        name: scoring.result(cache.of(task), lookup, placebo=options.placebo, read=name == split.task)
        for name, task in split.tasks.items()
    }
    later_periods = split.periods[1:] if split.period == 0 else ()
    periods = tuple(scoring.result(cache.of(period)) for period in later_periods)
    result = tasks.pop(split.task)
    return replace(result, tasks=tasks, periods=periods)


@dataclass(frozen=True, eq=False)
class _ScoringPass:
    """Values shared by the results of all tasks and periods.

    Attributes:
        split: The split of the primary task.
        items: The representation in its principal coordinates.
        options: Ceilings, placebo and probe size.
        reference: Vectors of the preference data, for the companions; None without preference data.
        readers: The readings by name.
    """

    split: PreferenceSplit
    items: ItemCoordinates
    options: ScoreOptions
    reference: ItemVectors | None
    readers: Mapping[str, Read]

    @cached_property
    def companions(self) -> Mapping[str, float]:
        """Conventional metrics of the representation."""
        return companions(self.split, self.items, self.reference)

    def result(
        self, cache: SplitCache, lookup: ItemLookup | None = None, *, placebo: bool = False, read: bool = False
    ) -> LISResult:
        """Score one label on one pair of windows.

        Args:
            cache: The split of the label and its windows.
            lookup: The items looked up at the split's events; None looks them up.
            placebo: Whether to score uninformative representations too.
            read: Whether to score the readings too.
        """
        split, prepared = cache.split, prepare(cache, self.items.profile.device)
        lookup = lookup or look_up_items(prepared.histories, [self.items])
        inputs = probe_inputs(prepared, lookup)
        arm, geometry, _ = concurrently(
            lambda: evaluate(split, prepared, inputs, prepared.logits),
            lambda: evaluate(split, prepared, inputs.attention_only(), prepared.logits),
            lambda: self.companions,
            device=self.items.profile.device,
        )
        ceilings = {name: ceiling_of(cache, preference) for name, preference in self.options.preferences.items()}
        gain, gauc, weighted, (item_gains, item_errors) = concurrently(
            lambda: arm.gain.estimate,
            lambda: _gauc_gain(cache, arm),
            lambda: NOTHING if arm.weighted_gain is None else arm.weighted_gain.estimate,
            lambda: arm.item_gains(split.num_items) if split.period == 0 else (np.zeros(0), np.zeros(0)),
        )
        slices = _slices(arm, split)
        realised = _realised(arm, ceilings.get(self.options.aligned_to))
        headroom = self._headroom(cache, arm)
        noise_gains = self._placebo(cache) if placebo else None
        readings = {}
        if read:
            readings = self._readings(ScoredItems(cache, prepared, self.items, lookup, self.options.k, arm, geometry))
        # Of a gain that may be 0, the smallest detectable gain says how large it may be.
        may_be_zero = min(gain.low, *(ceiling.low for ceiling in ceilings.values()), math.inf) <= 0
        result = LISResult(
            task=split.task,
            ais=gain.value,
            ais_low=gain.low,
            ais_high=gain.high,
            ais_geometry=auroc(geometry.score, geometry.labels) - arm.gain.auc_base,
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
            headroom=headroom.value,
            headroom_low=headroom.low,
            headroom_high=headroom.high,
            aligned_to=self.options.aligned_to,
            ceilings=ceilings,
            slices=slices,
            companions=self.companions,
            placebo=noise_gains,
            reads=readings,
            num_events=arm.labels.size,
            num_users=int(np.unique(split.events.user[split.tested]).size),
            num_days=tested_days(split),
            detectable=smallest_detectable_gain(cache) if may_be_zero else math.nan,
            split_hash=split.hash,
            influence=arm.gain.influence,
            item_gains=item_gains,
            item_errors=item_errors,
        )
        judgement = judge([result])
        return replace(result, verdict=judgement.verdict, message=judgement.message)

    def _headroom(self, cache: SplitCache, arm: Arm) -> Estimate:
        """Return the gain that the preference data would add to the representation; NaN without preference data."""
        if not self.options.preferences:
            return NOTHING
        return headroom_of(cache, self.options.preferences[self.options.aligned_to], arm).estimate

    def _readings(self, scored: ScoredItems) -> dict[str, Reading]:
        """Return the readings of the representation by the names under which they are logged."""
        readings: dict[str, Reading] = {}
        for name, reader in self.readers.items():
            found = reader.readings(name, scored)
            _check_distinct(readings, found)
            readings |= found
        return readings

    def _placebo(self, cache: SplitCache) -> Placebo:
        """Score two uninformative representations: the rows in permuted order, and random vectors."""
        split = cache.split
        rng = random_stream(split.settings["seed"], "placebo")
        device = self.items.profile.device
        prepared = prepare(cache, device)
        # Permuting the item indices of the events avoids a second copy of the rows and a second set of axes.
        permuted = prepared.histories.rename(torch.from_numpy(rng.permutation(split.num_items)).to(device))
        noise = rng.standard_normal((split.num_items, min(64, self.items.vectors.shape[1])))
        random = principal_coordinates(
            torch.from_numpy(noise).to(device, self.items.profile.dtype), k=self.items.profile.shape[1]
        )

        def gain(items: ItemCoordinates, histories: Histories) -> Estimate:
            inputs = probe_inputs(prepared, look_up_items(histories, [items]))
            return evaluate(split, prepared, inputs, prepared.logits).gain.estimate

        return Placebo(permuted=gain(self.items, permuted), random=gain(random, prepared.histories))


def _check_distinct(names: Iterable[str], others: Iterable[str]) -> None:
    """Raise if two readings would be logged under one name."""
    if both := sorted(set(names) & set(others)):
        raise ConfigError(f"Two readings are named {both[0]!r}: give one of them, or one representation, another name.")


def _checked(split: PreferenceSplit, embeddings: Any) -> Tensor:
    """Return the representation as a tensor of the same device and type; raise if its shape or a row is wrong."""
    vectors = embeddings.detach() if isinstance(embeddings, Tensor) else torch.as_tensor(np.asarray(embeddings))
    if vectors.ndim != 2 or vectors.shape[0] != split.num_items or vectors.shape[1] == 0:
        raise ShapeError(
            f"Expected `embeddings` of shape [{split.num_items}, dim], one row for each of `split.item_ids`, got "
            f"{list(vectors.shape)}."
        )
    if not vectors.is_floating_point():
        raise ShapeError(f"Expected `embeddings` of a float type, got {vectors.dtype}; ids are not a representation.")
    if vectors.sum(dtype=compute_dtype(vectors.dtype)).isfinite():  # three times as fast as checking each number
        return vectors
    bad = (~vectors.isfinite()).any(1).nonzero()[:, 0].cpu().numpy()
    if bad.size:
        raise NonFiniteError(
            f"`embeddings` has NaN or infinity in {bad.size} of {split.num_items} rows, first for the items "
            f"{split.item_ids[bad[:5]].tolist()}; check the encoder on these items."
        )
    return vectors


def _coordinates(vectors: Tensor, k: int) -> ItemCoordinates:
    """Return the principal coordinates of the representation, whatever its scale."""
    items = principal_coordinates(vectors, k=k)
    if not items.present.any():  # all rows are equal, or their squares overflow or underflow
        largest = max(abs(float(end)) for end in vectors.aminmax())
        if largest > 0:
            return principal_coordinates(vectors.to(compute_dtype(vectors.dtype)) / largest, k=k)
    return items


def _slices(arm: Arm, split: PreferenceSplit) -> dict[str, SliceEstimate]:
    """Return the gain in each slice of the tested events; NaN for a slice with too few events."""
    gains = map_blocks(lambda inside: _slice_gain(arm, inside[split.tested]), split.slices.values())
    return dict(zip(split.slices, gains, strict=True))


def _slice_gain(arm: Arm, inside: NDArray[np.bool_]) -> SliceEstimate:
    num_events, positives = int(inside.sum()), int(arm.labels[inside].sum())
    enough = num_events >= MIN_SLICE_EVENTS and MIN_SLICE_CLASS <= positives <= num_events - MIN_SLICE_CLASS
    gain = arm.gain_of(inside).estimate if enough else NOTHING
    return SliceEstimate(**vars(gain), num_events=num_events)


def _gauc_gain(cache: SplitCache, arm: Arm) -> Estimate:
    """Return the gain in impression-weighted per-user AUC (GAUC); its interval covers the sampling of test users."""
    after, influence = grouped_auroc_influence(arm.score, arm.labels, arm.users, arm.num_users)
    if arm.score_upper is not None:
        influence = grouped_auroc_influence(arm.score_upper, arm.labels, arm.users, arm.num_users)[1]
    before, base_influence = cache.value(  # the base is the same at every snapshot
        "GAUC of the base",
        lambda: grouped_auroc_influence(arm.base, arm.labels, arm.users, arm.num_users),
        content=lambda: None,
    )
    return cluster_interval(after - before, influence - base_influence)


def _realised(arm: Arm, ceiling: Ceiling | None) -> Estimate:
    """Return AIS as a share of the ceiling, NaN if the ceiling is uncertain or exceeded by AIS."""
    if ceiling is None or cluster_interval(ceiling.value, ceiling.influence).z <= MIN_CEILING_Z:
        return NOTHING
    gains = (arm.gain.value, arm.gain.influence, ceiling.value, ceiling.influence)
    excess = paired_difference(*gains)
    if excess.value > 0 and excess.z >= NOT_BINDING_Z:
        return NOTHING
    return fieller_ratio(*gains)
