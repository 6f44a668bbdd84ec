"""Encoding all items with a module in training, without side effects on the training.

A plain ``model.eval(); encode(); model.train()`` changes the rest of the run: frozen parts return in train mode,
dropout and augmentation draw other random numbers (even ``DataLoader(shuffle=False)`` draws from the global generator),
and compiled modules recompile for new shapes and may fall back to other kernels. :func:`undisturbed` undoes or avoids
each of these, also when the encode raises.
"""

from __future__ import annotations

import contextlib
import random
import sys
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.memory import garbage_collection_cuda, is_oom_error
from torch import Tensor, nn

from lis_lightning.errors import LisWarning, ShapeError, SnapshotError
from lis_lightning.monitor import sharding as _sharding
from lis_lightning.monitor.batches import SEED, Batches, Chunk, item_ids_of
from lis_lightning.monitor.encoding import BoundEncode, Encoder
from lis_lightning.scoring.metric import LeakageImpactScore

Value = TypeVar("Value")


@contextlib.contextmanager
def undisturbed(module: nn.Module) -> Iterator[None]:
    """Switch a module to evaluation, and restore everything the training depends on afterwards.

    Inside: no gradients, evaluation mode, a fixed seed, compiled modules run eagerly. Restored on every path: the mode
    of each submodule by itself, the random states of torch (CPU and, once in use, every CUDA device), NumPy and Python.

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
    state = _random_state()
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
        _restore_random_state(state)


def encode_items(
    trainer: pl.Trainer, module: pl.LightningModule, batches: Batches, encode: Encoder, item_key: str = "item_id"
) -> Generator[tuple[list[Any], Tensor], None, None]:
    """Yield the ids and representations of item batches, computed as the Trainer computes.

    Batches are converted by the precision plugin and moved by the strategy; the encode runs in the plugin's forward
    context (autocast as in training) while the Trainer is in its validation stage, so that hooks which augment training
    batches do nothing. A batch that does not fit into memory is encoded in halves, and later ones are no larger. If a
    forward is a collective operation (FSDP), all processes run equally many. Call it within :func:`undisturbed`.

    Args:
        trainer: The Trainer in charge.
        module: The module in training.
        batches: Item batches, dicts with `item_key`.
        encode: Called with the module and a batch; returns [B, D].
        item_key: Key of the ids in a batch.

    Yields:
        The B ids of a batch, and its representations: [B, D] float32, on the device they were computed on.

    Raises:
        SnapshotError: If a batch is no dict or has no `item_key`.
        ShapeError: If `encode` returns no tensor, or not one row an item.
    """

    def encoded(chunk: Chunk) -> tuple[list[Any], Tensor]:
        batch = chunk.batch()
        ids = item_ids_of(batch, item_key)
        with _validation_stage(trainer), trainer.precision_plugin.forward_context():
            moved = trainer.strategy.batch_to_device(trainer.precision_plugin.convert_input(batch))
            return ids, _checked(encode(module, moved), ids)

    with batches.generators_kept(), _sharding.ready(module):
        if _sharding.sharded(trainer, module):
            for chunk, ours in _in_step(trainer, batches):
                result = encoded(chunk)
                if ours:
                    yield result
        else:
            for chunk in batches.chunks():
                yield from _fitting(encoded, chunk, batches)


def check(encode: Encoder, module: nn.Module, batches: Batches) -> None:
    """Check before training, on a batch of one item, that the encoder finds what it needs in a batch.

    Raises:
        ConfigError: If it does not; see :class:`lis_lightning.monitor.encoding.Encode`.
    """
    if isinstance(encode, BoundEncode):
        batch = None
        with undisturbed(module), batches.generators_kept(), contextlib.suppress(Exception):
            batch = batches.first()  # an unreadable item is reported by the first snapshot
        if isinstance(batch, Mapping):
            encode.check(batch)


def collect(encoded: Generator[tuple[list[Any], Tensor]], metric: LeakageImpactScore, item_ids: Iterable[Any]) -> int:
    """Feed encoded items to a metric, and return the number of those that are not in its split.

    Args:
        encoded: Ids and representations; read to the end.
        metric: The metric to update.
        item_ids: Item ids of its split.
    """
    split_items = set(np.asarray(item_ids).tolist())
    skipped = 0
    with contextlib.closing(encoded):
        for ids, embeddings in encoded:
            rows = [row for row, item in enumerate(ids) if item in split_items]
            skipped += len(ids) - len(rows)
            if rows:
                metric.update([ids[row] for row in rows], embeddings[rows].to(metric.device))
    return skipped


def _fitting(encode: Callable[[Chunk], Value], chunk: Chunk, batches: Batches) -> Iterator[Value]:
    """Encode a chunk, in halves if it does not fit into memory; a failed attempt leaves no trace in random states."""
    pending = [chunk]
    while pending:
        part = pending.pop(0)
        state = _random_state()
        try:
            result = encode(part)
        except Exception as error:
            if len(part) < 2 or not _out_of_memory(error):
                raise
        else:
            yield result
            continue
        # Outside the handler, in which the error still references the frames and tensors of the failed attempt.
        _restore_random_state(state)
        garbage_collection_cuda()
        first = batches.limit is None
        batches.limit = (len(part) + 1) // 2
        pending = [*part.split(batches.limit), *pending]
        if first:
            warnings.warn(
                f"LISMonitor: {len(part)} items did not fit into memory together. They are encoded in halves, and "
                f"later batches are no larger; set `batch_size={batches.limit}` or less to save the attempt.",
                LisWarning,
                stacklevel=2,
            )


def _out_of_memory(error: Exception) -> bool:
    """Return whether an error means that memory ran out; Lightning does not recognise all of them."""
    kinds = (torch.OutOfMemoryError, MemoryError)
    return isinstance(error, kinds) or is_oom_error(error) or "not enough memory" in str(error)


def _in_step(trainer: pl.Trainer, batches: Batches) -> Iterator[tuple[Chunk, bool]]:
    """Yield this process's chunks with True, then spare ones with False until all processes have finished."""
    chunks = batches.chunks()
    while True:
        chunk, error = None, None
        try:
            chunk = next(chunks, None)
        except Exception as caught:
            error = caught
        status = torch.tensor([chunk is not None, error is not None], dtype=torch.float32)
        remaining, failed = trainer.strategy.reduce(status.to(trainer.strategy.root_device), reduce_op="sum").tolist()
        if failed:
            raise error or SnapshotError("another process could not read its items")
        if not remaining:
            return
        yield (batches.spare(), False) if chunk is None else (chunk, True)


def _checked(output: Any, ids: list[Any]) -> Tensor:
    """Return the output of `encode` as float32; raise unless it has one row per item."""
    if not isinstance(output, Tensor):
        raise ShapeError(
            f"`encode` must return a tensor of shape [{len(ids)}, D], got {type(output).__name__}. Return the pooled "
            "embedding, not the whole output of the model."
        )
    if output.ndim != 2 or output.shape[0] != len(ids):
        raise ShapeError(f"`encode` must return [{len(ids)}, D] for {len(ids)} items, got {list(output.shape)}.")
    return output.detach().float()


@contextlib.contextmanager
def _validation_stage(trainer: pl.Trainer) -> Iterator[None]:
    """Put the Trainer into its validation stage, for hooks that read `trainer.training`."""
    stage = trainer.state.stage
    trainer.validating = True
    try:
        yield
    finally:
        trainer.state.stage = stage


def _eager() -> contextlib.AbstractContextManager[Any]:
    """Run compiled modules eagerly: new shapes must not add graphs, nor use up the training's recompile limit."""
    if "torch._dynamo" not in sys.modules:  # nothing was compiled, and the import takes a second
        return contextlib.nullcontext()
    stance: contextlib.AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance


def _random_state() -> tuple[Any, ...]:
    """Return all random states that a training step may read."""
    cuda = torch.cuda.get_rng_state_all() if _cuda_in_use() else None
    return torch.get_rng_state(), cuda, np.random.get_state(), random.getstate()


def _restore_random_state(state: tuple[Any, ...]) -> None:
    """Undo everything drawn since :func:`_random_state`."""
    cpu, cuda, numpy, python = state
    torch.set_rng_state(cpu)
    if cuda is not None:
        torch.cuda.set_rng_state_all(cuda)
    np.random.set_state(numpy)
    random.setstate(python)


def _seed(seed: int) -> None:
    """Seed what `_random_state` saves; `torch.manual_seed` would also queue a seed for devices not yet in use."""
    torch.default_generator.manual_seed(seed)
    if _cuda_in_use():
        torch.cuda.manual_seed_all(seed)
    np.random.seed(seed)
    random.seed(seed)


def _cuda_in_use() -> bool:
    """Return whether CUDA is initialised; reading its random states would initialise it."""
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]
