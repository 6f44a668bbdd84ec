"""Encoders with one tower for images and one for texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import normalize
from typing_extensions import override

from lis_lightning.align.data.images import OnBadImage
from lis_lightning.align.data.item_table import ItemTable
from lis_lightning.align.models.item_images import check_max_images, mean_of_images, process_images
from lis_lightning.align.models.loading import load_pretrained, loading_options
from lis_lightning.align.models.pretrained import PretrainedEncoder, has_two_towers
from lis_lightning.align.models.processors import configured
from lis_lightning.align.models.prompts import check_prompt, longest_sequence, shorten
from lis_lightning.align.models.tiny import make_tiny_dual
from lis_lightning.errors import ConfigError

Fusion = Literal["mean", "concat"]


class DualEncoder(PretrainedEncoder):
    """A model with an image tower and a text tower, and a head over their fused embeddings.

    Reads any model that `AutoModel` loads with `get_image_features` and `get_text_features`: CLIP, SigLIP, ALIGN. The
    embeddings are scaled to unit length before they are fused. An item without an image is shown as plain grey; of
    several images the mean of the embeddings is taken.

    Args:
        model: A hub id, or a folder written by `save_pretrained` that also has the processor.
        prompt: ``{text}`` is the item's text, as in ``"a photo of {text}"``.
        fusion: "mean" of the two embeddings, which share a space, or "concat" to let the head weight them.
        max_text_tokens: Longer texts are cut, before they are put into the prompt; the prompt is then cut to the length
            that the model reads (CLIP 77 tokens, SigLIP 64).
        on_bad_image: "raise", or "blank" to use plain grey for an image that cannot be read or processed.
        max_images: The most images that are read of an item; of more, such as the frames of a video, an even selection.
        processor: Options of the image processor, such as ``{"max_pixels": 401408}`` of Qwen-VL or
            ``{"do_image_splitting": False}`` of Idefics3; None for those of the model.
        **options: `output_dim`, `tuning`, `gradient_checkpointing`, `features`, `store`, and those of
            :func:`~lis_lightning.align.models.load_pretrained`, as of
            :class:`~lis_lightning.align.models.PretrainedEncoder`. The projections into the shared space belong to no
            tower.

    Raises:
        ConfigError: If the model cannot be loaded or lacks a tower, or an option is unknown.

    Example:
        >>> import tempfile
        >>> folder = DualEncoder.make_tiny(Path(tempfile.mkdtemp()), texts=("red cup", "blue mug"))
        >>> DualEncoder(folder, fusion="concat", output_dim=None).output_dim  # two embeddings of 64
        128
    """

    kind = "dual"
    averages_images = True
    accepts = "images and texts apart"

    def __init__(
        self,
        model: str | Path,
        *,
        prompt: str = "{text}",
        fusion: Fusion = "concat",
        max_text_tokens: int = 64,
        on_bad_image: OnBadImage = "raise",
        max_images: int = 8,
        processor: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        check_prompt(prompt, max_text_tokens)
        check_max_images(max_images)
        if fusion not in get_args(Fusion):
            raise ConfigError(f"`fusion` must be one of {', '.join(get_args(Fusion))}, but got {fusion!r}.")
        network, loaded = load_pretrained(type(self), model, **loading_options(options))
        loaded = configured(loaded, processor)
        config = network.config
        embedding_dim = int(getattr(config, "projection_dim", None) or config.vision_config.hidden_size)
        of_the_loss = [getattr(network, name, None) for name in ("logit_scale", "logit_bias", "temperature")]
        num_embeddings = {"mean": 1, "concat": 2}[fusion]
        super().__init__(
            network,
            loaded,
            towers={"language": network.text_model, "vision": network.vision_model},
            hidden_dim=num_embeddings * embedding_dim,
            unused=[parameter for parameter in of_the_loss if parameter is not None],
            **options,
        )
        self.prompt = prompt
        self.fusion: Fusion = fusion
        self.max_text_tokens = max_text_tokens
        self.on_bad_image = on_bad_image
        self.max_images = max_images
        # SigLIP was trained with texts padded to one length and without a mask, and reads the last position.
        self._padded = "attention_mask" not in loaded.tokenizer.model_input_names or "siglip" in config.model_type

    @override
    @classmethod
    def can_read(cls, config: Any, network: Any) -> bool:
        return has_two_towers(network)

    @override
    @staticmethod
    def make_tiny(folder: Path, texts: Sequence[str]) -> Path:
        return make_tiny_dual(folder, texts)

    @override
    def settings(self) -> list[Any]:
        return [self.prompt, self.max_text_tokens, self.max_images]

    @override
    def process(self, items: ItemTable) -> Iterator[Mapping[str, Any]]:
        tokenizer = self.processor.tokenizer
        limit = longest_sequence(tokenizer, self.model.config.text_config)
        for text, image in zip(items.texts, items.images, strict=True):
            prompt = self.prompt.replace("{text}", shorten(tokenizer, text, self.max_text_tokens))
            process = partial(
                self._processed,
                text=[prompt],
                padding="max_length" if self._padded else False,
                truncation=limit is not None,
                max_length=limit,
            )
            yield process_images(image, process, on_error=self.on_bad_image, max_images=self.max_images)

    @override
    def pooled(self, inputs: dict[str, Tensor]) -> Tensor:
        counts = inputs.pop("num_images", None)
        texts = {name: inputs[name] for name in ("input_ids", "attention_mask", "token_type_ids") if name in inputs}
        if self._padded:
            del texts["attention_mask"]
        images = {name: value for name, value in inputs.items() if name not in {*texts, "attention_mask"}}
        image = self.model.get_image_features(**images).pooler_output
        text = self.model.get_text_features(**texts).pooler_output
        image, text = normalize(image.float(), dim=-1), normalize(text.float(), dim=-1)
        if counts is not None:
            image = normalize(mean_of_images(image, counts), dim=-1)
        return torch.cat([image, text], dim=-1) if self.fusion == "concat" else (image + text) / 2
