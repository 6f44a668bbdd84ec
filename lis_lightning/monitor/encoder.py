"""Choice of the function that encodes items: the module's own method, a function, or a submodule with pooling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from lis_lightning.errors import ConfigError
from lis_lightning.monitor.submodule_encoder import Encode

Encoder = Callable[[Any, Any], Any]


def resolve_encoder(encode: Encoder | Encode | str | None, module: nn.Module, item_key: str = "item_id") -> Encoder:
    """Return the function of a module and a batch that returns representations [B, D].

    Args:
        encode: Such a function, an :class:`Encode`, the name of a submodule, or None for the module's `encode_items`.
        module: The module in training.
        item_key: Key of the item ids in a batch.

    Raises:
        ConfigError: If the module has no such submodule, or `encode` is None and it has no `encode_items`.
    """
    if isinstance(encode, str):
        encode = Encode(encode)
    if isinstance(encode, Encode):
        return encode.bind(module, item_key)
    if encode is None:
        if not callable(getattr(module, "encode_items", None)):
            raise ConfigError(
                f"{type(module).__name__} has no method `encode_items(batch)` that returns [B, D]: add one, or pass "
                "`LISMonitor(encode=...)`, the name of a submodule or a function of the module and a batch."
            )
        return _own_method
    return encode


def _own_method(module: Any, batch: Any) -> Any:
    """Encode a batch with the module's own method; not a lambda, which cannot be pickled."""
    return module.encode_items(batch)


def check_encode(encode: Any) -> None:
    """Check the type of the argument `encode`.

    Raises:
        ConfigError: If it is none of a function, an :class:`Encode`, the name of a submodule, or None.
    """
    accepted = encode is None or isinstance(encode, Encode | str) or callable(encode)
    if not accepted or isinstance(encode, nn.Module):  # a module is callable, but takes no module and batch
        raise ConfigError(
            "`encode` must be a function of the module and a batch, an `Encode`, or the name of a submodule, got "
            f"{type(encode).__name__}."
        )
