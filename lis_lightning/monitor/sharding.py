"""Models whose parameters lie in pieces on several processes: how to call a part of one.

FSDP2 (``fully_shard``) gathers parameters in hooks of `forward`. A part that is called by itself gets past the hooks of
the modules around it, and the first module that runs becomes the root: were that a part, the next training step would
raise. Every forward is a collective, so all processes must make equally many.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytorch_lightning as pl
from torch import nn

# By name: the classes of `lightning.pytorch` and `pytorch_lightning` are different ones.
_STRATEGIES = {"FSDPStrategy", "DeepSpeedStrategy", "ModelParallelStrategy"}


def sharded(trainer: pl.Trainer, module: nn.Module) -> bool:
    """Whether a forward of the module needs the other processes."""
    strategy = {kind.__name__ for kind in type(trainer.strategy).__mro__}
    return trainer.world_size > 1 and bool(strategy & _STRATEGIES or _fsdp_modules(module))


@contextlib.contextmanager
def ready(module: nn.Module) -> Iterator[None]:
    """Let parts of a module be called before the whole, and leave it in pieces, also after an error.

    Args:
        module: Any module; nothing happens unless ``fully_shard`` was applied to parts of it.
    """
    modules = _fsdp_modules(module)
    roots = [(name, one) for name, one in modules.items() if not any(_within(name, other) for other in modules)]
    for _, root in roots:
        _with_forward(root, lambda: None)()
    try:
        yield
    except BaseException:
        for _, root in roots:
            if hasattr(root, "reset_iter_state"):  # since torch 2.13
                root.reset_iter_state()
        raise
    finally:
        for one in modules.values():
            one.reshard()


def caller(module: nn.Module, part: nn.Module) -> Callable[..., Any]:
    """Return a function that calls a part of a module, so that the FSDP2 modules around it gather their parameters.

    Args:
        module: The whole, after ``fully_shard``.
        part: One of its submodules, or itself.
    """
    modules = _fsdp_modules(module)
    if not modules:
        return part
    name = next(name for name, one in module.named_modules() if one is part)
    around = [one for outer, one in modules.items() if _within(name, outer)]  # from the outside in
    return _through(around, part)


def _through(around: Sequence[nn.Module], part: nn.Module) -> Callable[..., Any]:
    """Return a function that calls a part from within the forwards of the modules around it."""
    if not around:
        return part.__call__  # not the module: as an attribute it would become a child
    outer, *inner = around
    return _with_forward(outer, _through(inner, part))


def _with_forward(module: Any, forward: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that calls a module, hooks and all, with another `forward`."""

    def call(**arguments: Any) -> Any:
        before = module.__dict__.get("forward")
        module.forward = forward
        try:
            return module(**arguments)
        finally:
            if before is None:
                del module.forward
            else:
                module.forward = before

    return call


def _fsdp_modules(module: nn.Module) -> dict[str, Any]:
    """Return the modules that ``fully_shard`` was applied to, parents first, by name."""
    if "torch.distributed.fsdp" not in sys.modules:
        return {}
    from torch.distributed.fsdp import FSDPModule

    return {name: one for name, one in module.named_modules() if isinstance(one, FSDPModule)}


def _within(name: str, outer: str) -> bool:
    """Whether a name is that of a module inside another one."""
    return name != outer and (not outer or name.startswith(f"{outer}."))
