"""Encoders that read image and text as one sequence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

from torch import Tensor
from typing_extensions import override

from lis_lightning.align.data.images import OnBadImage
from lis_lightning.align.data.item_table import ItemTable
from lis_lightning.align.models.hugging_face import hugging_face
from lis_lightning.align.models.item_images import process_image
from lis_lightning.align.models.loading import load_pretrained
from lis_lightning.align.models.pretrained import PretrainedEncoder
from lis_lightning.align.models.processors import configured
from lis_lightning.align.models.prompts import check_prompt, image_token, render_prompt, shorten
from lis_lightning.align.models.tiny import make_tiny_vlm
from lis_lightning.errors import ConfigError
from lis_lightning.functional.pooling import pool

Pooling = Literal["mean", "last"]
PooledTokens = Literal["all", "text", "image"]


class VisionLanguageEncoder(PretrainedEncoder):
    """A multimodal LLM with a projection head over its pooled last hidden states.

    Reads any model that `AutoModelForImageTextToText` loads and that keeps its transformer in a base model (LLaVA,
    Idefics3, Qwen-VL, ...). The language-model head is not run. An item without an image is shown as plain grey.

    Args:
        model: A hub id, or a folder written by `save_pretrained` that also has the processor.
        prompt: Text after the image; ``{text}`` is the item's text. It goes through the processor's chat template, if
            there is one.
        pooling: "mean" over the tokens, or the "last" one, which attends to all others: the end of the user's turn, or
            the last token of the generation prompt.
        pooled_tokens: Which tokens are pooled: "all"; "image", those that stand for patches, as most tokens of an item
            do; or "text", all others.
        instruction: Message of the system, for embedding models that were trained with one; None for none.
        generation_prompt: Whether the beginning of an answer follows the item, as for models trained to embed an item
            in the state that would begin the answer (Qwen3-VL-Embedding, GME), with pooling "last".
        max_text_tokens: Longer texts are cut, before the image's tokens are added.
        torch_dtype: Of the model's weights, "float32", or for the modes lora and head "bfloat16"; head and adapters
            stay in float32.
        on_bad_image: "raise", or "blank" to use plain grey for an image that cannot be read or processed.
        processor: Options of the image processor, such as ``{"max_pixels": 401408}`` of Qwen-VL or
            ``{"do_image_splitting": False}`` of Idefics3; None for those of the model.
        **options: `output_dim`, `tuning`, `gradient_checkpointing`, `features` and `store`, as of
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
        pooled_tokens: PooledTokens = "all",
        instruction: str | None = None,
        generation_prompt: bool = False,
        max_text_tokens: int = 64,
        torch_dtype: str = "float32",
        on_bad_image: OnBadImage = "raise",
        processor: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        check_prompt(prompt, max_text_tokens)
        if pooling not in get_args(Pooling):
            raise ConfigError(f"`pooling` must be one of {', '.join(get_args(Pooling))}, but got {pooling!r}.")
        if pooled_tokens not in get_args(PooledTokens):
            raise ConfigError(
                f"`pooled_tokens` must be one of {', '.join(get_args(PooledTokens))}, but got {pooled_tokens!r}."
            )
        network, loaded = load_pretrained(type(self), model, torch_dtype)
        loaded = configured(loaded, processor)
        base = network.base_model
        if network.config.is_encoder_decoder or network.config.get_text_config().is_encoder_decoder:
            raise ConfigError(
                f"The model {model} ({type(network).__name__}) is an encoder-decoder, whose last states are those of "
                "an answer and not of the item; take a multimodal model with a decoder alone."
            )
        if base is network:
            raise ConfigError(
                f"The model {model} ({type(network).__name__}) keeps no base model whose states can be pooled."
            )
        used = set(base.parameters())
        towers = {"language": base.get_decoder(), "vision": base.get_encoder("image")}
        # Where it finds no such part (Fuyu, GIT), transformers returns the whole model.
        towers = {name: tower for name, tower in towers.items() if tower not in {base, network}}
        super().__init__(
            network,
            loaded,
            towers=towers or {"language": base},
            hidden_dim=int(network.config.get_text_config().hidden_size),
            unused=[parameter for parameter in network.parameters() if parameter not in used],
            **options,
        )
        self.prompt = prompt
        self.pooling: Pooling = pooling
        self.pooled_tokens: PooledTokens = pooled_tokens
        self.instruction = instruction
        self.generation_prompt = generation_prompt
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
        options: list[Any] = [self.prompt, self.max_text_tokens]
        # Beyond these, what the chat template makes of a prompt: part of the cache's key only where there is one.
        template = [self.instruction, self.generation_prompt]
        return options + (template if getattr(self.processor, "chat_template", None) else [])

    @override
    def process(self, items: ItemTable) -> Iterator[Mapping[str, Any]]:
        reserved = image_token(self.processor)
        for text, path in zip(items.texts, items.images, strict=True):
            short = shorten(self.processor.tokenizer, text, self.max_text_tokens, forbidden=[reserved])
            prompt, add_special_tokens = render_prompt(
                self.processor,
                self.prompt.replace("{text}", short),
                instruction=self.instruction,
                generation_prompt=self.generation_prompt,
            )
            process = partial(self._processed, text=[prompt], add_special_tokens=add_special_tokens)
            yield process_image(path, process, on_error=self.on_bad_image)

    @override
    def pooled(self, inputs: dict[str, Tensor]) -> Tensor:
        states: Tensor = self.model.base_model(**inputs, use_cache=False, return_dict=True).last_hidden_state
        real = inputs["attention_mask"].bool()
        if self.pooled_tokens != "all":
            token = self.processor.tokenizer.convert_tokens_to_ids(image_token(self.processor))
            is_patch = inputs["input_ids"] == token
            real &= is_patch if self.pooled_tokens == "image" else ~is_patch
        return pool(states, real, self.pooling)
