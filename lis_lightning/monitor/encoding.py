"""Encoding of all items with a module in training, as the training computes."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, TypeVar

import numpy as np
import torch
from pytorch_lightning.utilities.memory import garbage_collection_cuda, is_oom_error
from torch import Tensor, nn

from lis_lightning.errors import ItemError, LisWarning, ShapeError, SnapshotError
from lis_lightning.monitor import sharding
from lis_lightning.monitor.batches import Batches
from lis_lightning.monitor.chunks import Chunk, item_ids_of, types_differ
from lis_lightning.monitor.encoder import Encoder
from lis_lightning.monitor.isolation import random_state, restore_random_state, undisturbed
from lis_lightning.monitor.submodule_encoder import BoundEncode
from lis_lightning.monitor.training import Training
from lis_lightning.scoring.metric import LeakageImpactScore

Value = TypeVar("Value")


def encode_items(
    training: Training, module: nn.Module, batches: Batches, encode: Encoder, item_key: str = "item_id"
) -> Generator[tuple[list[Any], Tensor], None, None]:
    """Yield the ids and representations of item batches, computed as the training computes.

    Under Lightning batches are converted by the precision plugin and moved by the strategy. The encode runs in the
    plugin's forward context (autocast as in training) while the Trainer is in its validation stage, so that hooks which
    augment training batches do nothing. A batch that does not fit into memory is encoded in halves, and later batches
    are no larger. If a forward is a collective operation (FSDP), all processes run the same number of them. Call it
    within :func:`undisturbed`.

    Args:
        training: The training in progress.
        module: The module in training.
        batches: Item batches, dicts with `item_key`.
        encode: Called with the module and a batch; returns [B, D].
        item_key: Key of the ids in a batch.

    Yields:
        The B ids of a batch, and its representations: [B, D] float32, on the device they were computed on.

    Raises:
        ConfigError: If a batch is not a dict or has no `item_key`.
        ShapeError: If `encode` does not return a tensor with one row per item.
    """

    def encode_chunk(chunk: Chunk) -> tuple[list[Any], Tensor]:
        batch = chunk.batch()
        ids = item_ids_of(batch, item_key)
        with training.computing():
            return ids, _checked(encode(module, training.moved(batch)), ids)

    with sharding.ready(module):
        if training.shards(module):
            for chunk, own in _in_lockstep(training, batches):
                result = encode_chunk(chunk)
                if own:
                    yield result
        else:
            for chunk in batches.chunks():
                yield from _in_halves(encode_chunk, chunk, batches)


def check_encoder(
    encode: Encoder, module: nn.Module, batches: Batches, item_ids: Iterable[Any], item_key: str = "item_id"
) -> None:
    """Check before training, on a batch of one item, that the encoder finds what it needs in a batch.

    Args:
        encode: The encoder; not called.
        module: The module in training.
        batches: Item batches.
        item_ids: Item ids of the split.
        item_key: Key of the ids in a batch.

    Raises:
        ConfigError: If the batch has no ids, or lacks what a submodule takes; see
            :class:`lis_lightning.monitor.Encode`.
        ItemError: If the ids are of another type than those of the split.
    """
    batch = None
    with undisturbed(module, batches), contextlib.suppress(Exception):
        batch = batches.first()  # an item that cannot be read is reported by the first snapshot
    if batch is None:
        return
    if difference := types_differ(np.asarray(item_ids).tolist(), item_ids_of(batch, item_key)):
        raise ItemError(difference)
    if isinstance(encode, BoundEncode):
        encode.check(batch)


def collect(encoded: Generator[tuple[list[Any], Tensor]], metric: LeakageImpactScore, item_ids: Iterable[Any]) -> int:
    """Feed encoded items to a metric, and return the number of items that are not in its split.

    Args:
        encoded: Ids and representations; read to the end.
        metric: The metric to update.
        item_ids: Item ids of its split.

    Raises:
        ItemError: If the ids are of another type than those of the split.
    """
    wanted = np.asarray(item_ids).tolist()
    split_items = set(wanted)
    skipped = 0
    with contextlib.closing(encoded):
        for ids, embeddings in encoded:
            rows = [row for row, item in enumerate(ids) if item in split_items]
            skipped += len(ids) - len(rows)
            if not rows and (difference := types_differ(wanted, ids)):
                raise ItemError(difference)
            if rows:
                metric.update([ids[row] for row in rows], embeddings[rows].to(metric.device))
    return skipped


def _in_halves(encode: Callable[[Chunk], Value], chunk: Chunk, batches: Batches) -> Iterator[Value]:
    """Encode a chunk, in halves if memory runs out; a failed attempt does not change the random states."""
    pending = [chunk]
    while pending:
        part = pending.pop(0)
        state = random_state()
        try:
            result = encode(part)
        except Exception as error:
            if len(part) < 2 or not _out_of_memory(error):
                raise
        else:
            yield result
            continue
        # Outside the handler, in which the error still references the frames and tensors of the failed attempt.
        restore_random_state(state)
        garbage_collection_cuda()
        first_time = batches.limit is None
        batches.limit = (len(part) + 1) // 2
        pending = [*part.split(batches.limit), *pending]
        if first_time:
            warnings.warn(
                f"LISMonitor: {len(part)} items did not fit into memory together. They are encoded in halves, and "
                f"later batches are no larger; set `batch_size={batches.limit}` or less to avoid the failed attempt.",
                LisWarning,
                stacklevel=2,
            )


def _out_of_memory(error: Exception) -> bool:
    """Return whether an error means that memory ran out; Lightning does not recognise all of them."""
    kinds = (torch.OutOfMemoryError, MemoryError)
    return isinstance(error, kinds) or is_oom_error(error) or "not enough memory" in str(error)


def _in_lockstep(training: Training, batches: Batches) -> Iterator[tuple[Chunk, bool]]:
    """Yield this process's chunks with True, then spare ones with False until all processes have finished."""
    chunks = batches.chunks()
    while True:
        chunk, error = None, None
        try:
            chunk = next(chunks, None)
        except Exception as caught:
            error = caught
        status = torch.tensor([chunk is not None, error is not None], dtype=torch.float32)
        remaining, failed = training.total(status).tolist()
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
