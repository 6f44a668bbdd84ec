"""Contrastive losses: InfoNCE on item pairs, and the supervised contrastive loss on item classes."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from lis_lightning.errors import ShapeError
from lis_lightning.functional.loss_inputs import check_above_zero, check_rows, check_same_shape, full_precision


def info_nce(
    anchors: Float[Tensor, "b d"],
    positives: Float[Tensor, "b d"],
    temperature: float | Float[Tensor, ""] = 0.07,
    known_positives: Bool[Tensor, "b b"] | None = None,
    negatives: Float[Tensor, "n d"] | None = None,
    known_negatives: Bool[Tensor, "b n"] | None = None,
) -> Float[Tensor, ""]:
    r"""Return the symmetric InfoNCE loss of a batch of pairs, with the other pairs of the batch as negatives.

    With cosines :math:`s_{ij}` between anchor i and positive j and temperature :math:`t`,

    .. math:: -\frac{1}{2b} \sum_i \Big[ \log\frac{e^{s_{ii}/t}}{\sum_{j \in N_i} e^{s_{ij}/t}}
              + \log\frac{e^{s_{ii}/t}}{\sum_{j \in M_i} e^{s_{ji}/t}} \Big]

    (van den Oord et al. 2018, eq. 4; in both directions as in CLIP, Radford et al. 2021, fig. 3), where
    :math:`N_i` and :math:`M_i` leave out the pairs of `known_positives`: false negatives, such as items that users
    engage with together with the anchor. Further negatives (hard negatives, or those of other devices) join
    :math:`N_i` only. Computed in float32 or wider, also under autocast.

    Args:
        anchors: One row per pair; rows need no normalisation.
        positives: The other item of each pair, in the same order.
        temperature: Above 0; smaller values put more weight on the nearest negatives.
        known_positives: True at [i, j] where anchor i and positive j must not count as a negative, in either
            direction. The diagonal is ignored. None: every other pair of the batch is a negative.
        negatives: Further items, negatives of every anchor.
        known_negatives: True at [i, j] where anchor i and further negative j must not count as a negative.

    Returns:
        A scalar of 0 or more, lower is better; about ``log b`` for representations without information.

    Raises:
        ShapeError: If anchors and positives differ in shape or hold fewer than one row, or a mask does not fit.
        NonFiniteError: If a row is NaN or infinite.
        ConfigError: If the temperature is a number of 0 or less.

    Example:
        >>> import torch
        >>> items = torch.eye(3)
        >>> round(info_nce(items, items, temperature=1.0).item(), 4)  # log(e + 2) - 1
        0.5514
        >>> known = torch.ones(3, 3, dtype=torch.bool)                # no negative is left
        >>> round(info_nce(items, items, temperature=1.0, known_positives=known).item(), 4)
        0.0
    """
    _check_pairs(anchors, positives, temperature, known_positives, negatives, known_negatives)
    further = anchors[:0] if negatives is None else negatives
    with full_precision(anchors, positives, further) as rows:
        left, right, extra = (F.normalize(part, dim=-1) for part in rows)
        logits, extra_logits = left @ right.T / temperature, left @ extra.T / temperature
        if known_positives is not None:
            own = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
            logits = logits.masked_fill(known_positives & ~own, -math.inf)
        if known_negatives is not None:
            extra_logits = extra_logits.masked_fill(known_negatives, -math.inf)
        truth = torch.arange(len(logits), device=logits.device)
        forward = F.cross_entropy(torch.cat([logits, extra_logits], dim=1), truth)
        return (forward + F.cross_entropy(logits.T, truth)) / 2


def multi_positive_contrastive(
    rows: Float[Tensor, "b d"], classes: Int[Tensor, " b"], temperature: float | Float[Tensor, ""] = 0.1
) -> Float[Tensor, ""]:
    r"""Return the supervised contrastive loss: items of the same class are positives of each other.

    .. math:: -\frac{1}{|A|} \sum_{i \in A} \frac{1}{|P_i|} \sum_{p \in P_i}
              \log\frac{e^{s_{ip}/t}}{\sum_{j \ne i} e^{s_{ij}/t}}

    (Khosla et al. 2020, eq. 2), over the rows :math:`A` whose class occurs twice or more and is not negative.

    Args:
        rows: Items; need no normalisation.
        classes: Class of each item, from a taxonomy for example; below 0 for items without one, which serve as
            negatives only.
        temperature: Above 0.

    Returns:
        A scalar of 0 or more; 0 where no two items share a class.

    Raises:
        ShapeError: If there is not one class per row.
        NonFiniteError: If a row is NaN or infinite.
        ConfigError: If the temperature is a number of 0 or less.

    Example:
        >>> import torch
        >>> rows = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
        >>> round(multi_positive_contrastive(rows, torch.tensor([0, 0, 1, 1]), temperature=0.1).item(), 4)
        0.0001
    """
    check_rows(rows=rows)
    check_above_zero(temperature=temperature)
    if classes.shape != (len(rows),):
        raise ShapeError(f"Expected one class for each of {len(rows)} rows, but got {tuple(classes.shape)}.")
    with full_precision(rows) as (full,):
        unit = F.normalize(full, dim=-1)
        own = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
        logits = (unit @ unit.T / temperature).masked_fill(own, -math.inf)
        log_share = logits - logits.logsumexp(dim=1, keepdim=True)
        positive = (classes[:, None] == classes) & (classes >= 0)[:, None] & ~own
        count = positive.sum(dim=1)
        mean = torch.where(positive, log_share, 0.0).sum(dim=1) / count.clamp_min(1)
        return -mean.sum() / (count > 0).sum().clamp_min(1)


def _check_pairs(
    anchors: Tensor,
    positives: Tensor,
    temperature: float | Tensor,
    known_positives: Tensor | None,
    negatives: Tensor | None,
    known_negatives: Tensor | None,
) -> None:
    check_same_shape(anchors=anchors, positives=positives)
    check_rows(anchors=anchors, positives=positives)
    check_above_zero(temperature=temperature)
    if negatives is not None and len(negatives):
        check_rows(negatives=negatives)
    num_negatives = 0 if negatives is None else len(negatives)
    masks = {"known_positives": (known_positives, len(anchors)), "known_negatives": (known_negatives, num_negatives)}
    for name, (mask, columns) in masks.items():
        if mask is not None and mask.shape != (len(anchors), columns):
            raise ShapeError(
                f"`{name}` must be [{len(anchors)}, {columns}], one row per anchor, but got {tuple(mask.shape)}."
            )
