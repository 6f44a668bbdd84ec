"""Compute settings of a score: full precision and threads of its own, whatever the training around it has set."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import torch

from lis_lightning.functional.threads import block_threads

_REDUCED = ("tf32", "bf16")


@contextlib.contextmanager
def score_settings(device: torch.device | str = "cpu") -> Iterator[None]:
    """Compute in full precision, with blocks of work on one thread each, and restore the settings afterwards.

    Args:
        device: Device of the score.

    Example:
        >>> import torch
        >>> with score_settings():
        ...     torch.get_num_threads()
        1
    """
    with full_precision(device), block_threads():
        yield


@contextlib.contextmanager
def full_precision(device: torch.device | str = "cpu") -> Iterator[None]:
    """Switch autocast and reduced-precision products off within a block, and restore the settings afterwards.

    ``torch.set_float32_matmul_precision("medium")``, which a training sets for its own speed, would change AIS in the
    fourth decimal. That setting belongs to the process, not to the thread: a background thread leaves it as it is,
    because the training is running meanwhile.

    Args:
        device: Device of the score.

    Example:
        >>> import torch
        >>> with torch.autocast("cpu", torch.bfloat16), full_precision():
        ...     (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
        torch.float32
    """
    kinds = {"cpu", torch.device(device).type}
    with contextlib.ExitStack() as stack:
        for kind in sorted(kinds):
            stack.enter_context(torch.autocast(kind, enabled=False))
        if threading.current_thread() is threading.main_thread():
            stack.enter_context(_full_products())
        yield


@contextlib.contextmanager
def _full_products() -> Iterator[None]:
    """Compute float32 products in float32."""
    backends: list[Any] = [torch.backends.cuda.matmul, torch.backends.mkldnn]
    backends[1] = getattr(backends[1], "matmul", None)
    if not all(hasattr(backend, "fp32_precision") for backend in backends):  # torch before 2.9
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)
        return
    reduced = [(backend, backend.fp32_precision) for backend in backends if backend.fp32_precision in _REDUCED]
    try:
        for backend, _ in reduced:
            backend.fp32_precision = "ieee"
        yield
    finally:
        for backend, precision in reduced:
            backend.fp32_precision = precision
