"""Several representations of one encode, such as layers of a model, side by side in one matrix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lis_lightning.errors import ShapeError
from lis_lightning.monitor.encoder import Encoder


class SideBySide:
    """Joins the representations that an encoder returns by name, and separates them again.

    A dict of tensors [B, D] becomes one tensor, in the order of the first dict; a tensor stays as it is.

    Example:
        >>> blocks = SideBySide()
        >>> encode = blocks.joining(lambda module, batch: {"last": torch.ones(2, 3), "middle": torch.zeros(2, 1)})
        >>> encode(None, None).shape
        torch.Size([2, 4])
        >>> {name: list(block.shape) for name, block in blocks.separated(torch.ones(5, 4)).items()}
        {'last': [5, 3], 'middle': [5, 1]}
    """

    def __init__(self) -> None:
        self._widths: dict[str, int] = {}
        self._named: bool | None = None

    def joining(self, encode: Encoder) -> Encoder:
        """Return an encoder whose outputs are joined.

        Args:
            encode: Called with a module and a batch; returns [B, D], or a dict of such tensors.
        """

        def joined(module: Any, batch: Any) -> Any:
            output = encode(module, batch)
            named = isinstance(output, Mapping)
            if self._named not in {None, named}:
                kinds = ("a tensor", "a dict")
                raise ShapeError(f"`encode` returned {kinds[not named]} before, and now {kinds[named]}.")
            self._named = named
            return self._joined(output) if named else output

        return joined

    def _joined(self, outputs: Mapping[str, Any]) -> Tensor:
        for name, output in outputs.items():
            if not isinstance(output, Tensor) or output.ndim != 2 or not output.is_floating_point():
                got = f"{output.dtype} {list(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
                raise ShapeError(f"`encode` must return floats [B, D] for each name of a dict, got {got} for {name!r}.")
        widths = {name: output.shape[1] for name, output in outputs.items()}
        if not widths or (self._widths and widths != self._widths):
            raise ShapeError(
                f"`encode` must return the same names and widths for each batch, got {widths}"
                + (f" after {self._widths}." if self._widths else ".")
            )
        rows = {name: len(output) for name, output in outputs.items()}
        if len(set(rows.values())) > 1:
            raise ShapeError(f"`encode` must return one row an item for each name of a dict, got {rows} rows.")
        self._widths = self._widths or widths  # in the order of the first batch
        return torch.cat([outputs[name] for name in self._widths], dim=1)

    def separated(self, embeddings: Tensor) -> Tensor | dict[str, Tensor]:
        """Return joined representations by name; a tensor if the encoder returned one.

        Args:
            embeddings: [num_items, the sum of the widths].
        """
        if not self._widths:
            return embeddings
        blocks = torch.split(embeddings, list(self._widths.values()), dim=1)
        return dict(zip(self._widths, blocks, strict=True))
