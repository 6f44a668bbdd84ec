"""Pooling of sequences: token states to one vector per sequence, item vectors to one vector per user.

Shapes: B sequences, T positions, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from lis_lightning.errors import ShapeError
from lis_lightning.functional.loss_inputs import full_precision

Pooling = Literal["mean", "last", "cls", "eos"]


def pool(
    states: Float[Tensor, "B T D"],
    real: Bool[Tensor, "B T"],
    pooling: Pooling,
    *,
    ids: Int[Tensor, "B T"] | None = None,
    eos: Sequence[int] = (),
) -> Float[Tensor, "B D"]:
    """Return one vector per sequence, the same for left and right padding.

    Args:
        states: State of each position, any float type.
        real: Which positions count; the others are padding, on either side, and their states are never read.
        pooling: ``"mean"`` of all real positions, ``"cls"`` the first one, ``"last"`` the last one, ``"eos"`` the last
            one that holds an end-of-sequence token.
        ids: Token of each position, for ``"eos"``.
        eos: Tokens that end a sequence.

    Returns:
        Vectors, in float32 or wider for ``"mean"``, else of the type of `states`.

    Raises:
        ShapeError: If a sequence has no real position, or none with an end-of-sequence token.

    Example:
        >>> import torch
        >>> states = torch.arange(6.0).reshape(1, 3, 2)
        >>> pool(states, torch.tensor([[False, True, True]]), "mean")
        tensor([[3., 4.]])
        >>> pool(states, torch.tensor([[True, True, False]]), "last")
        tensor([[2., 3.]])
    """
    what = "real position"
    if pooling == "eos":
        if ids is None:
            raise ShapeError("Pooling at the end of a sequence needs the `ids` of its tokens.")
        what = f"token among {sorted(eos)}, which end a sequence"
        real = real & torch.isin(ids, torch.tensor(list(eos), dtype=ids.dtype, device=ids.device))
    empty = ~real.any(dim=1)
    if empty.any():
        first = int(empty.nonzero()[0])
        raise ShapeError(f"{int(empty.sum())} of {len(real)} sequences have no {what}, the first in row {first}.")
    if pooling == "mean":
        # Not a product with 0 and 1: padding may hold NaN, where attention had nothing to attend to.
        masked = states.masked_fill(~real[..., None], 0)
        total = masked.sum(dim=1, dtype=torch.promote_types(states.dtype, torch.float32))
        return total / real.sum(dim=1, keepdim=True)
    # argmax returns the first True: the first real position, or in the mirrored mask the last.
    row = torch.arange(len(states), device=states.device)
    if pooling == "cls":
        return states[row, real.int().argmax(dim=1)]
    return states[row, real.shape[1] - 1 - real.flip(1).int().argmax(dim=1)]


def pool_history(rows: Float[Tensor, "B T D"], present: Bool[Tensor, "B T"]) -> Float[Tensor, "B D"]:
    """Return user vectors: the mean of the unit rows of each history; zeros for an empty one.

    Args:
        rows: Representations of the items of each history, padded.
        present: Which positions hold an item.

    Returns:
        One vector per history, in float32 or wider.

    Example:
        >>> import torch
        >>> pool_history(torch.tensor([[[2.0, 0.0], [0.0, 4.0]]]), torch.tensor([[True, False]])).tolist()
        [[1.0, 0.0]]
    """
    with full_precision(rows) as (full,):
        unit = F.normalize(full, dim=-1) * present[..., None]
        return unit.sum(dim=1) / present.sum(dim=1, keepdim=True).clamp_min(1)
