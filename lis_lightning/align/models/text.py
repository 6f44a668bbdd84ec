"""Encoders of texts alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast, get_args

from torch import Tensor, nn
from typing_extensions import override

from lis_lightning.align.data.item_table import ItemTable
from lis_lightning.align.models.exporting import save_model, save_sentence_modules
from lis_lightning.align.models.loading import load_pretrained, loading_options
from lis_lightning.align.models.pretrained import PretrainedEncoder
from lis_lightning.align.models.prompts import check_prompt, longest_sequence, shorten
from lis_lightning.align.models.sentence_modules import read_sentence_modules
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
        prompt: ``{text}`` is the item's text, as in ``"passage: {text}"``. None: the default prompt of a model of
            sentence-transformers, if it has one, before the text.
        pooling: "mean" over all tokens, "cls" the first token, or "last" the last one, for decoders. None: as the model
            pools that was saved by sentence-transformers (`modules.json`), else "mean". Dense layers and the scaling to
            unit length that such a model has after it are applied in any case.
        max_text_tokens: Longer texts are cut, before they are put into the prompt.
        **options: `output_dim`, `tuning`, `gradient_checkpointing`, `features`, and those of
            :func:`~lis_lightning.align.models.load_pretrained`, as of
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
        prompt: str | None = None,
        pooling: Pooling | None = None,
        max_text_tokens: int = 128,
        **options: Any,
    ) -> None:
        check_prompt(prompt or "{text}", max_text_tokens)
        if pooling is not None and pooling not in get_args(Pooling):
            raise ConfigError(f"`pooling` must be one of {', '.join(get_args(Pooling))}, but got {pooling!r}.")
        network, tokenizer = load_pretrained(type(self), model, pooler=False, **loading_options(options))
        sentence = read_sentence_modules(model)
        prompt = prompt or f"{sentence.prompt}{{text}}"
        pooling = cast(Pooling, sentence.pooling_of(pooling, prompt))
        pooler = getattr(network, "pooler", None)
        super().__init__(
            network,
            tokenizer,
            towers={"language": network},
            hidden_dim=sentence.output_dim or int(network.config.hidden_size),
            unused=list(pooler.parameters()) if isinstance(pooler, nn.Module) else [],
            **options,
        )
        # The dense layers come after the last layer of the model, and are tuned like it.
        self.sentence_layers = nn.Sequential(*sentence.layers)
        self.sentence_layers.requires_grad_(self.tuning.mode in {"full", "last"})
        self.prompt = prompt
        self.pooling: Pooling = pooling
        self.max_text_tokens = max_text_tokens
        self.lower_case = sentence.lower_case
        limits = (_num_positions(network), longest_sequence(tokenizer, network.config), sentence.max_tokens)
        self.max_tokens = min((limit for limit in limits if limit), default=None)

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
    def save_pretrained(self, folder: str | Path, *, merge: bool = False, sentence_transformers: bool = False) -> None:
        """Write the encoder to a folder; see :meth:`PretrainedEncoder.save_pretrained`.

        Args:
            folder: Made if it does not exist.
            merge: Whether adapters are added to the weights of the model.
            sentence_transformers: Write a folder that ``SentenceTransformer(folder)`` and ``TextEncoder(folder,
                output_dim=None)`` read, with the head as its last dense layer and adapters merged.

        Raises:
            ConfigError: If adapters would be merged into weights of 4 bits, or if the layout of sentence-transformers
                cannot express what the encoder does.
        """
        path = Path(folder).expanduser()
        if sentence_transformers:
            save_model(self, path, merge=True)
        else:
            # The prompt and the pooling that a folder of sentence-transformers gave.
            self.arguments |= {"prompt": self.prompt, "pooling": self.pooling}
            super().save_pretrained(path, merge=merge)
        save_sentence_modules(self, path, whole=sentence_transformers)

    @override
    def settings(self) -> list[Any]:
        return [self.prompt, self.max_text_tokens, self.max_tokens, self.lower_case]

    @override
    def backbone_parameters(self) -> list[nn.Parameter]:
        return [*super().backbone_parameters(), *self.sentence_layers.parameters()]

    @override
    def process(self, items: ItemTable) -> Iterator[Mapping[str, Any]]:
        limit = self.max_tokens
        for item_text in items.texts:
            text = item_text.lower() if self.lower_case else item_text
            prompt = self.prompt.replace("{text}", shorten(self.processor, text, self.max_text_tokens))
            if not self.processor(prompt)["input_ids"]:  # an empty text, and a tokenizer without begin and end tokens
                prompt = self.processor.eos_token or self.processor.pad_token
            yield self.processor([prompt], truncation=limit is not None, max_length=limit, return_tensors="np")

    @override
    def pooled(self, inputs: dict[str, Tensor]) -> Tensor:
        states: Tensor = self.model(**inputs, return_dict=True).last_hidden_state
        vectors: Tensor = pool(states, inputs["attention_mask"].bool(), self.pooling)
        if not len(self.sentence_layers):
            return vectors
        projected: Tensor = self.sentence_layers(vectors.float())
        return projected


def _num_positions(network: nn.Module) -> int | None:
    """Return how many positions a model has embeddings for, if it counts them from its padding token, as RoBERTa does.

    Its configuration counts the two rows before the first position as well.
    """
    for path, part in network.named_modules():
        if path.endswith("position_embeddings") and isinstance(part, nn.Embedding) and part.padding_idx is not None:
            return part.num_embeddings - part.padding_idx - 1
    return None
