"""Encoders of texts alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from torch import Tensor, nn
from typing_extensions import override

from lis_lightning.align.data.items import ItemTable
from lis_lightning.align.models.loading import load_pretrained
from lis_lightning.align.models.pretrained import PretrainedEncoder
from lis_lightning.align.models.prompts import check_prompt, longest_sequence, shorten
from lis_lightning.align.models.tiny_towers import make_tiny_text
from lis_lightning.align.models.tuning import Tuning
from lis_lightning.errors import ConfigError
from lis_lightning.functional.pooling import pool

Pooling = Literal["mean", "cls", "last"]


class TextEncoder(PretrainedEncoder):
    """A text model with a projection head over its pooled last hidden states.

    Any model of texts that `AutoModel` loads: BERT and its kin (MiniLM, E5, BGE), T5's encoder, decoders like Qwen.

    Args:
        model: A hub id, or a folder written by `save_pretrained` with the tokenizer beside it.
        prompt: ``{text}`` is the item's text, as in ``"passage: {text}"``.
        pooling: "mean" over all tokens, "cls" the first token, or "last" the last one, for decoders.
        output_dim: Dimension of the projection, whose outputs are standardised; None for the pooled state itself.
        max_text_tokens: Longer texts are cut, before they are put into the prompt.
        tuning: What is trained; default: all.
        gradient_checkpointing: Recompute activations in the backward pass: less memory, a third more time.
        torch_dtype: Of the model's weights, "float32" or "bfloat16"; head and adapters stay in float32.
        features: How many precomputed features of each item are joined, before the head; 0 for none.

    Raises:
        ConfigError: If the model cannot be loaded or is no text model, or an option is unknown.
    """

    reads_images = False

    def __init__(
        self,
        model: str | Path,
        *,
        prompt: str = "{text}",
        pooling: Pooling = "mean",
        output_dim: int | None = 64,
        max_text_tokens: int = 128,
        tuning: Tuning | None = None,
        gradient_checkpointing: bool = False,
        torch_dtype: str = "float32",
        features: int = 0,
    ) -> None:
        check_prompt(prompt, max_text_tokens)
        if pooling not in get_args(Pooling):
            raise ConfigError(f"`pooling` must be one of {', '.join(get_args(Pooling))}, but got {pooling!r}.")
        network, tokenizer = load_pretrained("text", model, torch_dtype, pooler=False)
        pooler = getattr(network, "pooler", None)
        super().__init__(
            network,
            tokenizer,
            towers={"language": network},
            unused=list(pooler.parameters()) if isinstance(pooler, nn.Module) else [],
            hidden_dim=int(network.config.hidden_size),
            output_dim=output_dim,
            tuning=tuning or Tuning(),
            gradient_checkpointing=gradient_checkpointing,
            features=features,
        )
        self.prompt = prompt
        self.pooling: Pooling = pooling
        self.max_text_tokens = max_text_tokens

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
            if not self.processor(prompt)["input_ids"]:  # an empty text, where nothing marks beginning or end
                prompt = self.processor.eos_token or self.processor.pad_token
            yield self.processor([prompt], truncation=limit is not None, max_length=limit, return_tensors="np")

    @override
    def pooled(self, inputs: dict[str, Tensor]) -> Tensor:
        states: Tensor = self.model(**inputs, return_dict=True).last_hidden_state
        return pool(states, inputs["attention_mask"].bool(), self.pooling)
