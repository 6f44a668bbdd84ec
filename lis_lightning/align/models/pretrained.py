"""The base class of encoders over a model of transformers: prepared items, batches, fine-tuning and the head."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset
from typing_extensions import override

from lis_lightning.align.data.item_table import ItemImage, ItemTable, image_files
from lis_lightning.align.data.record_store import KEY_BYTES
from lis_lightning.align.models.exporting import save_encoder
from lis_lightning.align.models.gradient_probe import freeze_unreached
from lis_lightning.align.models.hugging_face import quiet_transformers
from lis_lightning.align.models.item_encoder import ItemEncoder, item_ids
from lis_lightning.align.models.item_images import ReplacedImage
from lis_lightning.align.models.joined_features import JoinedFeatures, WithFeatures, features_of
from lis_lightning.align.models.preparation import Store, prepare_items, replaced_key
from lis_lightning.align.models.prepared_items import as_tensors, compact, pad_and_stack
from lis_lightning.align.models.processors import processor_fingerprint
from lis_lightning.align.models.tuning import LEARNING_RATES, Tuning, freeze_statistics, list_of_layers, tune
from lis_lightning.errors import ConfigError, ItemError

TINY = "tiny"
DRAWN = "lis_drawn_weights"
"""Attribute of a loaded model with the names of weights that its folder lacks."""

_MOMENTUM = 0.3  # states move fast at first; with the usual 0.1 the statistics of a snapshot would lag behind
_NUM_STATISTICS_ITEMS = 32  # items whose states give the first statistics, which training then updates


class PretrainedEncoder(ItemEncoder):
    """A pretrained model, its fine-tuning, and a head over one vector that the model makes of an item.

    A new kind of encoder is one subclass. Its class attributes say which models it reads and how transformers loads
    them; its constructor calls :func:`~lis_lightning.align.models.load_pretrained` and this one; and it defines
    `process` and `pooled`, `settings` if the processed items depend on options, and `make_tiny` for ``model=tiny``.

    Args:
        model: Of transformers.
        processor: Makes the inputs of the model: a processor, a tokenizer or an image processor.
        towers: Parts of the model by name, "language" and "vision".
        hidden_dim: Dimension of the vector that :meth:`pooled` returns.
        unused: Parameters that take no part in the representation; they are never trained.
        output_dim: Of the head, whose outputs are standardised; None for no head.
        tuning: Which part of the model is trained; None trains all of it.
        gradient_checkpointing: Recompute activations in the backward pass: less memory, a third more time.
        features: Number of precomputed features of each item that are joined to the vector, before the head; 0 for
            none.
        torch_dtype: How the model was loaded, like `attn_implementation`, `revision`, `trust_remote_code` and
            `quantization`: see :func:`~lis_lightning.align.models.load_pretrained`.
        attn_implementation: As `torch_dtype`.
        revision: As `torch_dtype`.
        trust_remote_code: As `torch_dtype`.
        quantization: As `torch_dtype`.
        compile: Compile the towers with `torch.compile`: the first steps take minutes, the later ones less time.
        store: What is kept on disk of the prepared items: "inputs" of the model, or "images", of which only the sizes
            are kept, and which are read from their files and processed for every batch; "auto" is "inputs" as long as
            all of them take a gigabyte at most. Nothing is compressed: both give the same bits.

    Attributes:
        kind: Name of the kind, as in ``model=text``.
        accepts: What its models take, for messages.
        auto_class: Class of transformers that loads the model.
        processor_class: Class of transformers that loads the processor.
        reads_images: Whether it reads the images of items.
        reads_texts: Whether it reads the texts of items.
        averages_images: Whether the model makes a vector of each image, so that `pooled` has to average those of an
            item; their numbers are in the input ``num_images`` if any item has several.

    Raises:
        ConfigError: If nothing would be trained, or the model cannot do what is asked.

    Example:
        >>> from lis_lightning.align.models import TextEncoder
        >>> issubclass(TextEncoder, PretrainedEncoder), TextEncoder.accepts, TextEncoder.processor_class
        (True, 'texts', 'AutoTokenizer')
    """

    kind: ClassVar[str]
    accepts: ClassVar[str]
    auto_class: ClassVar[str] = "AutoModel"
    processor_class: ClassVar[str] = "AutoProcessor"
    reads_images: ClassVar[bool] = True
    reads_texts: ClassVar[bool] = True
    averages_images: ClassVar[bool] = False

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        towers: Mapping[str, nn.Module],
        hidden_dim: int,
        unused: Sequence[nn.Parameter] = (),
        output_dim: int | None = 64,
        tuning: Tuning | None = None,
        gradient_checkpointing: bool = False,
        features: int = 0,
        torch_dtype: str = "float32",
        attn_implementation: str | None = None,
        revision: str | None = None,
        trust_remote_code: bool = False,
        quantization: str | None = None,
        compile: bool = False,
        store: Store = "auto",
    ) -> None:
        super().__init__()
        tuning = tuning or Tuning()
        if store not in get_args(Store):
            raise ConfigError(f"`store` must be one of {', '.join(get_args(Store))}, but got {store!r}.")
        if output_dim is not None and output_dim < 1:
            raise ConfigError(f"`output_dim` must be 1 or more, or null for no head, but got {output_dim}.")
        if tuning.mode == "head" and not output_dim:
            raise ConfigError("Mode head with output_dim=null would train nothing; set `output_dim`, or another mode.")
        self.model: Any = model
        self.processor = processor
        self.tuning = tuning
        self.backbone_learning_rate = LEARNING_RATES.get(tuning.mode)
        self.store: Store = store
        self.num_features = int(features)
        self.joined = JoinedFeatures(hidden_dim, features, momentum=_MOMENTUM) if features else None
        self.output_dim = output_dim or hidden_dim + features
        # Before the adapters, which draw random numbers too: one seed gives one head in all modes.
        self.head = projection_head(hidden_dim + features, output_dim) if output_dim else nn.Identity()
        tune(model, towers, tuning)
        if commit := getattr(model.config, "_commit_hash", None):
            self.arguments["revision"] = commit  # the branch may have moved on when the encoder is rebuilt
        for parameter in unused:
            parameter.requires_grad_(False)
        paths = {part: path for path, part in model.named_modules()}
        self._towers = {name: paths[tower] for name, tower in towers.items()}
        if gradient_checkpointing:
            _checkpoint(model)
        if compile:
            for tower in towers.values():
                tower.compile()  # in place: the names of the weights stay as they are
        self.train()

    @classmethod
    def kinds(cls) -> list[type[PretrainedEncoder]]:
        """Return the classes derived from this one that are a kind of their own, in the order of their definition."""
        derived: list[type[PretrainedEncoder]] = []
        for subclass in cls.__subclasses__():
            derived += [subclass] if "kind" in vars(subclass) else []
            derived += subclass.kinds()
        return derived

    @classmethod
    def auto_class_for(cls, config: Any) -> str:
        """Return the class of transformers that loads a model of this configuration."""
        return cls.auto_class

    @classmethod
    def can_read(cls, config: Any, network: Any) -> bool:
        """Return whether this kind can read a model; by default, whether it takes texts or images and nothing else.

        Args:
            config: The configuration of the model.
            network: The class that `AutoModel` loads for it; None if there is none.
        """
        if network is None or has_two_towers(network):
            return False
        inputs = network.input_modalities
        modalities = {inputs} if isinstance(inputs, str) else set(inputs)
        read = {"text": cls.reads_texts, "image": cls.reads_images}
        return modalities == {modality for modality, is_read in read.items() if is_read}

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
        """Return an encoder for these items; ``model="tiny"`` first makes a tiny model with random weights.

        Args:
            items: Their texts train the tokenizer of the tiny model.
            cache_dir: Folder for the tiny model.
            model: "tiny", a hub id, or a folder.
            features: Whether the precomputed features of the items are joined to the model's vector.
            options: As of the class.

        Raises:
            ItemError: If there are no features to join, or the items have nothing that the model reads.
        """
        _check_readable(cls, items, features)
        matrix = torch.from_numpy(features_of(items, "model.features=true")) if features else None
        if matrix is not None:
            options["features"] = matrix.shape[1]
        if str(model) != TINY:
            encoder = cls(model, **options)
        else:
            with quiet_transformers():
                encoder = cls(cls.make_tiny(Path(cache_dir) / "models", items.texts), **options)
            encoder.backbone_learning_rate = None  # random weights learn at the rate of the head
        if matrix is not None:
            encoder.fit_features(items, matrix)
        encoder.freeze_unreached(items)
        return encoder

    def freeze_unreached(self, items: ItemTable) -> None:
        """Freeze the trained weights of the model that a backward pass over two items does not reach.

        Args:
            items: The first two with an image are processed, or the first two where no item has one.

        Raises:
            ConfigError: If a part that is tuned would not learn at all.
        """
        if self.tuning.mode == "head":
            return
        # Two items with an image, if there are: without images, nothing would reach the vision tower.
        pictured = np.array([image is not None for image in items.images])
        batch = self._sample(items, np.argsort(~pictured, kind="stable")[:2])
        towers = {name: self.model.get_submodule(path) for name, path in self._towers.items()}
        if not pictured.any() and self.tuning.towers is None and "language" in towers:
            towers.pop("vision", None)  # it is frozen, which is no mistake where nobody asked for it
        training = self.training
        # Without dropout and dropped layers. Some models draw masks all the same, which the run must not notice.
        with torch.random.fork_rng(devices=[]):
            self.eval()
            self.unreached = freeze_unreached(self.model, towers, self.tuning, lambda: self.pooled(self._inputs(batch)))
        self.train(training)

    def _sample(self, items: ItemTable, rows: NDArray[Any]) -> dict[str, Tensor]:
        """Return a batch of some items, prepared in memory, as `prepare` would write all of them to disk."""
        sample = items.select(items.ids[rows])
        return self._stacked([as_tensors(_one_item(fields)) for fields in self.process(sample)])

    @torch.no_grad()
    def fit_features(self, items: ItemTable, features: Tensor) -> None:
        """Set the statistics of the features, and the initial ones of the model's vectors from a few items.

        Args:
            items: All items.
            features: Their features, [num_items, num_features].
        """
        joined = cast(JoinedFeatures, self.joined)
        joined.features.fit(features)
        spread = np.unique(np.linspace(0, len(items) - 1, _NUM_STATISTICS_ITEMS).round().astype(int))
        batch = self._sample(items, spread)
        training = self.training
        self.eval()
        joined.fit_states(self.pooled(self._inputs(batch)).float())
        self.train(training)

    def save_pretrained(self, folder: str | Path, *, merge: bool = False) -> None:
        """Write the encoder to a folder: model and processor as transformers does, and the head beside them.

        :meth:`from_checkpoint` reads it, and so does ``model.model=FOLDER``, for the model
        without the head.

        Args:
            folder: Made if it does not exist.
            merge: Whether adapters are added to the weights of the model. Without it, they are written alone, as PEFT
                does, and the folder names its base model.

        Raises:
            ConfigError: If adapters would be merged into weights of 4 bits.
        """
        save_encoder(self, Path(folder).expanduser(), merge=merge)

    @staticmethod
    def make_tiny(folder: Path, texts: Sequence[str]) -> Path:
        """Return a folder with a tiny model of this kind and its processor.

        Args:
            folder: Of all tiny models.
            texts: Train the tokenizer.
        """
        raise NotImplementedError

    def pooled(self, inputs: dict[str, Tensor]) -> Tensor:
        """Return one vector for each item of a batch, [B, hidden_dim].

        Args:
            inputs: Of the model, as `process` makes them, stacked.
        """
        raise NotImplementedError

    def process(self, items: ItemTable) -> Iterator[Mapping[str, Any]]:
        """Yield the inputs of the model for each item: arrays with a first axis of one item."""
        raise NotImplementedError

    def _processed(self, images: list[Any], **options: Any) -> Mapping[str, Any]:
        """Return what the processor makes of the images of an item, and of the text among the options."""
        fields: Mapping[str, Any] = self.processor(images=images or None, return_tensors="np", **options)
        return fields

    def settings(self) -> list[Any]:
        """Return the options that the processed items depend on, as plain values."""
        return []

    @override
    def backbone_parameters(self) -> list[nn.Parameter]:
        return list(self.model.parameters())

    @override
    def layers(self) -> Sequence[nn.Module]:
        towers = [self.model.get_submodule(path) for path in self._towers.values()]
        return [layer for tower in towers for layer in list_of_layers(tower)[1]]

    @override
    def base_weights(self) -> list[str]:
        # With both names of tied weights. Those that the folder lacks were drawn at random, and cannot be drawn again.
        drawn = getattr(self.model, DRAWN, ())
        weights = self.model.named_parameters(remove_duplicate=False)
        frozen = [name for name, weight in weights if not weight.requires_grad]
        return [f"model.{name}" for name in frozen if name.replace(".base_layer.", ".") not in drawn]

    @override
    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if mode:
            towers = {name: self.model.get_submodule(path) for name, path in self._towers.items()}
            freeze_statistics(self.model, towers)
        return self

    @override
    def prepare(self, items: ItemTable, cache_dir: Path | str) -> Dataset[dict[str, Any]]:
        features = features_of(items, "model.features=true", self.num_features) if self.num_features else None
        prepared = prepare_items(
            Path(cache_dir).expanduser() / "items" / self._fingerprint(),
            items.ids,
            [self._keys(text, image) for text, image in zip(items.texts, items.images, strict=True)],
            partial(self._process_row, items),
            pictured=[self.reads_images and image is not None for image in items.images],
            store=self.store,
        )
        return prepared if features is None else WithFeatures(prepared, features)

    def _process_row(self, items: ItemTable, row: int) -> Mapping[str, NDArray[Any]]:
        """Return the inputs of the model for the item in a row, as they are stored."""
        (fields,) = self.process(items.row(row))
        arrays = _one_item(fields)
        return ReplacedImage(arrays) if isinstance(fields, ReplacedImage) else arrays

    @override
    def collate(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        return {"item_id": item_ids(rows), **self._stacked(rows)}

    def _stacked(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Return the fields of items padded to one shape, and the attention mask."""
        batch: dict[str, Tensor] = {}
        for name in rows[0]:
            if name == "item_id":
                continue
            values = [row[name] for row in rows]
            if all(_is_of_tokens(row, name) for row in rows):
                values = [value[None] for value in values]
            batch[name] = pad_and_stack(values, self._pad_id if name == "input_ids" else 0)
        # Items are stored without padding, so their lengths give the mask.
        if "input_ids" in batch:
            lengths = torch.tensor([len(row["input_ids"]) for row in rows])
            batch["attention_mask"] = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
        if self.averages_images:
            counts = torch.tensor([len(row["pixel_values"]) for row in rows])
            batch |= {"num_images": counts} if (counts != 1).any() else {}
        return batch

    @override
    def forward(self, batch: dict[str, Any]) -> Tensor:
        return self.represent(self.item_vectors(batch), [batch])

    @override
    def item_vectors(self, batch: dict[str, Any]) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.tuning.mode != "head"):
            return self.pooled(self._inputs(batch)).float()

    @override
    def represent(self, vectors: Tensor, batches: Sequence[dict[str, Any]]) -> Tensor:
        if self.joined is not None:
            features = torch.cat([batch["features"] for batch in batches])
            vectors = self.joined(vectors, features.to(vectors.device))
        representations: Tensor = self.head(vectors)
        return representations

    @override
    def per_item_modules(self) -> Sequence[nn.Module]:
        return [self.model]

    def _inputs(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Return the inputs of the model in a batch, in the model's float type."""
        inputs = {name: value for name, value in batch.items() if name not in {"item_id", "features"}}
        return to_dtype(inputs, self.model.dtype)

    @property
    def _pad_id(self) -> int:
        tokenizer = getattr(self.processor, "tokenizer", self.processor)
        return next(int(token) for token in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0) if token is not None)

    def _fingerprint(self) -> str:
        """Return a hash of the options that the inputs of all items depend on."""
        settings = [type(self).__name__, processor_fingerprint(self.processor), *self.settings()]
        return hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]

    def _keys(self, text: str, image: ItemImage) -> list[bytes]:
        """Return the hash of what is read of an item, and the key of its inputs without an image that cannot be used.

        An image counts as changed if the size or the time of its file has, as for make: reading all images would take
        long at every start.
        """
        content: list[Any] = [text if self.reads_texts else ""]
        for file in image_files(image) if self.reads_images else ():
            content.append(str(file))
            if file.is_file():
                status = file.stat()
                content += [status.st_size, status.st_mtime_ns]
        key = hashlib.sha256(json.dumps(content).encode()).digest()[:KEY_BYTES]
        return [key, replaced_key(key)] if getattr(self, "on_bad_image", "raise") == "blank" else [key]


def has_two_towers(network: Any) -> bool:
    """Return whether a model class of transformers embeds images and texts separately, like CLIP."""
    return hasattr(network, "get_image_features") and hasattr(network, "get_text_features")


def to_dtype(inputs: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Return inputs with those of a float type converted to `dtype`."""
    converted = {name: value.to(dtype) for name, value in inputs.items() if value.is_floating_point()}
    return {**inputs, **converted}


def projection_head(input_dim: int, output_dim: int) -> nn.Module:
    """Return a linear map whose outputs are standardised by batch norm.

    Measured: without standardisation the representations of the generated world collapsed within 50 steps (mean cosine
    1.000), at several temperatures; with it, or with centring in the loss, they learn. A likely reason: pooled states
    have a large common component, and while each pair carries little information, making all states equal reduces the
    loss fastest.

    Args:
        input_dim: Dimension of the inputs.
        output_dim: Dimension of the outputs.
    """
    linear = nn.Linear(input_dim, output_dim, bias=False)
    nn.init.orthogonal_(linear.weight)
    return nn.Sequential(linear, nn.BatchNorm1d(output_dim, affine=False, momentum=_MOMENTUM))


def _check_readable(encoder: type[PretrainedEncoder], items: ItemTable, features: bool) -> None:
    """Raise if the items have nothing that an encoder reads: no texts, no images and no features."""
    texts, images = any(items.texts), any(image is not None for image in items.images)
    if features or (encoder.reads_texts and texts) or (encoder.reads_images and images):
        return
    available = [name for name, there in (("texts", texts), ("images", images)) if there]
    raise ItemError(
        f"{encoder.__name__} has nothing to read: of texts and images the {len(items)} items have "
        f"{' and '.join(available) or 'neither'}. Name their column (data.text) or folder (data.image_folder), or take "
        "a model that reads what they have."
    )


def _checkpoint(model: Any) -> None:
    try:
        model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    except ValueError as error:
        raise ConfigError(
            f"{type(model).__name__} cannot recompute activations ({error}); set gradient_checkpointing=false."
        ) from error
    # With adapters, transformers makes the outputs of embeddings require gradients, which only reentrant checkpointing
    # needs; those of Swin are a tuple, and its hook fails.
    model.disable_input_require_grads()


def _is_of_tokens(row: Mapping[str, Tensor], name: str) -> bool:
    """Return whether a field of an item has a number for each token; others of one axis have one for each image."""
    return "input_ids" in row and row[name].shape == row["input_ids"].shape


def _one_item(fields: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Return the compact fields of an item; those of tokens lose the axis of one item, `_stacked` makes the mask."""
    arrays = {name: np.asarray(value) for name, value in fields.items() if name != "attention_mask"}
    if "input_ids" in arrays:
        tokens = arrays["input_ids"].shape
        arrays |= {name: array[0] for name, array in arrays.items() if array.shape == tokens}
    return {name: compact(array) for name, array in arrays.items()}
