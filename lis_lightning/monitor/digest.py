"""Digests of a module's tensors, which tell whether an encode has changed any of them."""

from __future__ import annotations

import contextlib
import itertools
import zlib
from collections.abc import Iterator, Mapping

import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor, nn

from lis_lightning.errors import LisWarning

BLOCK = 2**24  # elements at a time: a digest on the device needs 16 bytes each


def digests(module: nn.Module) -> dict[str, int]:
    """Return a digest of each parameter and buffer of a module, by name.

    Example:
        >>> module = nn.Linear(2, 2)
        >>> before = digests(module)
        >>> _ = module.bias.data.add_(1e-6)
        >>> first_change(before, digests(module))
        'bias'
    """
    tensors = itertools.chain(module.named_parameters(), module.named_buffers())
    return {name: _digest(tensor) for name, tensor in tensors}


def first_change(before: Mapping[str, int], after: Mapping[str, int]) -> str | None:
    """Return the name of the first tensor that is not the same to the bit; None if all are."""
    return next((name for name in {**before, **after} if before.get(name) != after.get(name)), None)


@contextlib.contextmanager
def unchanged(module: nn.Module) -> Iterator[None]:
    """Warn if a block changes a tensor of a module, with the name of the first one."""
    before = digests(module)
    yield
    name = first_change(before, digests(module))
    if name is not None:
        rank_zero_warn(
            f"LISMonitor: encoding the items changed {name!r} of {type(module).__name__}, which a snapshot does not "
            "restore: with this module the training is not the same as without a monitor. Leave the weights alone in "
            "the encode (adapters that are merged and unmerged come back rounded).",
            category=LisWarning,
        )


def _digest(tensor: Tensor) -> int:
    """Return a number that depends on every bit of a tensor; 0 where its storage cannot be read."""
    local = getattr(tensor, "to_local", None)  # of a DTensor: this process's share
    with contextlib.suppress(RuntimeError, NotImplementedError, TypeError, AttributeError):
        data = (local() if callable(local) else tensor).detach().contiguous().view(-1)
        data = data.view(torch.uint8)
        if data.device.type == "cpu":
            return zlib.crc32(data.numpy().data)
        return _sum(data.view(torch.int32) if data.numel() % 4 == 0 else data)
    return 0


def _sum(words: Tensor) -> int:
    """Return a weighted sum of integers, computed where they are."""
    total = 0
    for number, block in enumerate(torch.split(words, BLOCK), start=1):
        # Odd weights, so that equal and opposite changes of two elements do not cancel.
        weights = torch.arange(1, 2 * len(block), 2, device=block.device)
        total += number * int((block.long() * weights).sum())
    return total
