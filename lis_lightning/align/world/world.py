"""A generated world with known truth: users with drifting tastes, and items with images and texts.

Users and items are drawn by :mod:`lis_lightning.align.world.simulation`, images and texts by
:mod:`lis_lightning.align.world.render`. The world keeps the true click probabilities, the latents, and the part of the
latents that content reveals. So the highest possible AUC and the gain of perfect content representations are known.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.random import Generator, SeedSequence
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from lis_lightning.align.data.folders import build_once
from lis_lightning.align.data.images import image_paths
from lis_lightning.align.data.item_table import ItemTable
from lis_lightning.align.world.render import VOCABULARY, render_image, render_text
from lis_lightning.align.world.simulation import WorldParams, draw_events, draw_latents
from lis_lightning.errors import ConfigError
from lis_lightning.functional.auc import auroc

FORMAT_VERSION = 3
"""Increased whenever the same parameters give other files, so that an older world is not taken for a new one."""


@dataclass(frozen=True, eq=False)
class World:
    """A generated world: its log and items, and the truth behind them.

    Attributes:
        folder: Has ``interactions.parquet``, ``items.parquet``, ``images/``, ``truth.safetensors`` and ``params.json``;
            None for a world without files.
        params: The parameters.
        log: Columns user_id, item_id, timestamp (unix seconds) and clicked (0/1), in order of time, [num_events].
        items: Ids, titles, texts and images; ids alone for a world without files.
        click_probability: True probability of each event's label, in the order of ``log``, [num_events].
        item_latents: What users respond to, [num_items, dim], in the order of ``items``.
        content_latents: The part of ``item_latents`` that images and texts reveal, [num_items, dim].
        user_latents: Taste of each user in each period, [num_periods, num_users, dim]; user ids count from 1.
        period_starts: When each period begins, unix seconds, [num_periods].
        arrivals: When each item became available, unix seconds, [num_items].
        attributes: Index of each item's value of each attribute of ``VOCABULARY``, [num_items, num_attributes].
        quality: What all users like about an item, a logit, [num_items].
        aisle: Aisle of each item, [num_items].

    Example:
        >>> world = generate_world(None, num_users=50, num_items=20, num_events=400)
        >>> world.item_latents.shape, round(world.bayes_auc(), 2)
        ((20, 6), 0.88)
    """

    folder: Path | None
    params: WorldParams
    log: pl.DataFrame
    items: ItemTable
    click_probability: NDArray[np.float64]
    item_latents: NDArray[np.float32]
    content_latents: NDArray[np.float32]
    user_latents: NDArray[np.float32]
    period_starts: NDArray[np.int64]
    arrivals: NDArray[np.int64]
    attributes: NDArray[np.int64]
    quality: NDArray[np.float64]
    aisle: NDArray[np.int64]

    def bayes_auc(
        self, mask: NDArray[np.bool_] | None = None, *, start: float | None = None, end: float | None = None
    ) -> float:
        """Return the AUC of the true probabilities (the Bayes-optimal ranking): no ranker has a higher expected AUC.

        Args:
            mask: Which events count, [num_events]; None for all.
            start: First timestamp that counts, unix seconds.
            end: First timestamp that no longer counts, unix seconds.

        Raises:
            LogError: If the events that count are all of one class.
        """
        time = self.log["timestamp"].to_numpy()
        chosen = np.ones(time.size, dtype=bool) if mask is None else np.asarray(mask, dtype=bool)
        if start is not None:
            chosen = chosen & (time >= start)
        if end is not None:
            chosen = chosen & (time < end)
        return auroc(self.click_probability[chosen], self.log["clicked"].to_numpy()[chosen])


def generate_world(folder: str | Path | None, **parameters: Any) -> World:
    """Return the world with these parameters; generate it unless ``folder`` has it.

    The files are written atomically: an interrupted generation leaves nothing that would be taken for a world, two
    processes may generate the same world at the same time, and a damaged world is generated again.

    Args:
        folder: Of all worlds, with a sub-folder for each set of parameters; None for a world without images and texts,
            which needs no files.
        parameters: Fields of :class:`WorldParams`.

    Raises:
        ConfigError: If a parameter is unknown or out of range.

    Example:
        >>> world = generate_world(None, num_users=50, num_items=20, num_events=400)
        >>> world.log.columns
        ['user_id', 'item_id', 'timestamp', 'clicked']
    """
    params = _params(parameters)
    if folder is None:
        ids = np.arange(1, params.num_items + 1)
        items = ItemTable(ids=ids, texts=("",) * ids.size, images=(None,) * ids.size)
        return _world(None, params, items, *simulate_world(**parameters))
    path = Path(folder).expanduser() / _folder_name(params)
    return _read(build_once(path, lambda draft: _write(draft, params)), params)


def simulate_world(**parameters: Any) -> tuple[pl.DataFrame, dict[str, NDArray[Any]]]:
    """Return the log and the truth of a generated world, without images, texts or files.

    Args:
        parameters: Fields of :class:`WorldParams`.

    Returns:
        The log and the truth as in :class:`World`: ``click_probability``, ``item_latents``, ``content_latents`` and the
        other arrays by name. They equal those of :func:`generate_world` with the same parameters.

    Raises:
        ConfigError: If a parameter is unknown or out of range.

    Example:
        >>> log, truth = simulate_world(num_users=50, num_items=20, num_events=400, dim=4)
        >>> log.height, truth["item_latents"].shape
        (400, (20, 4))
    """
    params = _params(parameters)
    return _simulate(params, SeedSequence(params.seed).spawn(4)[:3])


def _simulate(params: WorldParams, seeds: Sequence[SeedSequence]) -> tuple[pl.DataFrame, dict[str, NDArray[Any]]]:
    """Draw latents, exposures and labels, each from its own seed."""
    population, exposure, labels = map(np.random.default_rng, seeds)
    truth = draw_latents(params, population)
    log, truth["click_probability"] = draw_events(params, truth, exposure, labels)
    return log, truth


def _params(parameters: dict[str, Any]) -> WorldParams:
    names = [spec.name for spec in fields(WorldParams)]
    for name in parameters:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"The generated world has no parameter {name!r}; it has {', '.join(names)}.{hint}")
    return WorldParams(**parameters)


def _folder_name(params: WorldParams) -> str:
    """Return a name that differs between any two worlds with different files."""
    text = json.dumps([FORMAT_VERSION, params.to_dict()], sort_keys=True)
    return f"world-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _write(folder: Path, params: WorldParams) -> None:
    """Draw everything and write it."""
    *seeds, looks = SeedSequence(params.seed).spawn(4)
    log, truth = _simulate(params, seeds)
    log.write_parquet(folder / "interactions.parquet")
    _write_items(folder, params, truth["attributes"], np.random.default_rng(looks))
    save_file({name: np.ascontiguousarray(values) for name, values in truth.items()}, folder / "truth.safetensors")
    (folder / "params.json").write_text(json.dumps({"format_version": FORMAT_VERSION, **params.to_dict()}, indent=2))


def _write_items(folder: Path, params: WorldParams, attributes: NDArray[np.int64], rng: Generator) -> None:
    """Render and write every item; each has its own random generator, so the number of threads changes nothing."""
    (folder / "images").mkdir()
    values = [list(words) for words in VOCABULARY.values()]
    generators = rng.spawn(params.num_items)

    def write(row: int) -> tuple[str, str]:
        looks = {name: values[at][attributes[row, at]] for at, name in enumerate(VOCABULARY)}
        image = render_image(looks, generators[row], params.image_size)
        image.save(folder / "images" / f"{row + 1}.png", compress_level=1)
        return render_text(looks, generators[row])

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        titles, texts = zip(*pool.map(write, range(params.num_items)), strict=True)
    ids = np.arange(1, params.num_items + 1)
    table = {"item_id": ids, "title": titles, "text": texts, "image": [f"{item}.png" for item in ids]}
    pl.DataFrame(table).write_parquet(folder / "items.parquet")


def _read(folder: Path, params: WorldParams) -> World:
    table = pl.read_parquet(folder / "items.parquet")
    log, truth = pl.read_parquet(folder / "interactions.parquet"), load_file(folder / "truth.safetensors")
    ids = table["item_id"].to_numpy()
    looks = {}
    for codes, (name, words) in zip(truth["attributes"].T, VOCABULARY.items(), strict=True):
        values = list(words)
        looks[name] = tuple(values[code] for code in codes)
    items = ItemTable(
        ids=ids,
        texts=tuple(table["text"]),
        images=image_paths(ids, table["image"].to_list(), folder / "images"),
        titles=tuple(table["title"]),
        categories=looks,
    )
    return _world(folder, params, items, log, truth)


def _world(
    folder: Path | None, params: WorldParams, items: ItemTable, log: pl.DataFrame, truth: dict[str, NDArray[Any]]
) -> World:
    arrays: dict[str, Any] = {spec.name: truth[spec.name] for spec in fields(World) if spec.name in truth}
    return World(folder=folder, params=params, log=log, items=items, **arrays)
