"""One vector a sequence: pooling of token states, the same for left and right padding.

Shapes: B sequences, T positions, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lis_lightning.errors import ShapeError

Pooling = Literal["mean", "last", "cls", "eos"]


def pool(
    states: Float[Tensor, "B T D"],
    real: Bool[Tensor, "B T"],
    pooling: Pooling,
    *,
    ids: Int[Tensor, "B T"] | None = None,
    eos: Sequence[int] = (),
) -> Float[Tensor, "B D"]:
    """Return one vector a sequence.

    Args:
        states: State of each position, any float type.
        real: Which positions count; the others are padding, on either side, whose states are never read.
        pooling: ``"mean"`` of all real positions, ``"cls"`` the first one, ``"last"`` the last one, ``"eos"`` the last
            one that holds an end-of-sequence token.
        ids: Token of each position, for ``"eos"``.
        eos: Tokens that end a sequence.

    Returns:
        Vectors, at least float32 where averaged, else of the type of `states`.

    Raises:
        ShapeError: If a sequence has no real position, or none with an end-of-sequence token.

    Example:
        >>> states = torch.arange(6.0).reshape(1, 3, 2)
        >>> pool(states, torch.tensor([[False, True, True]]), "mean")
        tensor([[3., 4.]])
        >>> pool(states, torch.tensor([[True, True, False]]), "last")
        tensor([[2., 3.]])
    """
    if pooling == "eos":
        if ids is None:
            raise ShapeError("Pooling at the end of a sequence needs the `ids` of its tokens.")
        real = real & torch.isin(ids, torch.tensor(list(eos), dtype=ids.dtype, device=ids.device))
    empty = ~real.any(dim=1)
    if empty.any():
        what = f"token among {sorted(eos)}, which end a sequence" if pooling == "eos" else "real position"
        row = int(empty.nonzero()[0])
        raise ShapeError(f"{int(empty.sum())} of {len(real)} sequences have no {what}, the first in row {row}.")
    if pooling == "mean":
        # Not a product with 0 and 1: padding may hold NaN, where attention had nothing to attend to.
        kept = states.masked_fill(~real[..., None], 0)
        total = kept.sum(dim=1, dtype=torch.promote_types(states.dtype, torch.float32))
        return total / real.sum(dim=1, keepdim=True)
    # The first of the largest: of the mask itself the first real position, of its mirror image the last.
    first = (real if pooling == "cls" else real.flip(1)).int().argmax(dim=1)
    at = first if pooling == "cls" else real.shape[1] - 1 - first
    return states[torch.arange(len(states), device=states.device), at]
