"""What all encoders over pretrained models share: prepared items, batches, fine-tuning and the head."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset
from typing_extensions import override

from lis_lightning.align.data.items import ItemTable, OnBadImage
from lis_lightning.align.models.base import ItemEncoder, item_ids
from lis_lightning.align.models.joined import JoinedFeatures, WithFeatures, features_of
from lis_lightning.align.models.prepare import as_tensor, compact, pad_and_stack, prepare_items
from lis_lightning.align.models.tiny import hugging_face, quiet_transformers
from lis_lightning.align.models.tuning import Tuning, rest, tune
from lis_lightning.errors import ConfigError, ItemError

TINY = "tiny"
_MOMENTUM = 0.3  # states move fast at first; the usual 0.1 lags behind them, and a snapshot would be off centre
_FEW = 32  # items whose states give the first statistics; training takes over


class PretrainedEncoder(ItemEncoder):
    """A pretrained model, its fine-tuning, and a head over the one vector that it makes of an item.

    Args:
        model: Of transformers.
        processor: What makes its inputs: a processor, a tokenizer or an image processor.
        towers: Its parts by name, "language" and "vision".
        unused: Parameters that take no part in the representation; they are never trained.
        hidden_dim: Dimension of the vector that :meth:`pooled` gives.
        output_dim: Of the head, whose outputs are standardised; None for no head.
        tuning: What of the model is trained.
        gradient_checkpointing: Recompute activations in the backward pass.
        on_bad_image: "raise", or "blank" to show plain grey for an image that cannot be read.
        features: How many precomputed features of each item are joined to that vector, before the head; 0 for none.

    Raises:
        ConfigError: If nothing would be trained, or the model cannot do what is asked.
    """

    reads_images = True
    reads_texts = True

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        towers: Mapping[str, nn.Module],
        unused: Sequence[nn.Parameter],
        hidden_dim: int,
        output_dim: int | None,
        tuning: Tuning,
        gradient_checkpointing: bool,
        on_bad_image: OnBadImage = "raise",
        features: int = 0,
    ) -> None:
        super().__init__()
        if output_dim is not None and output_dim < 1:
            raise ConfigError(f"`output_dim` must be 1 or more, or null for no head, but got {output_dim}.")
        if tuning.mode == "head" and not output_dim:
            raise ConfigError("Mode head with output_dim=null would train nothing; set `output_dim`, or another mode.")
        self.model: Any = model
        self.processor = processor
        self.tuning = tuning
        self.on_bad_image = on_bad_image
        self.num_features = int(features)
        self.joined = JoinedFeatures(hidden_dim, features, momentum=_MOMENTUM) if features else None
        self.output_dim = output_dim or hidden_dim + features
        # Before the adapters, which draw random numbers too: one seed gives one head in all modes.
        self.head = projection_head(hidden_dim + features, output_dim) if output_dim else nn.Identity()
        tune(model, towers, tuning)
        for parameter in unused:
            parameter.requires_grad_(False)
        names = {part: path for path, part in model.named_modules()}
        self._towers = {name: names[tower] for name, tower in towers.items()}
        if gradient_checkpointing:
            _checkpoint(model)
        self.train()

    @classmethod
    def from_items(
        cls,
        items: ItemTable,
        *,
        cache_dir: Path | str,
        model: str | Path = TINY,
        features: bool = False,
        **options: Any,
    ) -> Self:
        """Return an encoder for these items; ``model="tiny"`` makes a tiny model on this machine first.

        Args:
            items: Their texts train the tiny model's tokenizer.
            cache_dir: Where the tiny model is kept.
            model: "tiny", a hub id, or a folder.
            features: Whether the precomputed features of the items are joined to what the model makes of them.
            options: As of the class.

        Raises:
            ItemError: If there are no features to join, or the items have nothing that the model reads.
        """
        texts, images = any(items.texts), any(image is not None for image in items.images)
        if not (features or (cls.reads_texts and texts) or (cls.reads_images and images)):
            has = " and ".join(name for name, there in (("texts", texts), ("images", images)) if there) or "neither"
            raise ItemError(
                f"{cls.__name__} has nothing to read: of texts and images the {len(items)} items have {has}. Name "
                "their column (data.text) or folder (data.image_folder), or take a model that reads what they have."
            )
        known = torch.from_numpy(features_of(items, "model.features=true")) if features else None
        if known is not None:
            options["features"] = known.shape[1]
        if str(model) != TINY:
            encoder = cls(model, **options)
        else:
            with quiet_transformers():
                encoder = cls(cls.make_tiny(Path(cache_dir) / "models", items.texts), **options)
        if known is not None:
            encoder.fit_features(items, known)
        return encoder

    @torch.no_grad()
    def fit_features(self, items: ItemTable, features: Tensor) -> None:
        """Take the statistics of features [num_items, num_features] and, from a few items, the first ones of states."""
        joined = cast(JoinedFeatures, self.joined)
        joined.features.fit(features)
        some = items.select(items.ids[np.unique(np.linspace(0, len(items) - 1, _FEW).round().astype(int))])
        batch = self._stacked(
            [
                {name: as_tensor(compact(array)) for name, array in _one_item(fields).items()}
                for fields in self.process(some)
            ]
        )
        training = self.training
        self.eval()
        joined.fit_states(self.pooled(self._inputs(batch)).float())
        self.train(training)

    @staticmethod
    def make_tiny(folder: Path, texts: Sequence[str]) -> Path:
        """Return a folder with a tiny model of this kind."""
        raise NotImplementedError

    def pooled(self, inputs: dict[str, Tensor]) -> Tensor:
        """Return one vector [B, hidden_dim] for each item of a batch."""
        raise NotImplementedError

    def process(self, items: ItemTable) -> Iterator[Mapping[str, Any]]:
        """Yield what the processor makes of each item: arrays with a first axis of one item."""
        raise NotImplementedError

    def settings(self) -> list[Any]:
        """Return what the processed items depend on besides the processor and the items."""
        return [self.on_bad_image]

    @override
    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if mode:
            rest(self.model, {name: self.model.get_submodule(path) for name, path in self._towers.items()})
        return self

    @override
    def prepare(self, items: ItemTable, cache_dir: Path | str) -> Dataset[dict[str, Any]]:
        folder = Path(cache_dir).expanduser() / "items" / self._fingerprint(items)
        features = features_of(items, "model.features=true", self.num_features) if self.num_features else None
        prepared = prepare_items(folder, items.ids, map(_one_item, self.process(items)), what="Processing items")
        return prepared if features is None else WithFeatures(prepared, features)

    @override
    def collate(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        return {"item_id": item_ids(rows), **self._stacked(rows)}

    def _stacked(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Return the fields of items, padded to one shape, with the mask of those that are tokens."""
        batch: dict[str, Tensor] = {}
        for name in rows[0]:
            if name == "item_id":
                continue
            values = [row[name] for row in rows]
            of_tokens = values[0].ndim == 1
            fill = self._pad_id if name == "input_ids" else 0
            batch[name] = pad_and_stack([value[None] if of_tokens else value for value in values], fill)
        if "input_ids" in batch:
            lengths = torch.tensor([len(row["input_ids"]) for row in rows])
            batch["attention_mask"] = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
        return batch

    @override
    def forward(self, batch: dict[str, Any]) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.tuning.mode != "head"):
            pooled = self.pooled(self._inputs(batch)).float()
        out: Tensor = self.head(pooled if self.joined is None else self.joined(pooled, batch["features"]))
        return out

    def _inputs(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Return what the model is given of a batch."""
        return {
            name: value.to(self.model.dtype) if value.is_floating_point() else value
            for name, value in batch.items()
            if name not in {"item_id", "features"}
        }

    @property
    def _pad_id(self) -> int:
        tokenizer = getattr(self.processor, "tokenizer", self.processor)
        return next(int(token) for token in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0) if token is not None)

    def _fingerprint(self, items: ItemTable) -> str:
        """Return a hash of all that the processed items depend on."""
        settings = [type(self).__name__, processor_fingerprint(self.processor), *self.settings()]
        digest = hashlib.sha256(json.dumps(settings).encode())
        for text, path in zip(items.texts, items.images, strict=True):
            if self.reads_texts:
                digest.update(hashlib.sha256(text.encode()).digest())
            if self.reads_images:
                image = path.read_bytes() if path is not None and path.is_file() else b""
                digest.update(hashlib.sha256(image).digest())
        return digest.hexdigest()[:16]


def projection_head(input_dim: int, output_dim: int) -> nn.Module:
    """Return a linear map whose outputs are standardised.

    Measured: without it the representations of the generated world collapsed within 50 steps (mean cosine 1.000), at
    several temperatures; with it, or with centring in the loss, they learn. Presumably because pooled states share most
    of what they are, and where each pair says little the loss falls fastest by letting them become equal.
    """
    linear = nn.Linear(input_dim, output_dim, bias=False)
    nn.init.orthogonal_(linear.weight)
    return nn.Sequential(linear, nn.BatchNorm1d(output_dim, affine=False, momentum=_MOMENTUM))


def processor_fingerprint(processor: Any) -> str:
    """Return all that the outputs of a processor, tokenizer or image processor depend on, as text."""
    said = [hugging_face().__version__, getattr(processor, "chat_template", None)]
    parts: list[Any] = [processor, getattr(processor, "image_processor", None), getattr(processor, "tokenizer", None)]
    for part in parts:
        if hasattr(part, "get_vocab"):
            said.append(_vocabulary(part))
        elif part is not None:
            said.append(f"{type(part).__name__} {part.to_json_string()}")
    return json.dumps(said)


def _vocabulary(tokenizer: Any) -> str:
    if not tokenizer.is_fast:
        return json.dumps(sorted(tokenizer.get_vocab().items()))
    parts = json.loads(tokenizer.backend_tokenizer.to_str())
    return json.dumps(
        {**parts, "truncation": None, "padding": None}
    )  # left behind by the last call, unused by the next


def _checkpoint(model: Any) -> None:
    try:
        model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    except ValueError as error:
        raise ConfigError(
            f"{type(model).__name__} cannot recompute activations ({error}); set gradient_checkpointing=false."
        ) from error


def _one_item(fields: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Return an item's fields: those of tokens without the axis of one item, and no mask, which batches make."""
    arrays = {name: np.asarray(value) for name, value in fields.items() if name != "attention_mask"}
    tokens = arrays["input_ids"].shape if "input_ids" in arrays else None
    return {name: array[0] if array.shape == tokens else array for name, array in arrays.items()}
