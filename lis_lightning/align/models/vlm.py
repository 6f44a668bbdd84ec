"""Encoders that read image and text as one sequence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from torch import Tensor
from typing_extensions import override

from lis_lightning.align.data.images import OnBadImage, load_image
from lis_lightning.align.data.item_table import ItemTable
from lis_lightning.align.models.hugging_face import hugging_face
from lis_lightning.align.models.loading import load_pretrained
from lis_lightning.align.models.pretrained import PretrainedEncoder
from lis_lightning.align.models.prompts import check_prompt, image_token, render_prompt, shorten
from lis_lightning.align.models.tiny import make_tiny_vlm
from lis_lightning.errors import ConfigError
from lis_lightning.functional.pooling import pool

Pooling = Literal["mean", "last"]


class VisionLanguageEncoder(PretrainedEncoder):
    """A multimodal LLM with a projection head over its pooled last hidden states.

    Reads any model that `AutoModelForImageTextToText` loads and that keeps its transformer in a base model (LLaVA,
    Idefics3, Qwen-VL, ...). The language-model head is not run. An item without an image is shown as plain grey.

    Args:
        model: A hub id, or a folder written by `save_pretrained` that also has the processor.
        prompt: Text after the image; ``{text}`` is the item's text. It goes through the processor's chat template, if
            there is one.
        pooling: "mean" over all tokens, or the "last" token, which attends to all others.
        max_text_tokens: Longer texts are cut, before the image's tokens are added.
        torch_dtype: Of the model's weights, "float32", or for the modes lora and head "bfloat16"; head and adapters
            stay in float32.
        on_bad_image: "raise", or "blank" to use plain grey for an image that cannot be read.
        **options: `output_dim`, `tuning`, `gradient_checkpointing` and `features`, as of
            :class:`~lis_lightning.align.models.PretrainedEncoder`. The connector between the towers belongs to
            neither.

    Raises:
        ConfigError: If the model cannot be loaded or is of another kind, or an option is unknown.

    Example:
        >>> import tempfile
        >>> folder = VisionLanguageEncoder.make_tiny(Path(tempfile.mkdtemp()), texts=("red cup", "blue mug"))
        >>> VisionLanguageEncoder(folder, pooling="last", output_dim=8).output_dim
        8
    """

    kind = "vlm"
    accepts = "images and texts as one sequence"
    auto_class = "AutoModelForImageTextToText"

    def __init__(
        self,
        model: str | Path,
        *,
        prompt: str = "{text}",
        pooling: Pooling = "mean",
        max_text_tokens: int = 64,
        torch_dtype: str = "float32",
        on_bad_image: OnBadImage = "raise",
        **options: Any,
    ) -> None:
        check_prompt(prompt, max_text_tokens)
        if pooling not in get_args(Pooling):
            raise ConfigError(f"`pooling` must be one of {', '.join(get_args(Pooling))}, but got {pooling!r}.")
        network, processor = load_pretrained(type(self), model, torch_dtype)
        base = network.base_model
        if base is network:
            raise ConfigError(
                f"The model {model} ({type(network).__name__}) keeps no base model whose states can be pooled."
            )
        used = set(base.parameters())
        super().__init__(
            network,
            processor,
            towers={"language": base.get_decoder(), "vision": base.get_encoder("image")},
            hidden_dim=int(network.config.get_text_config().hidden_size),
            unused=[parameter for parameter in network.parameters() if parameter not in used],
            **options,
        )
        self.prompt = prompt
        self.pooling: Pooling = pooling
        self.max_text_tokens = max_text_tokens
        self.on_bad_image = on_bad_image

    @override
    @classmethod
    def can_read(cls, config: Any, network: Any) -> bool:
        return type(config) in hugging_face().MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

    @override
    @staticmethod
    def make_tiny(folder: Path, texts: Sequence[str]) -> Path:
        return make_tiny_vlm(folder, texts)

    @override
    def settings(self) -> list[Any]:
        return [self.on_bad_image, self.prompt, self.max_text_tokens]

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
