"""Encoders with a tower for images and one for texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import normalize
from typing_extensions import override

from lis_lightning.align.data.items import ItemTable, OnBadImage, load_image
from lis_lightning.align.models.loading import load_pretrained
from lis_lightning.align.models.pretrained import PretrainedEncoder
from lis_lightning.align.models.prompts import check_prompt, longest_sequence, shorten
from lis_lightning.align.models.tiny_towers import make_tiny_dual
from lis_lightning.align.models.tuning import Tuning
from lis_lightning.errors import ConfigError

Fusion = Literal["mean", "concat"]


class DualEncoder(PretrainedEncoder):
    """A model with an image tower and a text tower, and a head over their embeddings, fused.

    Any model that `AutoModel` loads with `get_image_features` and `get_text_features`: CLIP, SigLIP, ALIGN. The
    embeddings are scaled to unit length before they are fused. An item without an image is shown plain grey.

    Args:
        model: A hub id, or a folder written by `save_pretrained` with the processor beside it.
        prompt: ``{text}`` is the item's text, as in ``"a photo of {text}"``.
        fusion: "mean" of the two embeddings, which share a space, or "concat" to let the head weigh them.
        output_dim: Dimension of the projection, whose outputs are standardised; None for the fused embedding itself.
        max_text_tokens: Longer texts are cut, before they are put into the prompt; CLIP reads 77 tokens at most, SigLIP
            64, and what is longer with its prompt is cut to that.
        tuning: What is trained; default: all. Projections into the shared space belong to no tower.
        gradient_checkpointing: Recompute activations in the backward pass: less memory, a third more time.
        torch_dtype: Of the model's weights, "float32" or "bfloat16"; head and adapters stay in float32.
        on_bad_image: "raise", or "blank" to show plain grey for an image that cannot be read.
        features: How many precomputed features of each item are joined, before the head; 0 for none.

    Raises:
        ConfigError: If the model cannot be loaded or has not both towers, or an option is unknown.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        prompt: str = "{text}",
        fusion: Fusion = "concat",
        output_dim: int | None = 64,
        max_text_tokens: int = 64,
        tuning: Tuning | None = None,
        gradient_checkpointing: bool = False,
        torch_dtype: str = "float32",
        on_bad_image: OnBadImage = "raise",
        features: int = 0,
    ) -> None:
        check_prompt(prompt, max_text_tokens)
        if fusion not in get_args(Fusion):
            raise ConfigError(f"`fusion` must be one of {', '.join(get_args(Fusion))}, but got {fusion!r}.")
        network, processor = load_pretrained("dual", model, torch_dtype)
        config = network.config
        width = int(getattr(config, "projection_dim", None) or config.vision_config.hidden_size)
        used_elsewhere = [getattr(network, name, None) for name in ("logit_scale", "logit_bias", "temperature")]
        super().__init__(
            network,
            processor,
            towers={"language": network.text_model, "vision": network.vision_model},
            unused=[parameter for parameter in used_elsewhere if parameter is not None],
            hidden_dim=2 * width if fusion == "concat" else width,
            output_dim=output_dim,
            tuning=tuning or Tuning(),
            gradient_checkpointing=gradient_checkpointing,
            on_bad_image=on_bad_image,
            features=features,
        )
        self.prompt = prompt
        self.fusion: Fusion = fusion
        self.max_text_tokens = max_text_tokens
        # SigLIP has learned texts padded to one length and without a mask, and reads the last position.
        self._padded = "attention_mask" not in processor.tokenizer.model_input_names or "siglip" in config.model_type

    @override
    @staticmethod
    def make_tiny(folder: Path, texts: Sequence[str]) -> Path:
        return make_tiny_dual(folder, texts)

    @override
    def settings(self) -> list[Any]:
        return [*super().settings(), self.prompt, self.max_text_tokens]

    @override
    def process(self, items: ItemTable) -> Iterator[Mapping[str, Any]]:
        tokenizer = self.processor.tokenizer
        limit = longest_sequence(tokenizer, self.model.config.text_config)
        for text, path in zip(items.texts, items.images, strict=True):
            prompt = self.prompt.replace("{text}", shorten(tokenizer, text, self.max_text_tokens))
            yield self.processor(
                images=[load_image(path, on_error=self.on_bad_image)],
                text=[prompt],
                padding="max_length" if self._padded else False,
                truncation=limit is not None,
                max_length=limit,
                return_tensors="np",
            )

    @override
    def pooled(self, inputs: dict[str, Tensor]) -> Tensor:
        texts = {name: inputs[name] for name in ("input_ids", "attention_mask", "token_type_ids") if name in inputs}
        if self._padded:
            del texts["attention_mask"]
        images = {name: value for name, value in inputs.items() if name not in {*texts, "attention_mask"}}
        image = self.model.get_image_features(**images).pooler_output
        text = self.model.get_text_features(**texts).pooler_output
        both = [normalize(part.float(), dim=-1) for part in (image, text)]
        return torch.cat(both, dim=-1) if self.fusion == "concat" else (both[0] + both[1]) / 2
