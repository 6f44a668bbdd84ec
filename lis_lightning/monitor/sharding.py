"""Calls of a submodule in a model that FSDP2 shards over several processes.

FSDP2 (``fully_shard``) gathers parameters in hooks of `forward`. Calling a submodule directly bypasses the hooks of the
modules around it, and the first module that runs becomes the FSDP root: if that is a submodule, the next training step
raises. Every forward is a collective operation, so all processes must run the same number of them.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import nn


@contextlib.contextmanager
def ready(module: nn.Module) -> Iterator[None]:
    """Let submodules be called before the whole module, and reshard it afterwards, also after an error.

    Args:
        module: Any module; nothing happens unless ``fully_shard`` was applied to parts of it.
    """
    modules = fsdp_modules(module)
    roots = []
    for name, child in modules.items():
        if not any(_within(name, outer) for outer in modules):
            roots.append(child)
    for root in roots:
        _with_forward(root, lambda: None)()
    try:
        yield
    except BaseException:
        for root in roots:
            if hasattr(root, "reset_iter_state"):  # since torch 2.13
                root.reset_iter_state()
        raise
    finally:
        for child in modules.values():
            child.reshard()


def caller(module: nn.Module, part: nn.Module) -> Callable[..., Any]:
    """Return a function that calls a submodule such that the FSDP2 modules around it gather their parameters.

    Args:
        module: The whole module, after ``fully_shard``.
        part: One of its submodules, or itself.
    """
    modules = fsdp_modules(module)
    if not modules:
        return part
    name = next(name for name, child in module.named_modules() if child is part)
    around = [child for outer, child in modules.items() if _within(name, outer)]  # from the outside in
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


def fsdp_modules(module: nn.Module) -> dict[str, Any]:
    """Return the modules that ``fully_shard`` was applied to, parents first, by name."""
    if "torch.distributed.fsdp" not in sys.modules:
        return {}
    from torch.distributed.fsdp import FSDPModule

    return {name: child for name, child in module.named_modules() if isinstance(child, FSDPModule)}


def _within(name: str, outer: str) -> bool:
    """Return whether `name` names a submodule of the module `outer`."""
    return name != outer and (not outer or name.startswith(f"{outer}."))
