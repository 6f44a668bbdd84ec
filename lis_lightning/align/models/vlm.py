"""Encoders that read image and text as one sequence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from typing_extensions import override

from lis_lightning.align.data.images import OnBadImage, load_image
from lis_lightning.align.data.item_table import ItemTable
from lis_lightning.align.models.hugging_face import hugging_face
from lis_lightning.align.models.item_images import check_max_images, process_images
from lis_lightning.align.models.loading import load_pretrained, loading_options
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
    Idefics3, Qwen-VL, ...). The language-model head is not run. All images of an item stand before its text; an item
    without an image is its text alone, or is shown as plain grey to a model whose processor needs an image.

    Args:
        model: A hub id, or a folder written by `save_pretrained` that also has the processor.
        prompt: Text after the image; ``{text}`` is the item's text. It goes through the processor's chat template, if
            there is one.
        pooling: "mean" over the tokens, or the "last" one, which attends to all others: the end of the user's turn, or
            the last token of the generation prompt.
        pooled_tokens: Which tokens are pooled: "all"; "image", those that stand for patches, as most tokens of an item
            do (all of an item without an image); or "text", all others.
        instruction: Message of the system, for embedding models that were trained with one; None for none.
        generation_prompt: Whether the beginning of an answer follows the item, as for models trained to embed an item
            in the state that would begin the answer (Qwen3-VL-Embedding, GME), with pooling "last".
        max_text_tokens: Longer texts are cut, before the image's tokens are added.
        on_bad_image: "raise", or "blank" to read the text alone of an item with an image that cannot be processed.
        max_images: The most images that are read of an item; of more, such as the frames of a video, an even selection.
        processor: Options of the image processor, such as ``{"max_pixels": 401408}`` of Qwen-VL or
            ``{"do_image_splitting": False}`` of Idefics3; None for those of the model.
        **options: `output_dim`, `tuning`, `gradient_checkpointing`, `features`, `store`, and those of
            :func:`~lis_lightning.align.models.load_pretrained`, as of
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
        on_bad_image: OnBadImage = "raise",
        max_images: int = 8,
        processor: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        check_prompt(prompt, max_text_tokens)
        check_max_images(max_images)
        if pooling not in get_args(Pooling):
            raise ConfigError(f"`pooling` must be one of {', '.join(get_args(Pooling))}, but got {pooling!r}.")
        if pooled_tokens not in get_args(PooledTokens):
            raise ConfigError(
                f"`pooled_tokens` must be one of {', '.join(get_args(PooledTokens))}, but got {pooled_tokens!r}."
            )
        network, loaded = load_pretrained(type(self), model, **loading_options(options))
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
        self.max_images = max_images

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
        options: list[Any] = [self.prompt, self.max_text_tokens, self.max_images]
        # Beyond these, what the chat template makes of a prompt: part of the cache's key only where there is one.
        template = [self.instruction, self.generation_prompt]
        return options + (template if getattr(self.processor, "chat_template", None) else [])

    @override
    def process(self, items: ItemTable) -> Iterator[Mapping[str, Any]]:
        reserved = image_token(self.processor)
        for text, image in zip(items.texts, items.images, strict=True):
            short = shorten(self.processor.tokenizer, text, self.max_text_tokens, forbidden=[reserved])
            process = partial(self._processed_item, self.prompt.replace("{text}", short))
            yield process_images(image, process, on_error=self.on_bad_image, max_images=self.max_images, grey=False)

    def _processed_item(self, prompt: str, images: list[Any]) -> Mapping[str, Any]:
        """Return what the processor makes of the images of an item and the prompt after them."""
        try:
            return self._rendered(prompt, images)
        except (ValueError, TypeError):
            if images:
                raise
        # Some processors take no text without an image, such as that of PaliGemma.
        return self._rendered(prompt, [load_image(None)])

    def _rendered(self, prompt: str, images: list[Any]) -> Mapping[str, Any]:
        rendered, add_special_tokens = render_prompt(
            self.processor,
            prompt,
            num_images=len(images),
            instruction=self.instruction,
            generation_prompt=self.generation_prompt,
        )
        return self._processed(images, text=[rendered], add_special_tokens=add_special_tokens)

    @cached_property
    def _row_fields(self) -> set[str]:
        """Names of the fields in which an item without an image needs a row, since others have one for all images."""
        fields = self._processed_item("", [load_image(None)] * 2)
        return {name for name, value in fields.items() if len(value) == 1}

    @override
    def _stacked(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        # Items without an image lack fields that others have, and get them with no images in them.
        fields = {name: value for row in rows for name, value in row.items()}
        empty = {name: self._no_images(name, value) for name, value in fields.items() if name != "item_id"}
        return super()._stacked([{**empty, **row} for row in rows])

    def _no_images(self, name: str, value: Tensor) -> Tensor:
        """Return an image field of an item without images, given that of another item."""
        if name in self._row_fields:
            return value.new_zeros((1, 0, *value.shape[2:]))
        return value.new_zeros((0, *value.shape[1:]))

    @override
    def pooled(self, inputs: dict[str, Tensor]) -> Tensor:
        states = self._states(inputs)
        if self.training and torch.distributed.is_initialized() and "pixel_values" not in inputs:
            # In DDP every process has to use all trained weights, also one whose batch has no images.
            states = states + 0 * self._states(self._grey(states.device)).sum()
        real = inputs["attention_mask"].bool()
        if states.shape[:2] != real.shape:
            raise ConfigError(
                f"{type(self.model).__name__} gives {states.shape[1]} states for {real.shape[1]} tokens: its patches "
                "stand where no token is, so it is not known which states to pool. Take another model."
            )
        if self.pooled_tokens != "all":
            is_patch = inputs["input_ids"] == self._patch_token
            wanted = is_patch if self.pooled_tokens == "image" else ~is_patch
            real &= wanted | ~(real & wanted).any(dim=1, keepdim=True)
        return pool(states, real, self.pooling)

    @property
    def _patch_token(self) -> int:
        """The token that stands for a patch; that in the prompt, of a whole image, may be another one (Aya, Ovis)."""
        config = self.model.config
        ids = (getattr(config, name, None) for name in ("image_token_id", "image_token_index"))
        token = next((number for number in ids if number is not None), None)
        if token is None:
            token = self.processor.tokenizer.convert_tokens_to_ids(image_token(self.processor))
        return int(token)

    def _states(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the last hidden states of a batch, [B, length, hidden_dim]."""
        states: Tensor = self.model.base_model(**inputs, use_cache=False, return_dict=True).last_hidden_state
        return states

    def _grey(self, device: torch.device) -> dict[str, Tensor]:
        """Return the inputs of an item with a plain grey image and no text."""
        fields = self._processed_item("", [load_image(None)])
        return self._inputs({name: torch.as_tensor(value, device=device) for name, value in fields.items()})
