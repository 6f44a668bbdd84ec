"""Isolation of an encode from the training: everything the training depends on is restored afterwards.

A plain ``model.eval(); encode(); model.train()`` changes the rest of the run: frozen submodules return in train mode,
dropout and augmentation draw other random numbers (even ``DataLoader(shuffle=False)`` draws from the global generator),
and compiled modules recompile for new shapes and may fall back to other kernels. :func:`undisturbed` undoes or avoids
each of these, also when the encode raises.
"""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

SEED = 0  # random draws while encoding are equal at every snapshot, so that snapshots can be paired


@contextlib.contextmanager
def undisturbed(module: nn.Module) -> Iterator[None]:
    """Switch a module to evaluation mode within a block, and restore everything the training depends on afterwards.

    Within the block there are no gradients, the random seed is fixed, and compiled modules run eagerly. Restored
    afterwards, also after an exception: the mode of each submodule, and the random states of torch (CPU and, if CUDA is
    in use, every CUDA device), NumPy and Python.

    Args:
        module: The module in training.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> module = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2).eval())
        >>> before = torch.get_rng_state()
        >>> with undisturbed(module):
        ...     module.training, torch.rand(1).shape
        (False, torch.Size([1]))
        >>> [child.training for child in module], torch.equal(before, torch.get_rng_state())
        ([True, False], True)
    """
    modes = [(child, child.training) for child in module.modules()]
    state = random_state()
    try:
        # Not `module.eval()`: an overridden `train()` may merge weights or draw random numbers.
        for child, _ in modes:
            child.training = False
        _seed(SEED)
        # Validation hooks run in inference mode; a module that caches such tensors would fail in training.
        with torch.inference_mode(False), torch.no_grad(), _eager():
            yield
    finally:
        for child, mode in modes:
            child.training = mode
        restore_random_state(state)


def _eager() -> contextlib.AbstractContextManager[Any]:
    """Run compiled modules eagerly: new shapes must not add graphs, nor use up the training's recompile limit."""
    if "torch._dynamo" not in sys.modules:  # nothing was compiled, and the import takes a second
        return contextlib.nullcontext()
    stance: contextlib.AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance


def random_state() -> tuple[Any, ...]:
    """Return all random states that a training step may read."""
    cuda = torch.cuda.get_rng_state_all() if _cuda_in_use() else None
    return torch.get_rng_state(), cuda, np.random.get_state(), random.getstate()


def restore_random_state(state: tuple[Any, ...]) -> None:
    """Undo everything drawn since :func:`random_state`."""
    cpu, cuda, numpy, python = state
    torch.set_rng_state(cpu)
    if cuda is not None:
        torch.cuda.set_rng_state_all(cuda)
    np.random.set_state(numpy)
    random.setstate(python)


def _seed(seed: int) -> None:
    """Seed what `random_state` returns; `torch.manual_seed` would also queue a seed for devices not yet in use."""
    torch.default_generator.manual_seed(seed)
    if _cuda_in_use():
        torch.cuda.manual_seed_all(seed)
    np.random.seed(seed)
    random.seed(seed)


def _cuda_in_use() -> bool:
    """Return whether CUDA is initialised; reading its random states would initialise it."""
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]
