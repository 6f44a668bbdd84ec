"""Encoders of images alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from typing_extensions import override

from lis_lightning.align.data.images import OnBadImage, load_image
from lis_lightning.align.data.item_table import ItemTable
from lis_lightning.align.models.item_images import check_max_images, mean_of_images, process_images
from lis_lightning.align.models.loading import load_pretrained, loading_options
from lis_lightning.align.models.pretrained import PretrainedEncoder, to_dtype
from lis_lightning.align.models.processors import configured
from lis_lightning.align.models.tiny import make_tiny_vision
from lis_lightning.errors import ConfigError
from lis_lightning.functional.pooling import pool

Pooling = Literal["mean", "cls", "pooler"]


class VisionEncoder(PretrainedEncoder):
    """An image model with a projection head over its pooled last hidden states.

    Reads any image model that `AutoModel` loads: ViT, DINOv2, the vision tower of a CLIP or SigLIP saved separately,
    ConvNeXt, ResNet. An item without an image is shown as plain grey; of several images the mean is taken. Its text is
    not read.

    Args:
        model: A hub id, or a folder written by `save_pretrained` that also has the image processor.
        pooling: "mean" over all patches (without first token, registers and padding), "cls" the first token, or
            "pooler" the model's own pooling layer.
        on_bad_image: "raise", or "blank" to use plain grey for an image that cannot be read or processed.
        max_images: The most images that are read of an item; of more, such as the frames of a video, an even selection.
        processor: Options of the image processor, such as ``{"max_pixels": 401408}`` of Qwen-VL or
            ``{"do_image_splitting": False}`` of Idefics3; None for those of the model.
        **options: `output_dim`, `tuning`, `gradient_checkpointing`, `features`, `store`, and those of
            :func:`~lis_lightning.align.models.load_pretrained`, as of
            :class:`~lis_lightning.align.models.PretrainedEncoder`.

    Raises:
        ConfigError: If the model cannot be loaded or is no image model, or an option is unknown or does not fit it.

    Example:
        >>> import tempfile
        >>> encoder = VisionEncoder(VisionEncoder.make_tiny(Path(tempfile.mkdtemp()), texts=()), output_dim=8)
        >>> encoder.eval()({"pixel_values": torch.zeros(2, 3, 48, 48)}).shape
        torch.Size([2, 8])
    """

    kind = "vision"
    averages_images = True
    accepts = "images"
    processor_class = "AutoImageProcessor"
    reads_texts = False

    def __init__(
        self,
        model: str | Path,
        *,
        pooling: Pooling = "mean",
        on_bad_image: OnBadImage = "raise",
        max_images: int = 8,
        processor: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        if pooling not in get_args(Pooling):
            raise ConfigError(f"`pooling` must be one of {', '.join(get_args(Pooling))}, but got {pooling!r}.")
        check_max_images(max_images)
        own_pooler = pooling == "pooler"
        network, loaded = load_pretrained(type(self), model, pooler=own_pooler, **loading_options(options))
        loaded = configured(loaded, processor)
        pooler = getattr(network, "pooler", None)
        super().__init__(
            network,
            loaded,
            towers={"vision": network},
            hidden_dim=_pooled_dim(network, loaded, pooling),
            unused=[] if own_pooler or not isinstance(pooler, nn.Module) else list(pooler.parameters()),
            **options,
        )
        self.pooling: Pooling = pooling
        self.on_bad_image = on_bad_image
        self.max_images = max_images

    @override
    @staticmethod
    def make_tiny(folder: Path, texts: Sequence[str]) -> Path:
        return make_tiny_vision(folder)

    @override
    def settings(self) -> list[Any]:
        return [self.max_images]

    @override
    def process(self, items: ItemTable) -> Iterator[Mapping[str, Any]]:
        for image in items.images:
            yield process_images(image, self._processed, on_error=self.on_bad_image, max_images=self.max_images)

    @override
    def pooled(self, inputs: dict[str, Tensor]) -> Tensor:
        counts = inputs.pop("num_images", None)
        return mean_of_images(_pool(self.model, inputs, self.pooling), counts)


def _pool(model: Any, inputs: dict[str, Tensor], pooling: Pooling) -> Tensor:
    out = model(**inputs, return_dict=True)
    if pooling == "pooler":
        pooler_output: Tensor | None = getattr(out, "pooler_output", None)
        if pooler_output is None:
            raise ConfigError(f"{type(model).__name__} pools nothing itself; use pooling=mean.")
        return pooler_output.flatten(1)  # [B, D, 1, 1] for convolutional models
    states: Tensor = out.last_hidden_state
    if states.ndim == 4:  # [B, D, H, W] for convolutional models
        if pooling == "cls":
            raise ConfigError(f"{type(model).__name__} has no first token; use pooling=mean.")
        return states.flatten(2).mean(dim=2)
    num_before = _tokens_before_patches(model.config, inputs, states.shape[1])
    if pooling == "cls":
        if not num_before:
            raise ConfigError(f"{type(model).__name__} has no first token; use pooling=mean or pooler.")
        return states[:, 0]
    real = inputs.get("pixel_attention_mask")
    if real is not None and real.shape == states.shape[:2]:  # SigLIP2 pads the patches of an image
        return pool(states, real.bool(), "mean")
    return states[:, num_before:].mean(dim=1)


def _tokens_before_patches(config: Any, inputs: Mapping[str, Tensor], length: int) -> int:
    """Return how many of the positions are no patches: a first token, and registers (DINOv2, DINOv3)."""
    patch, pixels = getattr(config, "patch_size", None), inputs["pixel_values"]
    if isinstance(patch, Sequence) and len(set(patch)) == 1:
        patch = patch[0]
    if not isinstance(patch, int) or pixels.ndim != 4:
        return 0
    height, width = pixels.shape[-2:]
    # Swin and others merge patches, and have fewer positions than patches.
    return max(0, length - (height // patch) * (width // patch))


@torch.no_grad()
def _pooled_dim(model: Any, processor: Any, pooling: Pooling) -> int:
    """Return the dimension of the pooled vector of a grey image; raise now if the model cannot pool that way."""
    inputs = processor(images=[load_image(None)], return_tensors="pt")
    return _pool(model.eval(), to_dtype(inputs, model.dtype), pooling).shape[1]
