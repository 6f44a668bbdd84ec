"""What a representation is trained to do."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from lis_lightning.errors import ConfigError, NonFiniteError, ShapeError


def info_nce(
    anchors: Float[Tensor, "b d"],
    positives: Float[Tensor, "b d"],
    temperature: float | Float[Tensor, ""] = 0.07,
    known_positives: Bool[Tensor, "b b"] | None = None,
) -> Float[Tensor, ""]:
    r"""Return the symmetric InfoNCE loss of a batch of pairs, with the other pairs of the batch as negatives.

    With cosines :math:`s_{ij}` between anchor i and positive j and temperature :math:`t`,

    .. math:: -\frac{1}{2b} \sum_i \Big[ \log\frac{e^{s_{ii}/t}}{\sum_{j \in N_i} e^{s_{ij}/t}}
              + \log\frac{e^{s_{ii}/t}}{\sum_{j \in M_i} e^{s_{ji}/t}} \Big]

    (van den Oord et al. 2018, eq. 4; in both directions as in CLIP, Radford et al. 2021, fig. 3), where
    :math:`N_i` and :math:`M_i` leave out pairs that are positives themselves: an item that users bring together with
    the anchor is not evidence of what the anchor is unlike. Computed in float32 at least, also under autocast.

    Args:
        anchors: One row a pair; rows need no normalisation.
        positives: The other item of each pair, in the same order.
        temperature: Above 0; smaller looks harder at the nearest negatives.
        known_positives: True at [i, j] where anchor i and positive j must not count as a negative, in either
            direction. The diagonal is not read. None: every other pair of the batch is a negative.

    Returns:
        A scalar of 0 or more, lower is better; about ``log b`` for representations that say nothing.

    Raises:
        ShapeError: If anchors and positives differ in shape or hold fewer than one row, or the mask is not [b, b].
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
    _check(anchors, positives, temperature, known_positives)
    dtype = torch.promote_types(torch.promote_types(anchors.dtype, positives.dtype), torch.float32)
    with torch.autocast(device_type=anchors.device.type, enabled=False):
        left = F.normalize(anchors.to(dtype), dim=-1)
        right = F.normalize(positives.to(dtype), dim=-1)
        logits = left @ right.T / temperature
        if known_positives is not None:
            own = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
            logits = logits.masked_fill(known_positives & ~own, -math.inf)
        truth = torch.arange(len(logits), device=logits.device)
        return (F.cross_entropy(logits, truth) + F.cross_entropy(logits.T, truth)) / 2


def _check(anchors: Tensor, positives: Tensor, temperature: float | Tensor, known: Tensor | None) -> None:
    if anchors.ndim != 2 or anchors.shape != positives.shape or len(anchors) == 0:
        raise ShapeError(
            "`anchors` and `positives` must both be [pairs, dim] with one pair or more, row by row, but got "
            f"{tuple(anchors.shape)} and {tuple(positives.shape)}."
        )
    if known is not None and known.shape != (len(anchors), len(anchors)):
        raise ShapeError(
            f"`known_positives` must be [{len(anchors)}, {len(anchors)}], anchors by positives, "
            f"but got {tuple(known.shape)}."
        )
    if isinstance(temperature, (int, float)) and not 0.0 < temperature < math.inf:
        raise ConfigError(f"`temperature` must be a finite number above 0, but got {temperature}; try 0.07.")
    for name, rows in (("anchors", anchors), ("positives", positives)):
        finite = torch.isfinite(rows.detach()).all(dim=-1)
        if not finite.all():
            first = int((~finite).nonzero()[0])
            raise NonFiniteError(
                f"`{name}` has NaN or infinity in {int((~finite).sum())} of {len(rows)} rows, the first is row "
                f"{first}; lower the learning rate, clip gradients, or train in float32 or bfloat16 instead of float16."
            )
