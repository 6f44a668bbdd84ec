"""Semantic IDs as a reading: vectors quantised by residual k-means, as rankers read them in place of vectors."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from typing_extensions import override

from lis_lightning.data.split import PreferenceSplit
from lis_lightning.errors import ConfigError
from lis_lightning.functional.code_vectors import rebuilt_vectors
from lis_lightning.functional.sampling import is_withheld
from lis_lightning.functional.semantic_ids import code_statistics, prefix_numbers
from lis_lightning.results.reading import Reading
from lis_lightning.scoring.cache import SplitCache
from lis_lightning.scoring.reads.prefix_rates import prefix_rates
from lis_lightning.scoring.reads.read import Read, ScoredItems, check_whole

_LARGEST = 256
_ITEMS_PER_CODE = 8
_FITTED_ITEMS = 40 * _LARGEST  # at least what FAISS asks for
_ROUNDS = 10  # of k-means


@dataclass(frozen=True)
class SemanticIds(Read):
    """Semantic IDs: codes of residual k-means, as in QARM (Luo et al. 2024) and OneRec (Deng et al. 2025).

    At each level k-means splits what the levels before have left of the vectors: of their coordinates on the leading
    principal axes, at most 64, since what is beyond is mostly noise, which uses codes up. Codebooks are fitted on the
    items of w0 that alignment may see; all others get the codes of the nearest centroids. The ranker reads what codes
    share: the vectors rebuilt from codes and prefixes, and the rates of the prefixes as of each event.

    Args:
        levels: Number of codes of an item.
        size: Number of codes of a level; None takes 256, or with fewer than 2,048 fitted items one for eight of them.
        seed: Seed of k-means.

    Raises:
        ConfigError: If a number is out of range, scikit-learn is not installed, or there are fewer items to fit on
            than a level has codes.

    Example:
        >>> SemanticIds(levels=2, size=64).size
        64
    """

    levels: int = 3
    size: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole("levels", self.levels, 1)
        check_whole("size", 2 if self.size is None else self.size, 2)
        check_whole("seed", self.seed, 0)
        if importlib.util.find_spec("sklearn") is None:
            raise ConfigError("Semantic IDs need scikit-learn: pip install 'lis-lightning[codes]'.")

    @override
    def check(self, split: PreferenceSplit) -> None:
        self._size(aligned_items(SplitCache(split, "off")))

    def _size(self, fitted: NDArray[np.bool_]) -> int:
        """Return the number of codes of a level; raise if there are fewer items to fit it on."""
        size = self.size or min(_LARGEST, max(2, int(fitted.sum()) // _ITEMS_PER_CODE))
        if fitted.sum() < size:
            raise ConfigError(
                f"Semantic IDs of {size} codes a level need as many items to be fitted on; {int(fitted.sum())} of the "
                f"{len(fitted)} items have events that alignment may see. Take a smaller `size`, or a larger log."
            )
        return size

    @override
    def readings(self, name: str, scored: ScoredItems) -> dict[str, Reading]:
        fitted = aligned_items(scored.cache)
        size = self._size(fitted)
        coordinates = scored.items.profile.double().cpu().numpy()
        codes = residual_kmeans(coordinates, fitted, [size] * self.levels, self.seed)
        return {name: score_codes(scored, codes, np.full(self.levels, size))}


def score_codes(scored: ScoredItems, codes: NDArray[np.int32], sizes: NDArray[np.int64]) -> Reading:
    """Score what a ranker reads of codes.

    Args:
        scored: The representation that the codes stand for.
        codes: Codes of each item, [num_items, L].
        sizes: Number of codes of each level, [L].
    """
    prefixes, coordinates = prefix_numbers(codes), scored.items.profile
    device = coordinates.device
    known = torch.from_numpy(aligned_items(scored.cache)).to(device)
    rows, parts = (torch.from_numpy(array.astype(np.int64)).to(device) for array in (codes, prefixes))
    rebuilt = rebuilt_vectors(coordinates, rows, parts, known)
    rates = prefix_rates(scored.cache, prefixes).to(device)
    facts = code_statistics(codes, sizes) | {"size": float(sizes.mean())}
    return scored.reading(scored.arm_of(rebuilt, rates), facts, codes)


def aligned_items(cache: SplitCache) -> NDArray[np.bool_]:
    """Return which items have events that alignment may see, [num_items]."""
    split = cache.split

    def compute() -> NDArray[np.bool_]:
        seen = np.zeros(split.num_items, bool)
        aligned = split.log.item[split.log.window == 0]
        seen[aligned[aligned < split.num_items]] = True
        share, seed = float(split.settings["unseen_items"]), split.settings["seed"]
        withheld: NDArray[np.bool_] = is_withheld(split.item_ids, share, seed)
        return seen & ~withheld

    return cache.value("items of the alignment window", compute, content=lambda: None)


def residual_kmeans(
    vectors: NDArray[np.float64], fitted: NDArray[np.bool_], sizes: list[int], seed: int
) -> NDArray[np.int32]:
    """Return the codes of residual k-means.

    Args:
        vectors: [num_items, dim].
        fitted: Items that codebooks are fitted on, [num_items].
        sizes: Number of codes of each level.
        seed: Seed.

    Returns:
        Codes, [num_items, levels]; 0 throughout at a level at which nothing is left.
    """
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    residual = vectors - vectors[fitted].mean(0)
    rows = np.flatnonzero(fitted)
    rows = rows[:: -(-rows.size // _FITTED_ITEMS)]
    floor = 1e-12 * float(np.square(vectors[rows]).mean())  # rounding of a constant is not split
    codes = np.zeros((len(vectors), len(sizes)), np.int32)
    # Equal on all machines, and a training has the cores. Limits of OpenMP are those of this thread alone.
    with threadpool_limits(1, user_api="openmp"):
        for level, size in enumerate(sizes):
            if float(np.square(residual[rows]).mean()) <= floor:
                break
            different = len(np.unique(residual[rows], axis=0))  # of items that are alike fewer codes are in use
            kmeans = KMeans(min(size, different), n_init=1, max_iter=_ROUNDS, random_state=seed + level)
            kmeans.fit(residual[rows])
            codes[:, level] = kmeans.predict(residual)
            residual = residual - kmeans.cluster_centers_[codes[:, level]]
    return codes
