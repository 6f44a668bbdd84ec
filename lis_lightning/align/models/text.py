"""Encoders of texts alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from torch import Tensor, nn
from typing_extensions import override

from lis_lightning.align.data.item_table import ItemTable
from lis_lightning.align.models.loading import load_pretrained
from lis_lightning.align.models.pretrained import PretrainedEncoder
from lis_lightning.align.models.prompts import check_prompt, longest_sequence, shorten
from lis_lightning.align.models.tiny import make_tiny_text
from lis_lightning.errors import ConfigError
from lis_lightning.functional.pooling import pool

Pooling = Literal["mean", "cls", "last"]


class TextEncoder(PretrainedEncoder):
    """A text model with a projection head over its pooled last hidden states.

    Reads any text model that `AutoModel` loads: BERT and its relatives (MiniLM, E5, BGE), the encoder of T5, decoders
    such as Qwen.

    Args:
        model: A hub id, or a folder written by `save_pretrained` that also has the tokenizer.
        prompt: ``{text}`` is the item's text, as in ``"passage: {text}"``.
        pooling: "mean" over all tokens, "cls" the first token, or "last" the last one, for decoders.
        max_text_tokens: Longer texts are cut, before they are put into the prompt.
        torch_dtype: Of the model's weights, "float32", or for the modes lora and head "bfloat16"; head and adapters
            stay in float32.
        **options: `output_dim`, `tuning`, `gradient_checkpointing` and `features`, as of
            :class:`~lis_lightning.align.models.PretrainedEncoder`.

    Raises:
        ConfigError: If the model cannot be loaded or is no text model, or an option is unknown.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> items = ItemTable(np.array([7, 8]), ("red cup", "blue mug"), (None, None))
        >>> folder = tempfile.mkdtemp()
        >>> encoder = TextEncoder.from_items(items, cache_dir=folder, output_dim=8)  # a tiny model
        >>> encoder(next(iter(encoder.loader(encoder.prepare(items, folder))))).shape
        torch.Size([2, 8])
    """

    kind = "text"
    accepts = "texts"
    processor_class = "AutoTokenizer"
    reads_images = False

    def __init__(
        self,
        model: str | Path,
        *,
        prompt: str = "{text}",
        pooling: Pooling = "mean",
        max_text_tokens: int = 128,
        torch_dtype: str = "float32",
        **options: Any,
    ) -> None:
        check_prompt(prompt, max_text_tokens)
        if pooling not in get_args(Pooling):
            raise ConfigError(f"`pooling` must be one of {', '.join(get_args(Pooling))}, but got {pooling!r}.")
        network, tokenizer = load_pretrained(type(self), model, torch_dtype, pooler=False)
        pooler = getattr(network, "pooler", None)
        super().__init__(
            network,
            tokenizer,
            towers={"language": network},
            hidden_dim=int(network.config.hidden_size),
            unused=list(pooler.parameters()) if isinstance(pooler, nn.Module) else [],
            **options,
        )
        self.prompt = prompt
        self.pooling: Pooling = pooling
        self.max_text_tokens = max_text_tokens

    @override
    @classmethod
    def auto_class_for(cls, config: Any) -> str:
        # Of an encoder-decoder (T5), only the encoder.
        return "AutoModelForTextEncoding" if config.is_encoder_decoder else cls.auto_class

    @override
    @staticmethod
    def make_tiny(folder: Path, texts: Sequence[str]) -> Path:
        return make_tiny_text(folder, texts)

    @override
    def settings(self) -> list[Any]:
        return [self.prompt, self.max_text_tokens]

    @override
    def process(self, items: ItemTable) -> Iterator[Mapping[str, Any]]:
        limit = longest_sequence(self.processor, self.model.config)
        for text in items.texts:
            prompt = self.prompt.replace("{text}", shorten(self.processor, text, self.max_text_tokens))
            if not self.processor(prompt)["input_ids"]:  # an empty text, and a tokenizer without begin and end tokens
                prompt = self.processor.eos_token or self.processor.pad_token
            yield self.processor([prompt], truncation=limit is not None, max_length=limit, return_tensors="np")

    @override
    def pooled(self, inputs: dict[str, Tensor]) -> Tensor:
        states: Tensor = self.model(**inputs, return_dict=True).last_hidden_state
        return pool(states, inputs["attention_mask"].bool(), self.pooling)
