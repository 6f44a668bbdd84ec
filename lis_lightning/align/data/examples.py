"""Training examples of an objective, as rows of the item table, and which of them are held out for validation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lis_lightning.errors import ConfigError, ShapeError

MIN_HELD_OUT, MAX_HELD_OUT = 2, 2000  # one example alone has no negative
Rows = Mapping[str, NDArray[np.int64]]
Extras = Callable[[Rows, bool], dict[str, Tensor]]


@dataclass(frozen=True, eq=False)
class Examples:
    """The examples that an objective trains on.

    Attributes:
        items: Rows of the item table by role, [n, slots]; -1 for an empty slot.
        held_out: Examples for the validation loss, which training must not see, [n].
        weights: Sampling weight of each example, 0 or more, [n]; None samples all alike.
        extras: Makes further tensors of a batch from its rows and from whether its examples are held out; None for
            none.

    Raises:
        ShapeError: If the roles differ in length, or one is not a matrix.

    Example:
        >>> pairs = np.array([[0, 3], [1, 2]])
        >>> len(Examples({"anchor": pairs[:, :1], "positive": pairs[:, 1:]}, np.array([False, True])))
        2
    """

    items: Rows
    held_out: NDArray[np.bool_]
    weights: NDArray[np.float64] | None = None
    extras: Extras | None = None

    def __post_init__(self) -> None:
        shapes = {name: rows.shape for name, rows in self.items.items()} | {"held_out": self.held_out.shape}
        lengths = {shape[0] for shape in shapes.values()}
        if len(lengths) != 1 or any(rows.ndim != 2 for rows in self.items.values()):
            raise ShapeError(f"Examples must be [n, slots] each with one `held_out` [n], but got {shapes}.")

    def __len__(self) -> int:
        return self.held_out.size


def hold_out(keys: NDArray[np.uint64], share: float) -> NDArray[np.bool_]:
    """Choose the examples that training must not see: those with the smallest hash.

    Because the hash decides, an example keeps its side when others are added or removed, and runs on slightly
    different logs remain comparable.

    Args:
        keys: A hash of each example, such as :func:`~lis_lightning.align.data.mix_bits` gives, [n].
        share: Share of the examples, above 0 and below 1; at most 2000 are held out.

    Returns:
        True for held-out examples, [n].

    Raises:
        ConfigError: If `share` is out of range, or fewer than two examples are left to train on.

    Example:
        >>> hold_out(np.arange(100, dtype=np.uint64), share=0.05).nonzero()[0].tolist()
        [0, 1, 2, 3, 4]
    """
    if not 0.0 < share < 1.0:
        raise ConfigError(f"`held_out` must lie between 0 and 1, but got {share}; try 0.05.")
    number = max(MIN_HELD_OUT, min(round(share * len(keys)), MAX_HELD_OUT))
    if len(keys) - number < MIN_HELD_OUT:
        raise ConfigError(
            f"{len(keys)} examples are too few to hold {number} out and train on the others; give alignment more "
            "events."
        )
    mask = np.zeros(len(keys), dtype=bool)
    mask[np.argsort(keys, kind="stable")[:number]] = True
    return mask
