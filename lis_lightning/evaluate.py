"""One arm against the base on the test window: gain, interval and influence per user."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lis_lightning.base import Prepared
from lis_lightning.functional.auroc import auroc_influence
from lis_lightning.functional.intervals import Estimate, cluster_interval, user_sums
from lis_lightning.functional.probe import ProbeFit, ProbeInputs, fit_probe
from lis_lightning.split import PreferenceSplit


@dataclass(frozen=True)
class Arm:
    """The gain of one arm over the base on w2.

    Attributes:
        gain: AUC with the arm less AUC of the base, with its user-clustered interval.
        auc: AUC with the arm.
        auc_base: AUC of the base.
        influence: Per-user sums of the influence values of the gain, [num_users].
        base: Base logits of the test events.
        score: Logits of the test events with the arm.
        fit: The fitted probe.
    """

    gain: Estimate
    auc: float
    auc_base: float
    influence: NDArray[np.float64]
    base: NDArray[np.float64]
    score: NDArray[np.float64]
    fit: ProbeFit


def evaluate(split: PreferenceSplit, prepared: Prepared, inputs: ProbeInputs, base: Tensor) -> Arm:
    """Fit the probe on w1 and measure its gain on w2.

    Args:
        split: The split.
        prepared: The split as tensors.
        inputs: What the probe sees.
        base: Base logits of all events.
    """
    fit = fit_probe(inputs, base, prepared.labels, prepared.folds)
    test = ~split.events.train
    base_logits = base.numpy()[test]
    scores = base_logits + fit.score.numpy()[test]
    labels, users = split.events.label[test], split.events.user[test]
    auc_base, base_influence = auroc_influence(base_logits, labels)
    auc, influence = auroc_influence(scores, labels)
    per_user = user_sums(influence - base_influence, users, split.num_users)
    return Arm(cluster_interval(auc - auc_base, per_user), auc, auc_base, per_user, base_logits, scores, fit)
