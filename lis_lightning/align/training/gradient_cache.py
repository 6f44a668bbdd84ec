"""GradCache: contrastive batches of any size in the memory of a micro-batch (Gao et al. 2021, arXiv:2101.06983).

A contrastive loss needs the representations of all items of a batch at once, but not all activations. The items are
encoded in micro-batches whose activations are discarded. The backward pass of the loss then reaches the vectors of each
micro-batch in turn, and encodes that one again, now with activations. The gradient is that of the plain step, negatives
of other processes included, at the cost of a second forward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from lis_lightning.align.models.item_encoder import ItemEncoder, moved_to
from lis_lightning.errors import ConfigError


def encode_in_parts(encoder: ItemEncoder, micro_batches: Sequence[dict[str, Any]], device: torch.device) -> Tensor:
    """Return the representations [B, D] of a batch, with the activations of one micro-batch in memory at a time.

    Args:
        encoder: The encoder.
        micro_batches: Item batches, which are moved to the device one by one.
        device: Of the encoder.

    Example:
        >>> from lis_lightning.align.models import FeatureEncoder
        >>> encoder = FeatureEncoder(4, output_dim=2)
        >>> parts = [{"features": torch.ones(2, 4)}, {"features": torch.ones(1, 4)}]
        >>> encode_in_parts(encoder, parts, torch.device("cpu")).shape
        torch.Size([3, 2])
    """

    def vectors(batch: dict[str, Any]) -> Tensor:
        return encoder.item_vectors(moved_to(batch, device))

    if torch.is_grad_enabled():
        # Draws of the second pass, such as dropout, are those of the first one.
        parts: list[Tensor] = [checkpoint(vectors, batch, use_reentrant=False) for batch in micro_batches]
    else:
        parts = [vectors(batch) for batch in micro_batches]
    return encoder.represent(torch.cat(parts), micro_batches)


def check_parts(encoder: ItemEncoder) -> None:
    """Check that the vector of an item does not depend on the other items of its micro-batch.

    Args:
        encoder: In training mode.

    Raises:
        ConfigError: If a batch norm in training would take its statistics from a micro-batch.
    """
    for module in encoder.per_item_modules():
        names = [name for name, part in module.named_modules() if isinstance(part, _BatchNorm) and part.training]
        if names:
            raise ConfigError(
                f"training.micro_batch needs a model that encodes each item by itself, but {type(module).__name__} has "
                f"{len(names)} batch norms in training, the first is {names[0]}. Set model.tuning.mode=head or lora, "
                "which leave batch norms as they are, or training.micro_batch=null."
            )
