"""AUC gain of an arm over the base on the test window, with the influence of every user."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lis_lightning.data.split import PreferenceSplit
from lis_lightning.functional.attribution import auroc_shares, group_totals
from lis_lightning.functional.auc import auroc, auroc_influence
from lis_lightning.functional.intervals import Estimate, cluster_interval, user_sums
from lis_lightning.functional.probe import NUM_GROUPS, ProbeFit, ProbeInputs, fit_probe
from lis_lightning.scoring.base_ranker import Prepared

JACKKNIFE_EVENTS = 16_384  # of each class


@dataclass(frozen=True, eq=False)
class Gain:
    """An AUC gain with its influence values.

    Attributes:
        value: AUC with the arm minus AUC of the base.
        auc: AUC with the arm.
        auc_base: AUC of the base.
        influence: Sums of the influence values of each user's test events, then a term for each group of training
            users, [num_users + NUM_GROUPS]; the squares add up to the variance.
    """

    value: float
    auc: float
    auc_base: float
    influence: NDArray[np.float64]

    @property
    def estimate(self) -> Estimate:
        """The gain with its standard error and 95 % interval, over the sampling of test users and training users."""
        return cluster_interval(self.value, self.influence)


@dataclass(frozen=True, eq=False)
class Arm:
    """Logits of one arm and of the base on the tested events (:attr:`PreferenceSplit.tested`), [T] each.

    An arm is what is added to the base: a representation, or leaked preference data.

    Attributes:
        base: Logits of the base.
        score: Logits with the arm.
        score_upper: If the arm's slope is 0, logits at the largest slope that the training events do not rule out; else
            None. The influence values of a zero gain are taken from them.
        leave_group_out: Logits of the sampled events, with the arm fitted without one group of training users, [s, G].
        sample: Which tested events the jackknife is computed on, evenly spaced ones of both classes, [s].
        labels: 0 or 1.
        users: User of each event.
        items: Target of each event, as a row of the representation.
        weights: Weight of each event; None if the split has no weights.
        trained_groups: Whether each group of users has training events, [G].
        num_users: Number of users of the split.
        fit: The fitted probe.

    Example:
        >>> import polars as pl, torch
        >>> from lis_lightning.functional.item_coordinates import principal_coordinates
        >>> from lis_lightning.scoring import Scorer, probe_inputs, look_up_items
        >>> log = pl.DataFrame({"user_id": [0, 1] * 20, "item_id": [0, 1, 2, 3] * 10,
        ...                     "timestamp": range(40), "label": [0, 1, 1, 0, 0] * 8})
        >>> split = PreferenceSplit.from_log(log)
        >>> prepared = Scorer(split, cache_dir="off").base_ranker
        >>> lookup = look_up_items(prepared.histories, [principal_coordinates(torch.eye(4))])
        >>> arm = evaluate(split, prepared, probe_inputs(prepared, lookup), prepared.logits)
        >>> arm.gain.value == arm.gain.auc - arm.gain.auc_base
        True
    """

    base: NDArray[np.float64]
    score: NDArray[np.float64]
    score_upper: NDArray[np.float64] | None
    leave_group_out: NDArray[np.float64]
    sample: NDArray[np.int64]
    labels: NDArray[np.int8]
    users: NDArray[np.int64]
    items: NDArray[np.int64]
    weights: NDArray[np.float64] | None
    trained_groups: NDArray[np.bool_]
    num_users: int
    fit: ProbeFit

    @cached_property
    def gain(self) -> Gain:
        """The gain over all tested events, equally weighted."""
        return self.gain_of(np.ones(self.labels.size, bool))

    @cached_property
    def weighted_gain(self) -> Gain | None:
        """The gain of the weighted AUC; None if events have no weights."""
        return None if self.weights is None else self.gain_of(np.ones(self.labels.size, bool), self.weights)

    def gain_of(self, inside: NDArray[np.bool_], weights: NDArray[np.float64] | None = None) -> Gain:
        """Return the gain over some of the tested events, which must include both classes.

        Args:
            inside: Mask of the tested events to use, [T].
            weights: Weights of the tested events, [T]; None weights them equally.
        """
        labels = self.labels[inside]
        inside_weights = None if weights is None else weights[inside]
        auc_base, base_influence = auroc_influence(self.base[inside], labels, inside_weights)
        auc, influence = auroc_influence(self.score[inside], labels, inside_weights)
        if self.score_upper is not None:
            influence = auroc_influence(self.score_upper[inside], labels, inside_weights)[1]
        per_user = user_sums(influence - base_influence, self.users[inside], self.num_users)
        if self.num_users > 1:  # one user has no variance: its interval stays infinite
            per_user = np.concatenate([per_user, self._training_influence(inside, weights)])
        return Gain(auc - auc_base, auc, auc_base, per_user)

    def item_gains(self, num_items: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Decompose the gain by item: contribution of the test events of each item, and its standard error.

        Args:
            num_items: Number of rows of the representation.

        Returns:
            Contributions, which sum to the gain, and their standard errors over test users, [num_items] each.
        """
        auc, influence = auroc_influence(self.score, self.labels)
        auc_base, base_influence = auroc_influence(self.base, self.labels)
        shares = auroc_shares(influence, auc, self.labels) - auroc_shares(base_influence, auc_base, self.labels)
        return group_totals(shares, self.items, self.users, num_items)

    def _training_influence(
        self, inside: NDArray[np.bool_], weights: NDArray[np.float64] | None
    ) -> NDArray[np.float64]:
        """Delete-a-group jackknife of the gain over the training users, [NUM_GROUPS].

        With ``t_g`` the AUC of the probe fitted without group g, the terms are ``sqrt((G - 1) / G) (t_g - mean t)``,
        whose squares add up to the variance. Base, slope and the penalty of the bilinear form are not refitted. A user
        of w1 is both trained on and tested; the two effects are added as if they were independent. Intervals of 200
        users cover .89 to .975 of nominal .95 (``recipes/coverage``).
        """
        terms = np.zeros(NUM_GROUPS)
        rows = inside[self.sample]
        events = self.sample[rows]
        labels, scores = self.labels[events], self.leave_group_out[rows]
        if self.fit.slope == 0.0 or np.unique(labels).size < 2:
            return terms
        sampled_weights = None if weights is None else weights[events]
        trained = np.flatnonzero(self.trained_groups)
        aucs = np.array([auroc(scores[:, group], labels, sampled_weights) for group in trained])
        terms[trained] = np.sqrt((trained.size - 1) / trained.size) * (aucs - aucs.mean())
        return terms


def evaluate(split: PreferenceSplit, prepared: Prepared, inputs: ProbeInputs, base: Tensor) -> Arm:
    """Fit the probe on w1, and score w1 out of fold and w2.

    Args:
        split: The split.
        prepared: The split as tensors.
        inputs: Features of the probe.
        base: Base logits of all events, [E].

    Returns:
        The logits of the tested events, of the base and with the probe added.

    Example:
        >>> import polars as pl, torch
        >>> from lis_lightning.functional.item_coordinates import principal_coordinates
        >>> from lis_lightning.scoring import Scorer, probe_inputs, look_up_items
        >>> log = pl.DataFrame({"user_id": [0, 1] * 20, "item_id": [0, 1, 2, 3] * 10,
        ...                     "timestamp": range(40), "label": [0, 1, 1, 0, 0] * 8})
        >>> split = PreferenceSplit.from_log(log)
        >>> prepared = Scorer(split, cache_dir="off").base_ranker
        >>> lookup = look_up_items(prepared.histories, [principal_coordinates(torch.eye(4))])
        >>> arm = evaluate(split, prepared, probe_inputs(prepared, lookup), prepared.logits)
        >>> arm.score.shape, round(arm.gain.auc_base, 3)
        ((20,), 0.823)
    """
    tested = np.flatnonzero(split.tested)
    labels = split.events.label[tested]
    sample = _thinned_classes(labels)
    rows = torch.from_numpy(tested[sample]).to(base.device)
    fit = fit_probe(inputs, base, prepared.labels, prepared.groups, rows)
    base_logits = base.cpu().numpy()
    weights = None if split.events.weight is None else split.events.weight[tested]
    upper = None if fit.score_upper is None else (base_logits + fit.score_upper.cpu().numpy())[tested]
    return Arm(
        base=base_logits[tested],
        score=(base_logits + fit.score.cpu().numpy())[tested],
        score_upper=upper,
        leave_group_out=base_logits[tested[sample], None] + fit.leave_group_out.cpu().numpy(),
        sample=sample,
        labels=labels,
        users=split.events.user[tested],
        items=split.events.item[tested],
        weights=weights,
        trained_groups=np.bincount(prepared.groups[prepared.train].cpu().numpy(), minlength=NUM_GROUPS) > 0,
        num_users=split.num_users,
        fit=fit,
    )


def _thinned_classes(labels: NDArray[np.int8]) -> NDArray[np.int64]:
    """Return evenly spaced events of both classes, at most `JACKKNIFE_EVENTS` of each.

    Thinning a class does not change the expected AUC, and computing 12 AUCs of a million events would take longer than
    all other steps of a score.
    """
    classes = (np.flatnonzero(labels == 0), np.flatnonzero(labels == 1))
    return np.concatenate([rows[:: -(-rows.size // JACKKNIFE_EVENTS)] for rows in classes])
