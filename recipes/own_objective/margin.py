"""An objective of your own: a user's next click is closer than another user's, by a margin."""

from typing import Any

import numpy as np
from torch import Tensor
from torch.nn.functional import normalize, triplet_margin_loss

from lis_lightning.align.data import AlignmentEvents, Examples, hold_out, mix_bits
from lis_lightning.align.objectives import Objective


class NextClickMargin(Objective):
    """Triplets of a click, the user's next click, and the next click of another user in the batch."""

    def __init__(self, *, margin: float = 0.3, **options: Any) -> None:
        super().__init__(**options)  # weight, batch_size, held_out
        self.margin = margin

    @property
    def preference(self) -> str:
        """The preference data whose ceiling and headroom are reported: co-clicked pairs."""
        return "pairs"

    def examples(self, events: AlignmentEvents, dim: int) -> Examples:
        """Return what to train on: rows of the item table by role, asked for once."""
        clicks = events.positives  # of the alignment window, by user and time
        follows = (clicks.user[1:] == clicks.user[:-1]) & (clicks.item[1:] != clicks.item[:-1])
        pairs = np.unique(np.stack([clicks.item[:-1], clicks.item[1:]], axis=1)[follows], axis=0)
        keys = mix_bits(pairs[:, 0] * len(events.items) + pairs[:, 1])
        return Examples({"click": pairs[:, :1], "next": pairs[:, 1:]}, hold_out(keys, self.held_out))

    def loss(self, rows: Tensor, batch: dict[str, Any]) -> Tensor:
        """Return the loss of a batch; `rows` are the representations, `batch` their positions by role."""
        rows = normalize(rows, dim=1)
        click, following = rows[batch["click"]], rows[batch["next"]]
        return triplet_margin_loss(click, following, following.roll(1, dims=0), margin=self.margin)
