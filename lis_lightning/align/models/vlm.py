"""Encoders that read image and text together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from torch import Tensor
from typing_extensions import override

from lis_lightning.align.data.items import ItemTable, OnBadImage, load_image
from lis_lightning.align.models.loading import load_pretrained
from lis_lightning.align.models.pretrained import PretrainedEncoder
from lis_lightning.align.models.prompts import check_prompt, image_token, render_prompt, shorten
from lis_lightning.align.models.tiny import make_tiny_vlm
from lis_lightning.align.models.tuning import Tuning
from lis_lightning.errors import ConfigError
from lis_lightning.functional.pooling import pool

Pooling = Literal["mean", "last"]


class VisionLanguageEncoder(PretrainedEncoder):
    """A multimodal LLM with a projection head over its pooled last hidden states.

    Any model that `AutoModelForImageTextToText` loads and that keeps its transformer in a base model (LLaVA, Idefics3,
    Qwen-VL, ...). The language-model head is not run. An item without an image is shown plain grey.

    Args:
        model: A hub id, or a folder written by `save_pretrained` with the processor beside it.
        prompt: What stands after the image; ``{text}`` is the item's text. Goes through the processor's chat template
            where it has one.
        pooling: "mean" over all tokens, or the "last" token, which has seen all others.
        output_dim: Dimension of the projection, whose outputs are standardised; None for the pooled state itself.
        max_text_tokens: Longer texts are cut, before the image's tokens are added.
        tuning: What is trained; default: all. What joins the towers belongs to neither.
        gradient_checkpointing: Recompute activations in the backward pass: less memory, a third more time.
        torch_dtype: Of the model's weights, "float32" or "bfloat16"; head and adapters stay in float32.
        on_bad_image: "raise", or "blank" to show plain grey for an image that cannot be read.
        features: How many precomputed features of each item are joined, before the head; 0 for none.

    Raises:
        ConfigError: If the model cannot be loaded or is of another kind, or an option is unknown.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        prompt: str = "{text}",
        pooling: Pooling = "mean",
        output_dim: int | None = 64,
        max_text_tokens: int = 64,
        tuning: Tuning | None = None,
        gradient_checkpointing: bool = False,
        torch_dtype: str = "float32",
        on_bad_image: OnBadImage = "raise",
        features: int = 0,
    ) -> None:
        check_prompt(prompt, max_text_tokens)
        if pooling not in get_args(Pooling):
            raise ConfigError(f"`pooling` must be one of {', '.join(get_args(Pooling))}, but got {pooling!r}.")
        network, processor = load_pretrained("vlm", model, torch_dtype)
        base = network.base_model
        if base is network:
            raise ConfigError(
                f"The model {model} ({type(network).__name__}) keeps no base model whose states can be pooled."
            )
        run = set(base.parameters())
        super().__init__(
            network,
            processor,
            towers={"language": base.get_decoder(), "vision": base.get_encoder("image")},
            unused=[parameter for parameter in network.parameters() if parameter not in run],
            hidden_dim=int(network.config.get_text_config().hidden_size),
            output_dim=output_dim,
            tuning=tuning or Tuning(),
            gradient_checkpointing=gradient_checkpointing,
            on_bad_image=on_bad_image,
            features=features,
        )
        self.prompt = prompt
        self.pooling: Pooling = pooling
        self.max_text_tokens = max_text_tokens

    @override
    @staticmethod
    def make_tiny(folder: Path, texts: Sequence[str]) -> Path:
        return make_tiny_vlm(folder, texts)

    @override
    def settings(self) -> list[Any]:
        return [*super().settings(), self.prompt, self.max_text_tokens]

    @override
    def process(self, items: ItemTable) -> Iterator[Mapping[str, Any]]:
        reserved = image_token(self.processor)
        for text, path in zip(items.texts, items.images, strict=True):
            short = shorten(self.processor.tokenizer, text, self.max_text_tokens, forbidden=[reserved])
            prompt, add_special_tokens = render_prompt(self.processor, self.prompt.replace("{text}", short))
            yield self.processor(
                images=[load_image(path, on_error=self.on_bad_image)],
                text=[prompt],
                return_tensors="np",
                add_special_tokens=add_special_tokens,
            )

    @override
    def pooled(self, inputs: dict[str, Tensor]) -> Tensor:
        states: Tensor = self.model.base_model(**inputs, use_cache=False, return_dict=True).last_hidden_state
        return pool(states, inputs["attention_mask"].bool(), self.pooling)
