"""Threads of a score: blocks of work in parallel, each on one thread.

A score consists of thousands of small tensor operations. If each is divided among the threads of torch, every one of
them ends at a barrier where threads spin until the last has run; beside another busy process that takes 30 times the
CPU seconds. Here the operations run on one thread each, and independent blocks of them run side by side.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import torch

Block = TypeVar("Block")
Value = TypeVar("Value")

_local = threading.local()  # `pool` of the thread that entered `block_threads`
_lock = threading.Lock()


@contextlib.contextmanager
def block_threads() -> Iterator[None]:
    """Run tensor operations of this thread on one thread each within a block, and :func:`map_blocks` on several.

    The number of threads is that of torch in the main thread, and 1 in another, such as one that scores in the
    background of a training. The settings of this thread are restored afterwards; those of other threads never change.

    Example:
        >>> before = torch.get_num_threads()
        >>> with block_threads():
        ...     torch.get_num_threads()
        1
        >>> torch.get_num_threads() == before
        True
    """
    if getattr(_local, "pool", None) is not None:  # within another block
        yield
        return
    threads = torch.get_num_threads()
    workers = threads if threading.current_thread() is threading.main_thread() else 1
    _set_own_threads(1)
    try:
        with ThreadPoolExecutor(workers, "lis-block", _set_own_threads, (1,)) as pool:
            if workers > 1:
                all_started = threading.Barrier(workers)
                list(pool.map(lambda _: all_started.wait(), range(workers)))
            _local.pool = None if workers == 1 else pool
            _local.workers = workers
            yield
    finally:
        _local.pool = None
        _set_own_threads(threads)


def map_blocks(
    function: Callable[[Block], Value], blocks: Iterable[Block], device: torch.device | None = None
) -> Iterator[Value]:
    """Yield the values of a function on blocks, in order; within :func:`block_threads` several are computed at a time.

    Args:
        function: Called with each block, from any thread.
        blocks: The blocks; read as far ahead as there are threads.
        device: Device of the tensors; other devices than the CPU compute in parallel by themselves.

    Example:
        >>> with block_threads():
        ...     list(map_blocks(lambda block: block * block, range(4)))
        [0, 1, 4, 9]
    """
    pool: ThreadPoolExecutor | None = getattr(_local, "pool", None)
    if pool is None or (device is not None and device.type != "cpu"):
        yield from map(function, blocks)
        return
    pending: deque[Future[Value]] = deque()
    try:
        for block in blocks:
            pending.append(pool.submit(function, block))
            if len(pending) > _local.workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()


def for_each_block(
    function: Callable[[Block], object], blocks: Iterable[Block], device: torch.device | None = None
) -> None:
    """Call a function on each block; see :func:`map_blocks`."""
    for _ in map_blocks(function, blocks, device):
        pass


def concurrently(*actions: Callable[[], Any], device: torch.device | None = None) -> list[Any]:
    """Return the values of several functions, computed side by side within :func:`block_threads`.

    Args:
        *actions: The functions.
        device: See :func:`map_blocks`.

    Example:
        >>> concurrently(lambda: 1, lambda: "two")
        [1, 'two']
    """
    return list(map_blocks(lambda action: action(), actions, device))


def _set_own_threads(threads: int) -> None:
    """Set the number of torch's threads for this thread only.

    ``torch.set_num_threads`` sets it for this thread and for all that start later, to which a thread of the training
    may belong: another thread restores their number.
    """
    with _lock:
        later = _in_new_thread(torch.get_num_threads)
        torch.get_num_threads()  # a thread that has not used it yet would replace what is set here
        torch.set_num_threads(threads)
        _in_new_thread(lambda: torch.set_num_threads(later))


def _in_new_thread(function: Callable[[], Value]) -> Value:
    values: list[Value] = []
    thread = threading.Thread(target=lambda: values.append(function()))
    thread.start()
    thread.join()
    return values[0]
