"""Encoders: from an item's features, or its image and text, to the representation that is trained and scored."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from typing_extensions import override

from lis_lightning.align._prepare import pad_and_stack, prepare_items
from lis_lightning.align._tiny import make_tiny_vlm, quiet_transformers
from lis_lightning.align._vlm import load_vlm, processor_fingerprint, render_prompt, shorten
from lis_lightning.align.items import ItemTable, OnBadImage, load_image
from lis_lightning.errors import ConfigError, ItemError, ShapeError

TINY = "tiny"
_MOMENTUM = 0.3  # states move fast at first; the usual 0.1 lags behind them, and a snapshot would be off centre
Pooling = Literal["mean", "last"]
Freeze = Literal["none", "backbone"]


class ItemEncoder(nn.Module):
    """From item batches to representations; the part of the module that is trained and scored.

    Attributes:
        output_dim: Dimension of the representation.
    """

    output_dim: int

    def prepare(self, items: ItemTable, cache_dir: Path | str) -> Dataset[dict[str, Any]]:
        """Return the items as this encoder reads them, in the table's order, without padding.

        Args:
            items: The item table.
            cache_dir: Where processed items are kept from one run to the next.
        """
        raise NotImplementedError

    def collate(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Return a batch of prepared items; ``item_id`` is an int64 tensor, or a list where ids are text."""
        raise NotImplementedError

    @override
    def forward(self, batch: dict[str, Any]) -> Tensor:
        """Return the representations [B, output_dim] of a batch."""
        raise NotImplementedError

    def loader(self, items: Dataset[dict[str, Any]], *, batch_size: int = 128) -> DataLoader[dict[str, Any]]:
        """Return a loader of all prepared items in their order, which draws no global random number."""
        return DataLoader(items, batch_size=batch_size, collate_fn=self.collate, generator=torch.Generator())


class _FeatureRows(Dataset[dict[str, Any]]):
    def __init__(self, features: NDArray[np.float32], ids: NDArray[Any]) -> None:
        self.features = features
        self.ids = ids

    def __len__(self) -> int:
        return len(self.ids)

    @override
    def __getitem__(self, row: int) -> dict[str, Any]:
        return {"item_id": self.ids[row].item(), "features": torch.from_numpy(self.features[row])}


class FeatureEncoder(ItemEncoder):
    r"""A head over precomputed item features: :math:`W z + V\,\mathrm{gelu}(U z)` of the standardised features z.

    W begins as the principal components of the items and V as zero, so that the first snapshot shows what the
    features are worth as they come, and training departs from there.

    Args:
        input_dim: Dimension of the features.
        output_dim: Dimension of the representation, at most `input_dim`.
        hidden_dim: Width of the non-linear branch; 0 for a linear head.

    Raises:
        ConfigError: If a dimension is out of range.

    Example:
        >>> items = ItemTable(np.arange(6), ("",) * 6, (None,) * 6, np.eye(6, 4, dtype=np.float32))
        >>> encoder = FeatureEncoder.from_items(items, output_dim=2)
        >>> next(iter(encoder.loader(encoder.prepare(items, "unused"))))["features"].shape
        torch.Size([6, 4])
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, input_dim: int, *, output_dim: int = 64, hidden_dim: int = 256) -> None:
        super().__init__()
        if not 1 <= output_dim <= input_dim or hidden_dim < 0:
            raise ConfigError(
                f"`output_dim` must be from 1 to the {input_dim} dimensions of the features and `hidden_dim` 0 or "
                f"more, but got {output_dim} and {hidden_dim}."
            )
        self.input_dim = input_dim
        self.output_dim = output_dim
        self.register_buffer("mean", torch.zeros(input_dim))
        self.register_buffer("scale", torch.ones(input_dim))
        self.linear = nn.Linear(input_dim, output_dim, bias=False)
        nn.init.orthogonal_(self.linear.weight)
        self.residual: nn.Sequential | None = None
        if hidden_dim:
            last = nn.Linear(hidden_dim, output_dim, bias=False)
            nn.init.zeros_(last.weight)
            self.residual = nn.Sequential(nn.Linear(input_dim, hidden_dim), nn.GELU(), last)

    @classmethod
    def from_items(cls, items: ItemTable, *, cache_dir: Path | str = "", **options: Any) -> FeatureEncoder:
        """Return an encoder whose statistics and first weights come from the items' features.

        Args:
            items: With features.
            cache_dir: Not used; features need no processing.
            options: `output_dim` and `hidden_dim`.

        Raises:
            ItemError: If the items have no features.
        """
        features = _features(items)
        options["output_dim"] = min(options.get("output_dim", 64), features.shape[1])
        encoder = cls(features.shape[1], **options)
        encoder.fit_statistics(torch.from_numpy(features))
        return encoder

    @torch.no_grad()
    def fit_statistics(self, features: Tensor) -> None:
        """Take the mean, the scale and the principal components from features [num_items, input_dim]."""
        self.mean.copy_(features.mean(dim=0))
        deviation = features.std(dim=0, correction=0)
        self.scale.copy_(deviation.clamp(min=1e-6 * float(deviation.max()) or 1.0))
        rows = (features - self.mean) / self.scale
        axes = torch.linalg.eigh(rows.T.double() @ rows.double()).eigenvectors.flip(1).T[: self.output_dim]
        self.linear.weight.copy_(axes)

    @override
    def prepare(self, items: ItemTable, cache_dir: Path | str) -> Dataset[dict[str, Any]]:
        features = _features(items)
        if features.shape[1] != self.input_dim:
            raise ShapeError(f"The encoder reads {self.input_dim} features an item, but got {features.shape[1]}.")
        return _FeatureRows(features, items.ids)

    @override
    def collate(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        return {"item_id": _ids(rows), "features": torch.stack([row["features"] for row in rows])}

    @override
    def forward(self, batch: dict[str, Any]) -> Tensor:
        rows = (batch["features"] - self.mean) / self.scale
        out: Tensor = self.linear(rows)
        return out if self.residual is None else out + self.residual(rows)


class VisionLanguageEncoder(ItemEncoder):
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
        freeze: "backbone" trains the head alone, with the model in evaluation mode.
        gradient_checkpointing: Recompute activations in the backward pass: less memory, a third more time.
        torch_dtype: Of the backbone's weights, "float32" or "bfloat16"; the head stays in float32.
        on_bad_image: "raise", or "blank" to show plain grey for an image that cannot be read.

    Raises:
        ConfigError: If the model cannot be loaded or an option is unknown.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        prompt: str = "{text}",
        pooling: Pooling = "mean",
        output_dim: int | None = 64,
        max_text_tokens: int = 64,
        freeze: Freeze = "none",
        gradient_checkpointing: bool = False,
        torch_dtype: str = "float32",
        on_bad_image: OnBadImage = "raise",
    ) -> None:
        super().__init__()
        _check_choices(prompt, pooling, freeze, max_text_tokens)
        self.prompt = prompt
        self.pooling = pooling
        self.max_text_tokens = max_text_tokens
        self.freeze = freeze
        self.on_bad_image = on_bad_image
        self.model: Any
        self.model, self.processor = load_vlm(model, torch_dtype)
        hidden_dim = int(self.model.config.get_text_config().hidden_size)
        self.output_dim = output_dim or hidden_dim
        self.head = _projection_head(hidden_dim, output_dim) if output_dim else nn.Identity()
        if gradient_checkpointing:
            self.model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
        if freeze == "backbone":
            self.model.requires_grad_(False)
        self.train()

    @classmethod
    def from_items(
        cls, items: ItemTable, *, cache_dir: Path | str, model: str | Path = TINY, **options: Any
    ) -> VisionLanguageEncoder:
        """Return an encoder for these items; ``model="tiny"`` makes a tiny LLaVA on this machine first.

        Args:
            items: Their texts train the tiny model's tokenizer.
            cache_dir: Where the tiny model is kept.
            model: "tiny", a hub id, or a folder.
            options: As of the class.
        """
        if str(model) != TINY:
            return cls(model, **options)
        with quiet_transformers():
            return cls(make_tiny_vlm(Path(cache_dir) / "models", items.texts), **options)

    @override
    def train(self, mode: bool = True) -> VisionLanguageEncoder:
        super().train(mode)
        if self.freeze == "backbone":
            self.model.eval()  # dropout would only blur what cannot adapt to it
        return self

    @override
    def prepare(self, items: ItemTable, cache_dir: Path | str) -> Dataset[dict[str, Any]]:
        folder = Path(cache_dir).expanduser() / "items" / self._fingerprint(items)
        return prepare_items(folder, items.ids, self._process(items), what="Processing images and texts")

    @override
    def collate(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        length = max(len(row["input_ids"]) for row in rows)
        batch: dict[str, Any] = {"item_id": _ids(rows)}
        for name in rows[0]:
            if name == "item_id":
                continue
            values = [row[name] for row in rows]
            of_tokens = values[0].ndim == 1
            fill = self._pad_id if name == "input_ids" else 0
            batch[name] = pad_and_stack([value[None] if of_tokens else value for value in values], fill)
        lengths = torch.tensor([len(row["input_ids"]) for row in rows])
        batch["attention_mask"] = (torch.arange(length) < lengths[:, None]).long()
        return batch

    @override
    def forward(self, batch: dict[str, Any]) -> Tensor:
        inputs = {
            name: value.to(self.model.dtype) if value.is_floating_point() else value
            for name, value in batch.items()
            if name != "item_id"
        }
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.freeze == "none"):
            hidden = self.model.base_model(**inputs, use_cache=False, return_dict=True).last_hidden_state
        mask = batch["attention_mask"]
        if self.pooling == "last":
            pooled = hidden[torch.arange(len(hidden), device=hidden.device), mask.sum(dim=1) - 1].float()
        else:
            weights = mask.unsqueeze(-1).float()
            pooled = (hidden.float() * weights).sum(dim=1) / weights.sum(dim=1)
        out: Tensor = self.head(pooled)
        return out

    @property
    def _pad_id(self) -> int:
        tokenizer = self.processor.tokenizer
        return next(int(token) for token in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0) if token is not None)

    def _process(self, items: ItemTable) -> Iterator[dict[str, NDArray[Any]]]:
        for text, path in zip(items.texts, items.images, strict=True):
            prompt, add_special_tokens = render_prompt(
                self.processor, self.prompt.replace("{text}", shorten(self.processor, text, self.max_text_tokens))
            )
            fields = self.processor(
                images=[load_image(path, on_error=self.on_bad_image)],
                text=[prompt],
                return_tensors="np",
                add_special_tokens=add_special_tokens,
            )
            tokens = fields["input_ids"].shape
            yield {
                name: value[0] if value.shape == tokens else value
                for name, value in ((name, np.asarray(value)) for name, value in fields.items())
                if name != "attention_mask"
            }

    def _fingerprint(self, items: ItemTable) -> str:
        """Return a hash of all that the processed items depend on."""
        settings = [processor_fingerprint(self.processor), self.prompt, self.max_text_tokens, self.on_bad_image]
        digest = hashlib.sha256(json.dumps(settings).encode())
        for text, path in zip(items.texts, items.images, strict=True):
            image = path.read_bytes() if path is not None and path.is_file() else b""
            digest.update(hashlib.sha256(text.encode()).digest() + hashlib.sha256(image).digest())
        return digest.hexdigest()[:16]


def _projection_head(input_dim: int, output_dim: int) -> nn.Module:
    """Return a linear map whose outputs are standardised.

    Measured: without it the representations of the generated world collapsed within 50 steps (mean cosine 1.000), at
    several temperatures; with it, or with centring in the loss, they learn. Presumably because pooled states share most
    of what they are, and where each pair says little the loss falls fastest by letting them become equal.
    """
    linear = nn.Linear(input_dim, output_dim, bias=False)
    nn.init.orthogonal_(linear.weight)
    return nn.Sequential(linear, nn.BatchNorm1d(output_dim, affine=False, momentum=_MOMENTUM))


def _features(items: ItemTable) -> NDArray[np.float32]:
    if items.features is None:
        raise ItemError(
            f"The {len(items)} items have no precomputed features, which model=features needs. Give the data a feature "
            "matrix, or use model=vlm, which reads their images and texts."
        )
    return np.ascontiguousarray(items.features, dtype=np.float32)


def _ids(rows: list[dict[str, Any]]) -> Tensor | list[str]:
    ids = [row["item_id"] for row in rows]
    return ids if isinstance(ids[0], str) else torch.tensor(ids, dtype=torch.int64)


def _check_choices(prompt: str, pooling: str, freeze: str, max_text_tokens: int) -> None:
    if "{text}" not in prompt:
        raise ConfigError(f"`prompt` must contain {{text}}, where the item's text goes, but got {prompt!r}.")
    for name, value, choices in (("pooling", pooling, get_args(Pooling)), ("freeze", freeze, get_args(Freeze))):
        if value not in choices:
            raise ConfigError(f"`{name}` must be one of {', '.join(choices)}, but got {value!r}.")
    if max_text_tokens < 1:
        raise ConfigError(f"`max_text_tokens` must be 1 or more, but got {max_text_tokens}.")
