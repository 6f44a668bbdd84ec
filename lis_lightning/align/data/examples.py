"""Examples of any objective as rows of the item table, and batches of them in which every item stands once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from pytorch_lightning.utilities.combined_loader import CombinedLoader
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from typing_extensions import override

from lis_lightning.errors import ConfigError, ShapeError

MIN_HELD_OUT, MAX_HELD_OUT = 2, 2000  # one example alone has no negative
Rows = Mapping[str, NDArray[np.int64]]
Extras = Callable[[Rows, bool], dict[str, Tensor]]


@dataclass(frozen=True, eq=False)
class Examples:
    """What one objective trains on.

    Attributes:
        items: Rows of the item table by role, [n, places]; -1 where a place is empty.
        held_out: Examples that training must not see, [n].
        weights: How often each is drawn, 0 or more, [n]; None draws all alike.
        extras: Makes further tensors of a batch from its rows, told whether these are held-out examples; None for none.
    """

    items: Rows
    held_out: NDArray[np.bool_]
    weights: NDArray[np.float64] | None = None
    extras: Extras | None = None

    def __post_init__(self) -> None:
        shapes = {name: rows.shape for name, rows in self.items.items()} | {"held_out": self.held_out.shape}
        if len({shape[0] for shape in shapes.values()}) != 1 or any(rows.ndim != 2 for rows in self.items.values()):
            raise ShapeError(f"Examples must be [n, places] each with one `held_out` [n], but got {shapes}.")

    def __len__(self) -> int:
        return self.held_out.size


def hold_out(keys: NDArray[np.uint64], share: float) -> NDArray[np.bool_]:
    """Return which examples training must not see: those with the smallest hash.

    An example keeps its side when others come or go, so that runs on slightly different logs stay comparable.

    Args:
        keys: A well-mixed hash of each example.
        share: Above 0 and below 1; at most 2000 examples are held out.

    Raises:
        ConfigError: If `share` is out of range, or fewer than two examples would be left on a side.
    """
    if not 0.0 < share < 1.0:
        raise ConfigError(f"`held_out` must lie between 0 and 1, but got {share}; try 0.05.")
    number = max(MIN_HELD_OUT, min(round(share * len(keys)), MAX_HELD_OUT))
    if len(keys) - number < MIN_HELD_OUT:
        raise ConfigError(
            f"{len(keys)} examples are too few to hold {number} out and train on the rest; give alignment more events."
        )
    mask = np.zeros(len(keys), dtype=bool)
    mask[np.argsort(keys, kind="stable")[:number]] = True
    return mask


class _Numbers(Dataset[int]):
    """The numbers of some examples."""

    def __init__(self, numbers: NDArray[np.int64]) -> None:
        self.numbers = numbers

    def __len__(self) -> int:
        return len(self.numbers)

    @override
    def __getitem__(self, index: int) -> int:
        return int(self.numbers[index])


class WeightedSampler(Sampler[int]):
    """Draws with replacement, each epoch by a generator of its own.

    Args:
        weights: 0 or more; need not sum to 1.
        num_samples: How many to draw an epoch.
        seed: Epoch e of seed s is always the same sequence, whatever else draws random numbers.
        skip: Draws at the start of the first epoch that were used before a resume.
    """

    def __init__(self, weights: NDArray[np.float64], num_samples: int, *, seed: int = 0, skip: int = 0) -> None:
        self.weights = weights
        self.num_samples = num_samples
        self.seed = seed
        self.skip = skip
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; Lightning calls this."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_samples

    @override
    def __iter__(self) -> Iterator[int]:
        ends = np.cumsum(self.weights)
        points = np.random.default_rng((self.seed, self.epoch)).random(self.num_samples) * ends[-1]
        skipped, self.skip = self.skip, 0
        drawn = np.searchsorted(ends, points[skipped:], side="right")
        yield from np.minimum(drawn, len(ends) - 1).tolist()


class ExampleCollator:
    """Makes a batch of examples in which every item stands once.

    Args:
        examples: All examples of the objective.
        items: The prepared items, one row an item of the table.
        collate: Makes a batch of such rows.
        held_out: Whether these are the held-out examples.
    """

    def __init__(
        self,
        examples: Examples,
        items: Dataset[dict[str, Any]],
        collate: Callable[[list[dict[str, Any]]], dict[str, Any]],
        *,
        held_out: bool = False,
    ) -> None:
        self.examples = examples
        self.items = items
        self.collate = collate
        self.held_out = held_out

    def __call__(self, numbers: list[int]) -> dict[str, Any]:
        """Return the batch of B examples with U different items.

        ``items`` is one item batch of U and ``rows`` their rows in the table, [U]; each role is int64 [B], or [B,
        places] where it has several: places among the U, -1 where there is no item.
        """
        rows = {name: values[numbers] for name, values in self.examples.items.items()}
        known = np.unique(np.concatenate([values.ravel() for values in rows.values()]))
        known = known[known >= 0]
        batch: dict[str, Any] = {
            "items": self.collate([self.items[int(row)] for row in known]),
            "rows": torch.from_numpy(known),
        }
        for name, values in rows.items():
            places = np.where(values >= 0, np.searchsorted(known, values), -1)
            batch[name] = torch.from_numpy(places[:, 0] if places.shape[1] == 1 else places)
        if self.examples.extras is not None:
            batch |= self.examples.extras(rows, self.held_out)
        return batch


class ExampleDataModule(pl.LightningDataModule):
    """Batches of every objective for training, and of their held-out examples for the validation loss.

    Args:
        examples: By name of the objective.
        items: The prepared items, one row an item of the table.
        collate: Makes a batch of such rows; an encoder's `collate`.
        batch_size: Examples a batch, or a number by name of the objective.
        seed: Of the draws.
        num_workers: Processes that load items; 0 suits prepared items, which are read from memory-mapped files.

    Raises:
        ConfigError: If there are fewer examples than a batch needs.
    """

    def __init__(
        self,
        examples: Mapping[str, Examples],
        items: Dataset[dict[str, Any]],
        collate: Callable[[list[dict[str, Any]]], dict[str, Any]],
        *,
        batch_size: int | Mapping[str, int] = 64,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        self.examples = dict(examples)
        self.items = items
        self.collate = collate
        self.batch_sizes = {n: batch_size if isinstance(batch_size, int) else batch_size[n] for n in self.examples}
        self.seed = seed
        self.num_workers = num_workers
        for name, given in self.examples.items():
            available = int((~given.held_out).sum())
            if not MIN_HELD_OUT <= self.batch_sizes[name] <= available:
                raise ConfigError(
                    f"`batch_size` of {name} is {self.batch_sizes[name]}, and there are {available} examples to train "
                    f"on ({int(given.held_out.sum())} more are held out): it must be from 2 to {available}."
                )

    @override
    def train_dataloader(self) -> CombinedLoader:
        loaders = {name: self._loader(name, held_out=False) for name in self.examples}
        return CombinedLoader(loaders, "max_size_cycle")

    @override
    def val_dataloader(self) -> CombinedLoader:
        return CombinedLoader({name: self._loader(name, held_out=True) for name in self.examples}, "max_size")

    def _batches_done(self) -> int:
        """Return the batches of this epoch before the checkpoint that is resumed from; Lightning starts epochs anew."""
        if self.trainer is None:
            return 0
        progress: Any = self.trainer.fit_loop.epoch_loop.batch_progress.current
        return int(progress.processed)

    def _loader(self, name: str, *, held_out: bool) -> DataLoader[int]:
        given, size = self.examples[name], self.batch_sizes[name]
        numbers = (given.held_out == held_out).nonzero()[0]
        sampler = None
        if not held_out:
            weights = np.ones(len(numbers)) if given.weights is None else given.weights[numbers]
            skip = self._batches_done() % (len(numbers) // size) * size
            sampler = WeightedSampler(weights, len(numbers), seed=self.seed, skip=skip)
        return DataLoader(
            _Numbers(numbers),
            batch_size=size,
            sampler=sampler,
            # A loss depends on the number of negatives, so a short last batch would not be comparable.
            drop_last=len(numbers) >= size,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            collate_fn=ExampleCollator(given, self.items, self.collate, held_out=held_out),
            generator=torch.Generator().manual_seed(self.seed),  # else every pass draws from the global generator
        )
