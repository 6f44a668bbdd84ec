"""Batches of examples in which every item occurs once, however many examples refer to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from pytorch_lightning.utilities.combined_loader import CombinedLoader
from torch.utils.data import DataLoader, Dataset, DistributedSampler
from typing_extensions import override

from lis_lightning.align.data.examples import MIN_HELD_OUT, Examples
from lis_lightning.errors import ConfigError

Collate = Callable[[list[dict[str, Any]]], dict[str, Any]]


class _Indices(Dataset[int]):
    """The indices of some examples."""

    def __init__(self, indices: NDArray[np.int64]) -> None:
        self.indices = indices

    def __len__(self) -> int:
        return len(self.indices)

    @override
    def __getitem__(self, index: int) -> int:
        return int(self.indices[index])


class WeightedSampler(DistributedSampler[int]):
    """Samples with replacement by weight, with a random generator of its own for each epoch.

    Epoch e of seed s is always the same sequence, whatever else draws random numbers; of n processes each takes every
    n-th draw. Lightning leaves a DistributedSampler as it is, so that a resumed run skips what its process has used.

    Args:
        weights: 0 or more; need not sum to 1.
        num_samples: How many to draw in an epoch, in all processes together.
        seed: Of the draws.
        skip: Draws of this process at the start of the first epoch that were used before the run was resumed.
        num_replicas: Number of processes.
        rank: Of this process.
    """

    def __init__(
        self,
        weights: NDArray[np.float64],
        num_samples: int,
        *,
        seed: int = 0,
        skip: int = 0,
        num_replicas: int = 1,
        rank: int = 0,
    ) -> None:
        super().__init__(range(num_samples), num_replicas, rank, shuffle=False, seed=seed)  # type: ignore[arg-type]
        self.weights = weights
        self.skip = skip

    @override
    def __iter__(self) -> Iterator[int]:
        # Inverse transform sampling from the cumulative weights; all processes draw equally many.
        cumulative = np.cumsum(self.weights)
        points = np.random.default_rng((self.seed, self.epoch)).random(self.total_size) * cumulative[-1]
        skipped, self.skip = self.skip, 0
        drawn = np.searchsorted(cumulative, points[self.rank :: self.num_replicas][skipped:], side="right")
        yield from np.minimum(drawn, len(cumulative) - 1).tolist()


class ExampleCollator:
    """Makes a batch of examples in which every item occurs once.

    Args:
        examples: All examples of the objective.
        items: The prepared items, one for each row of the item table.
        collate: Makes a batch of prepared items.
        held_out: Whether these are the held-out examples.
        micro_batch: Items that are encoded at a time; None for all of the batch.
    """

    def __init__(
        self,
        examples: Examples,
        items: Dataset[dict[str, Any]],
        collate: Collate,
        *,
        held_out: bool = False,
        micro_batch: int | None = None,
    ) -> None:
        self.examples = examples
        self.items = items
        self.collate = collate
        self.held_out = held_out
        self.micro_batch = micro_batch

    def __call__(self, indices: list[int]) -> dict[str, Any]:
        """Return the batch of B examples with U different items.

        ``items`` is one item batch of U, or with `micro_batch` a list of smaller ones, and ``rows`` their rows in the
        item table, [U]. Each role is int64 [B], or [B, slots] if it has several: positions among the U, -1 for an empty
        slot.
        """
        # Encode each item once; examples refer to it by its position among the distinct rows.
        rows = {name: values[indices] for name, values in self.examples.items.items()}
        distinct = np.unique(np.concatenate([values.ravel() for values in rows.values()]))
        distinct = distinct[distinct >= 0]  # without the empty slots
        batch: dict[str, Any] = {
            "items": self._items(distinct),
            "rows": torch.from_numpy(distinct),
        }
        for name, values in rows.items():
            positions = np.where(values >= 0, np.searchsorted(distinct, values), -1)
            batch[name] = torch.from_numpy(positions[:, 0] if positions.shape[1] == 1 else positions)
        if self.examples.extras is not None:
            batch |= self.examples.extras(rows, self.held_out)
        return batch

    def _items(self, rows: NDArray[np.int64]) -> dict[str, Any] | list[dict[str, Any]]:
        """Return the batch of the items in these rows, or micro-batches of about equal size."""
        num_parts = 1 if self.micro_batch is None else -(-len(rows) // self.micro_batch)
        parts = [self.collate([self.items[int(row)] for row in part]) for part in np.array_split(rows, num_parts)]
        return parts[0] if self.micro_batch is None else parts


class ExampleDataModule(pl.LightningDataModule):
    """Batches of the examples of every objective for training, and of their held-out examples for validation.

    Args:
        examples: By name of the objective.
        items: The prepared items, one for each row of the item table.
        collate: Makes a batch of prepared items; an encoder's `collate`.
        batch_size: Examples in a batch, or a number by name of the objective.
        micro_batch: Items that are encoded at a time: ``items`` in a batch is then a list; None for all of the batch.
        seed: Of the sampling.
        num_workers: Processes that read items; None takes the number that `items.num_workers` names, else 0.

    Raises:
        ConfigError: If there are fewer examples than a batch needs.

    Example:
        >>> rows = np.arange(20)[:, None]
        >>> examples = Examples({"item": rows}, held_out=np.arange(20) < 4)
        >>> items = [{"x": torch.tensor([float(row)])} for row in range(20)]
        >>> collate = lambda batch: {"x": torch.cat([item["x"] for item in batch])}
        >>> module = ExampleDataModule({"mine": examples}, items, collate, batch_size=8)
        >>> [batch["mine"]["item"].shape for batch, _, _ in module.train_dataloader()]
        [torch.Size([8]), torch.Size([8])]
    """

    def __init__(
        self,
        examples: Mapping[str, Examples],
        items: Dataset[dict[str, Any]],
        collate: Collate,
        *,
        batch_size: int | Mapping[str, int] = 64,
        micro_batch: int | None = None,
        seed: int = 0,
        num_workers: int | None = None,
    ) -> None:
        super().__init__()
        self.examples = dict(examples)
        self.items = items
        self.collate = collate
        self.batch_sizes = batch_size if isinstance(batch_size, Mapping) else dict.fromkeys(self.examples, batch_size)
        self.micro_batch = micro_batch
        self.seed = seed
        self.num_workers: int = getattr(items, "num_workers", 0) if num_workers is None else num_workers
        if micro_batch is not None and micro_batch < 1:
            raise ConfigError(f"`micro_batch` must be 1 item or more, or null, but got {micro_batch}.")
        for name, own in self.examples.items():
            available = int((~own.held_out).sum())
            if not MIN_HELD_OUT <= self.batch_sizes[name] <= available:
                raise ConfigError(
                    f"`batch_size` of {name} is {self.batch_sizes[name]}, and there are {available} examples to train "
                    f"on ({int(own.held_out.sum())} more are held out): it must be from 2 to {available}."
                )

    @override
    def train_dataloader(self) -> CombinedLoader:
        loaders = {name: self._loader(name, held_out=False) for name in self.examples}
        return CombinedLoader(loaders, "max_size_cycle")

    @override
    def val_dataloader(self) -> CombinedLoader:
        return CombinedLoader({name: self._loader(name, held_out=True) for name in self.examples}, "max_size")

    @override
    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        # Micro-batches stay on the host until they are encoded: together, the images of a large batch take gigabytes.
        parts = batch.items() if isinstance(batch, dict) else ()
        split = {name: part for name, part in parts if isinstance(part, dict) and isinstance(part.get("items"), list)}
        if not split:
            return super().transfer_batch_to_device(batch, device, dataloader_idx)
        whole = {name: {**part, "items": None} for name, part in split.items()}
        moved = super().transfer_batch_to_device({**batch, **whole}, device, dataloader_idx)
        return {
            name: {**part, "items": batch[name]["items"]} if name in split else part for name, part in moved.items()
        }

    def _batches_done(self) -> int:
        """Return how many batches of this epoch a resumed run has trained already; Lightning restarts the epoch."""
        if self.trainer is None:
            return 0
        progress: Any = self.trainer.fit_loop.epoch_loop.batch_progress.current
        return int(progress.processed)

    def _loader(self, name: str, *, held_out: bool) -> DataLoader[int]:
        examples, size = self.examples[name], self.batch_sizes[name]
        indices = (examples.held_out == held_out).nonzero()[0]
        sampler = None
        if not held_out:
            weights = np.ones(len(indices)) if examples.weights is None else examples.weights[indices]
            share = (None if self.trainer is None else self.trainer.distributed_sampler_kwargs) or {}
            sampler = WeightedSampler(weights, len(indices), seed=self.seed, **share)
            # A resumed run skips the draws of the batches that it has trained.
            sampler.skip = self._batches_done() % max(1, len(sampler) // size) * size
        return DataLoader(
            _Indices(indices),
            batch_size=size,
            sampler=sampler,
            # A contrastive loss depends on the number of negatives, so a short last batch would not be comparable.
            drop_last=(len(indices) if sampler is None else len(sampler)) >= size,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            prefetch_factor=1 if self.num_workers else None,  # batches of images are large
            collate_fn=ExampleCollator(
                examples, self.items, self.collate, held_out=held_out, micro_batch=self.micro_batch
            ),
            generator=torch.Generator().manual_seed(self.seed),  # else every pass draws from the global generator
        )
