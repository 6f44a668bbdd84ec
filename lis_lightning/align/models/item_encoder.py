"""The base class of encoders: items are prepared once, collated to batches, and encoded to representations."""

from __future__ import annotations

import contextlib
import inspect
import tempfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from typing_extensions import override

from lis_lightning.align.data.item_table import ItemTable
from lis_lightning.align.data.progress import with_progress
from lis_lightning.align.models.checkpoints import read_encoder

_CHUNK = 1024  # items that `encode` prepares at a time, which bounds the space they take on disk


class ItemEncoder(nn.Module):
    """An encoder from item batches to representations: the part that is trained and scored.

    Subclasses define `prepare`, `collate` and `forward`. For encoders over a model of transformers see
    :class:`~lis_lightning.align.models.PretrainedEncoder`.

    Attributes:
        output_dim: Dimension of the representations.
        unreached: Names of weights that are frozen because no gradient reaches them.
        backbone_learning_rate: That suits the pretrained weights; None if there are none, or they are random.
        arguments: Arguments of its constructor, by name; a checkpoint holds them, so that it can be rebuilt.
        precision: Of the Trainer that trained it, such as ``"bf16-mixed"``; :meth:`encode` computes in it.

    Example:
        >>> class TextLength(ItemEncoder):
        ...     output_dim = 1
        ...     def prepare(self, items, cache_dir):
        ...         return [{"length": len(text)} for text in items.texts]
        ...     def collate(self, rows):
        ...         return {"length": torch.tensor([[float(row["length"])] for row in rows])}
        ...     def forward(self, batch):
        ...         return batch["length"]
        >>> items = ItemTable(torch.arange(2).numpy(), ("cup", "lamp"), (None, None))
        >>> encoder = TextLength()
        >>> [encoder(batch).tolist() for batch in encoder.loader(encoder.prepare(items, ""))]
        [[[3.0], [4.0]]]
    """

    output_dim: int
    unreached: Sequence[str] = ()
    backbone_learning_rate: float | None = None
    arguments: dict[str, Any]
    precision: str = "32-true"

    def __new__(cls, *args: Any, **options: Any) -> Self:
        """Record the arguments, whatever the constructors of subclasses do with them."""
        encoder = super().__new__(cls)
        # `copy.deepcopy` passes none here; the copy then gets the attribute of the original.
        encoder.arguments = _bound(cls.__init__, encoder, args, options)
        return encoder

    def prepare(self, items: ItemTable, cache_dir: Path | str) -> Dataset[dict[str, Any]]:
        """Return the items as this encoder reads them, in the order of the table, without padding.

        Args:
            items: The item table.
            cache_dir: Folder for processed items, which later runs reuse.
        """
        raise NotImplementedError

    def collate(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Return a batch of prepared items; ``item_id`` is an int64 tensor, or a list if ids are strings."""
        raise NotImplementedError

    @override
    def forward(self, batch: dict[str, Any]) -> Tensor:
        """Return the representations [B, output_dim] of a batch."""
        raise NotImplementedError

    def backbone_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of the model under the head; none by default."""
        return []

    def item_vectors(self, batch: dict[str, Any]) -> Tensor:
        """Return the part of `forward` that encodes each item by itself; all of it by default.

        With ``training.micro_batch``, a batch passes through this part in micro-batches. An encoder with a batch norm
        or another mixture of items defines it, and `represent`.

        Args:
            batch: As `collate` makes it.

        Returns:
            One vector for each item, [B, H].
        """
        representations: Tensor = self(batch)
        return representations

    def represent(self, vectors: Tensor, batches: Sequence[dict[str, Any]]) -> Tensor:
        """Return the representations [B, D] of a batch from the vectors of its items, [B, H].

        Args:
            vectors: As `item_vectors` returns them.
            batches: The micro-batches that the batch was split into, as `collate` makes them.
        """
        return vectors

    def per_item_modules(self) -> Sequence[nn.Module]:
        """Return the modules that `item_vectors` runs; the encoder itself by default."""
        return [self]

    def base_weights(self) -> Collection[str]:
        """Return the names of weights that a checkpoint leaves out, since the base model has them."""
        return ()

    @classmethod
    def from_checkpoint(cls, path: str | Path, **changes: Any) -> Self:
        """Return the trained encoder in a checkpoint of `lis-align`, in evaluation mode.

        Nothing in the file is executed. A checkpoint of adapters needs their base model, which it names.

        Args:
            path: Of the checkpoint, or of a folder written by `save_pretrained`.
            changes: Arguments of the encoder that differ from those in training, such as ``model="folder"`` if the base
                model has moved. ``trust_remote_code=True`` has to be given again.

        Raises:
            ConfigError: If the file has no encoder of this class, or its base model cannot be loaded or is a different
                one.

        Example:
            >>> import tempfile
            >>> from lis_lightning.align.models import FeatureEncoder
            >>> from lis_lightning.align.models.checkpoints import describe_encoder
            >>> encoder = FeatureEncoder(4, output_dim=2)
            >>> state = {f"encoder.{name}": weight for name, weight in encoder.state_dict().items()}
            >>> file = Path(tempfile.mkdtemp()) / "best.ckpt"
            >>> torch.save({"state_dict": state, "lis_encoder": describe_encoder(encoder)}, file)
            >>> ItemEncoder.from_checkpoint(file)({"features": torch.zeros(3, 4)}).shape
            torch.Size([3, 2])
        """
        return cast(Self, read_encoder(cls, path, changes))

    @torch.no_grad()
    def encode(self, items: ItemTable, *, batch_size: int = 32, device: str | torch.device = "cpu") -> NDArray[Any]:
        """Return the representations of a table of items, computed as those of a snapshot in training.

        Args:
            items: The item table.
            batch_size: Items encoded at a time.
            device: To which the encoder is moved.

        Returns:
            [num_items, output_dim], float32.
        """
        device = torch.device(device)
        training = self.training
        self.eval().to(device)
        rows = np.empty((len(items), self.output_dim), np.float32)
        done = 0
        try:
            for batch in self._batches(items, batch_size):
                with _autocast(self.precision, device):
                    vectors = self(moved_to(batch, device)).float().cpu().numpy()
                rows[done : done + len(vectors)] = vectors
                done += len(vectors)
        finally:
            self.train(training)
        return rows

    def _batches(self, items: ItemTable, batch_size: int) -> Iterator[dict[str, Any]]:
        """Yield batches of all items, which are prepared in chunks, each in a temporary folder."""
        size = max(batch_size, _CHUNK // batch_size * batch_size)
        for start in range(0, len(items), size):
            chunk = items.select(items.ids[start : start + size])
            description = f"Encoding items {start + 1:,} to {start + len(chunk):,} of {len(items):,}"
            with tempfile.TemporaryDirectory() as folder:
                loader = self.loader(self.prepare(chunk, folder), batch_size=batch_size)
                yield from with_progress(loader, len(loader), description)

    def loader(self, items: Dataset[dict[str, Any]], *, batch_size: int = 128) -> DataLoader[dict[str, Any]]:
        """Return a loader of all prepared items in order, which draws nothing from the global random generator."""
        return DataLoader(items, batch_size=batch_size, collate_fn=self.collate, generator=torch.Generator())


def item_ids(rows: list[dict[str, Any]]) -> Tensor | list[str]:
    """Return the ids of prepared items, as `ItemEncoder.collate` returns them."""
    ids = [row["item_id"] for row in rows]
    return ids if isinstance(ids[0], str) else torch.tensor(ids, dtype=torch.int64)


def moved_to(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Return an item batch with its tensors on a device."""
    return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in batch.items()}


def _bound(init: Any, encoder: ItemEncoder, args: Sequence[Any], options: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a constructor by name, those of `**options` among them."""
    signature = inspect.signature(init)
    bound = dict(signature.bind_partial(encoder, *args, **options).arguments)
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            bound |= bound.pop(parameter.name, {})
    return dict(list(bound.items())[1:])


def _autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Return the autocast of a precision of Lightning; none but for mixed precision."""
    dtypes = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
    if precision not in dtypes:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtypes[precision])
