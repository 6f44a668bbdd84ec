"""Encoders of images alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from typing_extensions import override

from lis_lightning.align.data.items import ItemTable, OnBadImage, load_image
from lis_lightning.align.models.loading import load_pretrained
from lis_lightning.align.models.pretrained import PretrainedEncoder
from lis_lightning.align.models.tiny_towers import make_tiny_vision
from lis_lightning.align.models.tuning import Tuning
from lis_lightning.errors import ConfigError

Pooling = Literal["mean", "cls", "pooler"]


class VisionEncoder(PretrainedEncoder):
    """An image model with a projection head over its pooled last hidden states.

    Any model of images that `AutoModel` loads: ViT, DINOv2, the vision tower of a CLIP or SigLIP saved by itself,
    ConvNeXt, ResNet. An item without an image is shown plain grey; its text is not read.

    Args:
        model: A hub id, or a folder written by `save_pretrained` with the image processor beside it.
        pooling: "mean" over all patches, "cls" the first token, or "pooler" what the model itself makes of them.
        output_dim: Dimension of the projection, whose outputs are standardised; None for the pooled state itself.
        tuning: What is trained; default: all.
        gradient_checkpointing: Recompute activations in the backward pass: less memory, a third more time.
        torch_dtype: Of the model's weights, "float32" or "bfloat16"; head and adapters stay in float32.
        on_bad_image: "raise", or "blank" to show plain grey for an image that cannot be read.
        features: How many precomputed features of each item are joined, before the head; 0 for none.

    Raises:
        ConfigError: If the model cannot be loaded or is no image model, or an option is unknown or does not fit it.
    """

    reads_texts = False

    def __init__(
        self,
        model: str | Path,
        *,
        pooling: Pooling = "mean",
        output_dim: int | None = 64,
        tuning: Tuning | None = None,
        gradient_checkpointing: bool = False,
        torch_dtype: str = "float32",
        on_bad_image: OnBadImage = "raise",
        features: int = 0,
    ) -> None:
        if pooling not in get_args(Pooling):
            raise ConfigError(f"`pooling` must be one of {', '.join(get_args(Pooling))}, but got {pooling!r}.")
        pools = pooling == "pooler"
        network, processor = load_pretrained("vision", model, torch_dtype, pooler=pools)
        pooler = getattr(network, "pooler", None)
        super().__init__(
            network,
            processor,
            towers={"vision": network},
            unused=[] if pools or not isinstance(pooler, nn.Module) else list(pooler.parameters()),
            hidden_dim=_width(network, processor, pooling),
            output_dim=output_dim,
            tuning=tuning or Tuning(),
            gradient_checkpointing=gradient_checkpointing,
            on_bad_image=on_bad_image,
            features=features,
        )
        self.pooling: Pooling = pooling

    @override
    @staticmethod
    def make_tiny(folder: Path, texts: Sequence[str]) -> Path:
        return make_tiny_vision(folder)

    @override
    def process(self, items: ItemTable) -> Iterator[Mapping[str, Any]]:
        for path in items.images:
            yield self.processor(images=[load_image(path, on_error=self.on_bad_image)], return_tensors="np")

    @override
    def pooled(self, inputs: dict[str, Tensor]) -> Tensor:
        return _pool(self.model, inputs, self.pooling)


def _pool(model: Any, inputs: dict[str, Tensor], pooling: Pooling) -> Tensor:
    out = model(**inputs, return_dict=True)
    if pooling == "pooler":
        own: Tensor | None = getattr(out, "pooler_output", None)
        if own is None:
            raise ConfigError(f"{type(model).__name__} pools nothing itself; use pooling=mean.")
        return own.flatten(1)  # of convolutions [B, D, 1, 1]
    states: Tensor = out.last_hidden_state
    if states.ndim == 4:  # of convolutions [B, D, H, W]
        if pooling == "cls":
            raise ConfigError(f"{type(model).__name__} has no first token; use pooling=mean.")
        states = states.flatten(2).transpose(1, 2)
    return states[:, 0] if pooling == "cls" else states.mean(dim=1)


@torch.no_grad()
def _width(model: Any, processor: Any, pooling: Pooling) -> int:
    """Return the dimension of what pooling gives, read off one grey image: a pooling that there is not is found now."""
    grey = processor(images=[load_image(None)], return_tensors="pt")
    inputs = {name: value.to(model.dtype) if value.is_floating_point() else value for name, value in grey.items()}
    return _pool(model.eval(), inputs, pooling).shape[1]
