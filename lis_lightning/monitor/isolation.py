"""Isolation of an encode from the training: everything the training depends on is restored afterwards.

A plain ``model.eval(); encode(); model.train()`` changes the rest of the run: frozen submodules return in train mode,
dropout and augmentation draw other random numbers (even ``DataLoader(shuffle=False)`` draws from the global generator),
compiled modules recompile for new shapes and may fall back to other kernels, and a forward may write buffers, metrics
and logs. :func:`undisturbed` undoes or avoids each of these, also when the encode raises. Parameters are not restored:
a copy would double the memory of the module. The raw snapshot checks that an encode leaves them alone.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torchmetrics import Metric

from lis_lightning.errors import ConfigError
from lis_lightning.monitor.generators import generators_restored

MAX_COPIED = 2**26  # bytes of a buffer that is copied at every snapshot; the raw snapshot checks a larger one
SEED = 0  # random draws while encoding are equal at every snapshot, so that snapshots can be paired


@contextlib.contextmanager
def undisturbed(module: nn.Module, *holders: Any) -> Iterator[None]:
    """Switch a module to evaluation mode within a block, and restore everything the training depends on afterwards.

    Within the block there are no gradients, the random seed is fixed, compiled modules run eagerly, and ``self.log``
    does nothing. Restored afterwards, also after an exception: the mode of each submodule, buffers, the states of
    torchmetrics, the random states of torch (CPU and, if CUDA is in use, every CUDA device), NumPy and Python, and
    those of all generators that can be reached.

    Args:
        module: The module in training.
        holders: Datasets, loaders and functions whose random generators are restored too.

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
    restored = (generators_restored(module, *holders), _buffers_restored(module), _metrics_restored(module))
    try:
        with contextlib.ExitStack() as stack:
            for context in (*restored, _logging_muted(module)):
                stack.enter_context(context)
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


def check_initialized(module: nn.Module) -> None:
    """Check that no parameter waits for its first batch: the raw snapshot would initialise it in place of the training.

    Raises:
        ConfigError: If there is one, with its name.
    """
    for name, tensor in itertools.chain(module.named_parameters(), module.named_buffers()):
        if is_lazy(tensor):
            raise ConfigError(
                f"{type(module).__name__} has the uninitialised parameter {name!r} of a lazy module: a snapshot would "
                "initialise it from the items and other random numbers. Run one batch through the module before "
                "`trainer.fit`, or in `configure_model`."
            )


@contextlib.contextmanager
def _buffers_restored(module: nn.Module) -> Iterator[None]:
    """Restore buffers that the block writes to or replaces, such as a queue of keys or a counter."""
    before = []
    for child in module.modules():
        for name, buffer in child._buffers.items():
            if buffer is not None and buffer.nbytes <= MAX_COPIED:
                before.append((child, name, buffer, buffer.detach().clone()))
    try:
        yield
    finally:
        with torch.inference_mode(False), torch.no_grad():
            for child, name, buffer, copied in before:
                # One that is not saved is a cache; what replaced it may belong to attributes that grew with it.
                if child._buffers.get(name) is not buffer and name not in child._non_persistent_buffers_set:
                    child._buffers[name] = buffer
                if buffer.shape != copied.shape:
                    buffer.data = copied
                elif not torch.equal(buffer, copied):
                    buffer.copy_(copied)


@contextlib.contextmanager
def _metrics_restored(module: nn.Module) -> Iterator[None]:
    """Restore the states of the torchmetrics in a module."""
    metrics = [child for child in module.modules() if isinstance(child, Metric)]
    names = [[*metric._defaults, "_update_count", "_computed", "_forward_cache"] for metric in metrics]
    before = []
    for metric, attributes in zip(metrics, names, strict=True):
        before.append({name: _copied(getattr(metric, name)) for name in attributes})
    try:
        yield
    finally:
        for metric, attributes_before in zip(metrics, before, strict=True):
            for name, value in attributes_before.items():
                setattr(metric, name, value)


def _copied(value: Any) -> Any:
    """Return a copy of a metric's state: a tensor, or a list of tensors that is only appended to."""
    if isinstance(value, list):
        return list(value)
    return value.detach().clone() if isinstance(value, Tensor) else value


@contextlib.contextmanager
def _logging_muted(module: nn.Module) -> Iterator[None]:
    """Let ``self.log`` and ``self.log_dict`` do nothing: the values would go into the curves of the training."""
    modules = [child for child in module.modules() if _is_lightning(child)]
    before = [dict(vars(child)) for child in modules]
    for child in modules:
        vars(child).update(log=_ignore, log_dict=_ignore)
    try:
        yield
    finally:
        for child, attributes in zip(modules, before, strict=True):
            for name in ("log", "log_dict"):
                del vars(child)[name]
                if name in attributes:
                    vars(child)[name] = attributes[name]


def _is_lightning(module: nn.Module) -> bool:
    """Return whether a module is a LightningModule of ``pytorch_lightning`` or ``lightning.pytorch``."""
    return any(kind.__name__ == "LightningModule" for kind in type(module).__mro__)


def _ignore(*_: Any, **__: Any) -> None:
    """Log nothing."""


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
