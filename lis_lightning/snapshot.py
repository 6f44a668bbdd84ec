"""Take the representations of all items from a module in training, and leave no trace in the training.

What a plain ``model.eval(); encode(); model.train()`` changes in the run that follows: frozen parts come back in train
mode, dropout and augmentation draw other random numbers (even ``DataLoader(shuffle=False)`` draws from the global
generator), compiled modules compile again for new shapes and may fall back to other kernels. :func:`undisturbed` undoes
or avoids each, also when the encode raises.
"""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, DistributedSampler, IterableDataset, Subset

from lis_lightning.errors import ConfigError, ShapeError, SnapshotError
from lis_lightning.metric import LeakageImpactScore

SEED = 0  # random draws while encoding (noise in a dataset, say) are the same at every snapshot, so that they pair

Value = TypeVar("Value")
Encoder = Callable[[Any, Any], Any]
Items = Dataset[Any] | DataLoader[Any] | Sequence[Any]


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
        # Not `module.eval()`: a `train()` that somebody overrode may merge weights or draw random numbers.
        for child, _ in modes:
            child.training = False
        _seed(SEED)
        with torch.no_grad(), _eager():
            yield
    finally:
        for child, mode in modes:
            child.training = mode
        _restore_random_state(state)


def make_loader(
    items: Items,
    item_ids: Iterable[Any],
    *,
    batch_size: int = 64,
    collate_fn: Callable[[list[Any]], Any] | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> Iterable[Any]:
    """Return batches of this rank's share of the items; all ranks together give every item.

    Args:
        items: Dicts of one item each (a map-style or iterable dataset, or a list), or a DataLoader of item batches. If
            it has an attribute ``item_ids``, in the order of its rows, then only rows of `item_ids` are read.
        item_ids: Ids of the items that must be encoded.
        batch_size: Items per batch; a DataLoader keeps its own.
        collate_fn: Makes a batch of a list of items; a DataLoader keeps its own.
        rank: Rank of this process.
        world_size: Number of processes. A DataLoader is shared out by batches, or not at all where a
            DistributedSampler does so already.

    Raises:
        SnapshotError: If ``items.item_ids`` shows that items are missing; the count and the first five are named.
        ConfigError: If `items` is neither a dataset nor a DataLoader, or `batch_size` is below 1.
    """
    if isinstance(items, IterableDataset):
        items = _loader(items, batch_size, collate_fn)
    if isinstance(items, DataLoader):
        return items if isinstance(items.sampler, DistributedSampler) else _EveryNth(items, rank, world_size)
    if not (hasattr(items, "__getitem__") and hasattr(items, "__len__")):
        raise ConfigError(
            f"`items` must be a Dataset or DataLoader of dicts that hold an item id, got {type(items).__name__}."
        )
    rows = _rows(items, item_ids)[rank::world_size]
    return _loader(Subset(items, rows), batch_size, collate_fn)  # type: ignore[arg-type]  # a list indexes as well


def encode_items(
    trainer: pl.Trainer, module: pl.LightningModule, batches: Iterable[Any], encode: Encoder, item_key: str = "item_id"
) -> Generator[tuple[list[Any], Tensor], None, None]:
    """Yield the ids and representations of item batches, computed as the Trainer computes.

    Batches are converted by the precision plugin and moved by the strategy; the encode runs in the plugin's forward
    context (autocast as in training) while the Trainer is in its validation stage, so that hooks that augment training
    batches stay quiet. Call it within :func:`undisturbed`.

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
    with _own_generators_kept(batches):
        for batch in batches:
            ids = _ids(batch, item_key)
            with _validation_stage(trainer), trainer.precision_plugin.forward_context():
                moved = trainer.strategy.batch_to_device(trainer.precision_plugin.convert_input(batch))
                output = encode(module, moved)
            yield ids, _checked(output, ids)


def collect(encoded: Generator[tuple[list[Any], Tensor]], metric: LeakageImpactScore, item_ids: Iterable[Any]) -> int:
    """Feed what :func:`encode_items` yields to a metric, and return how many items it does not know.

    Args:
        encoded: Ids and representations; read to the end.
        metric: Where they are added up.
        item_ids: The ids that the metric knows.
    """
    known = set(np.asarray(item_ids).tolist())
    skipped = 0
    with contextlib.closing(encoded):
        for ids, embeddings in encoded:
            rows = [row for row, item in enumerate(ids) if item in known]
            skipped += len(ids) - len(rows)
            if rows:
                metric.update([ids[row] for row in rows], embeddings[rows].to(metric.device))
    return skipped


def together(trainer: pl.Trainer, action: Callable[[], Value]) -> Value:
    """Do something on every process; where it fails on one it fails on all, so that none waits for the others.

    Raises:
        SnapshotError: With several processes, naming those that failed and why. A single one raises its own error.
    """
    error: Exception | None = None
    try:
        value = action()
    except Exception as caught:
        error = caught
    if trainer.strategy.reduce_boolean_decision(error is None, all=True):
        return value
    if trainer.world_size == 1 and error is not None:
        raise error
    texts: list[str | None] = [None] * trainer.world_size
    torch.distributed.all_gather_object(texts, error and f"{type(error).__name__}: {error}")
    raise SnapshotError("; ".join(f"process {rank}: {text}" for rank, text in enumerate(texts) if text)) from error


class _EveryNth:
    """Every n-th batch of a loader: one rank's share. The ranks see one order, since the seed is fixed."""

    def __init__(self, loader: DataLoader[Any], rank: int, world_size: int) -> None:
        self.loader = loader
        self.rank = rank
        self.world_size = world_size

    def __iter__(self) -> Iterator[Any]:
        return islice(self.loader, self.rank, None, self.world_size)


def _loader(items: Dataset[Any], batch_size: int, collate_fn: Callable[[list[Any]], Any] | None) -> DataLoader[Any]:
    """Return a loader in the order of the items, with a generator of its own."""
    if batch_size < 1:
        raise ConfigError(f"`batch_size` must be at least 1 item, got {batch_size}.")
    generator = torch.Generator().manual_seed(SEED)
    return DataLoader(items, batch_size=batch_size, shuffle=False, collate_fn=collate_fn, generator=generator)


def _rows(items: Any, item_ids: Iterable[Any]) -> list[int]:
    """Return the rows of a dataset to encode: those of `item_ids` if it can say, else all."""
    offered = getattr(items, "item_ids", None)
    if offered is None:
        return list(range(len(items)))
    offered = np.asarray(offered).tolist()
    if len(offered) != len(items):
        raise SnapshotError(
            f"`items.item_ids` holds {len(offered)} ids for {len(items)} rows; one is needed for each row, in order."
        )
    wanted = np.asarray(item_ids).tolist()
    present = set(offered)
    missing = [item for item in wanted if item not in present]
    if missing:
        raise SnapshotError(
            f"{len(missing)} of the split's {len(wanted)} items are not among the {len(offered)} of `items`: "
            f"{missing[:5]}{' ...' if len(missing) > 5 else ''}. `items` starts with {offered[:5]}. Add the items, or "
            "leave their events out of the log."
        )
    known = set(wanted)
    return [row for row, item in enumerate(offered) if item in known]


def _ids(batch: Any, item_key: str) -> list[Any]:
    """Return the ids of a batch as plain values."""
    if not isinstance(batch, Mapping):
        raise SnapshotError(
            f"An item batch must be a dict with the key {item_key!r}, got {type(batch).__name__}. Let the dataset "
            "return dicts, or pass a `collate_fn` that makes one."
        )
    if item_key not in batch:
        raise SnapshotError(f"An item batch has no key {item_key!r}, only {sorted(map(str, batch))}; set `item_key`.")
    ids = batch[item_key]
    plain: list[Any] = ids.tolist() if isinstance(ids, Tensor | np.ndarray) else list(ids)
    return plain


def _checked(output: Any, ids: list[Any]) -> Tensor:
    """Return what was encoded as float32, if it is one row an item."""
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
    """Let hooks that look at `trainer.training` see an evaluation."""
    stage = trainer.state.stage
    trainer.validating = True
    try:
        yield
    finally:
        trainer.state.stage = stage


@contextlib.contextmanager
def _own_generators_kept(batches: Iterable[Any]) -> Iterator[None]:
    """Restore a loader's own generators: the training may draw from them too."""
    loader = batches.loader if isinstance(batches, _EveryNth) else batches
    owned = [getattr(owner, "generator", None) for owner in (loader, getattr(loader, "sampler", None))]
    generators = [generator for generator in owned if isinstance(generator, torch.Generator)]
    states = [generator.get_state() for generator in generators]
    try:
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


def _eager() -> contextlib.AbstractContextManager[Any]:
    """Run compiled modules eagerly: new shapes must not add graphs, nor use up the training's recompile limit."""
    if "torch._dynamo" not in sys.modules:  # nothing was compiled, and loading it takes a second
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
    """Whether there are CUDA random states; asking for them would otherwise start CUDA."""
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]
