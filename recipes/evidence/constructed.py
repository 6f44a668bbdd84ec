"""Representations made by hand of what a generated world knows, in steps: what training seldom gives one at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lis_lightning.align.world import World

DIM = 96
Array = NDArray[np.float64]


def constructed(world: World, features: NDArray[np.floating[Any]], seed: int) -> dict[str, NDArray[np.float32]]:
    """Return representations by name, a row an item, [num_items, 96] each.

    Args:
        world: A generated world.
        features: What an encoder reads there, [num_items, 96].
        seed: Of what is drawn.
    """
    rng = np.random.default_rng([seed, 31])
    content, latents, raw = (_scaled(values) for values in (world.content_latents, world.item_latents, features))
    cases: dict[str, Array] = {}
    for share in (0.0, 0.2, 0.4, 0.8, 4.0):
        cases[f"content {share} in noise"] = _beside(share * content, _noise(rng, len(raw), DIM - content.shape[1]))
    left, strength, _ = np.linalg.svd(raw, full_matrices=False)
    for axes in (4, 8, 16, 32, 64):
        cases[f"{axes} axes of the features"] = left[:, :axes] * strength[:axes]
    for power in (0.0, 0.5, 1.0, 2.0, 3.0):
        cases[f"features, spectrum to the {power}"] = left * strength**power
    for loudness in (1.0, 2.0, 4.0):
        cases[f"content under 40 axes {loudness} times as loud"] = _beside(
            content, loudness * _noise(rng, len(raw), 40)
        )
    quality = (world.quality - world.quality.mean())[:, None] / world.quality.std()
    noise = _noise(rng, len(raw), 24)
    for share in (0.0, 0.25, 0.5):
        cases[f"quality {share} as an axis"] = _beside(0.5 * content, share * quality, 0.7 * noise)
    directions = _beside(0.7 * content, noise)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    for share in (0.15, 0.6):
        cases[f"quality {share} in the length"] = directions * np.exp(share * quality)
    for share in (0.25, 1.0):
        cases[f"latents {share}"] = _beside(np.sqrt(share) * latents, np.sqrt(1 - share) * _noise(rng, len(raw), 30))
    for share in (0.1, 0.3, 0.6):
        cases[f"{share} of the rows traded"] = content[_traded(rng, len(raw), share)]
    cases["content"] = content
    return {name: _turned(values, rng) for name, values in cases.items()}


def _scaled(rows: NDArray[np.floating[Any]]) -> Array:
    """Return centred rows of unit mean square length."""
    centred = np.asarray(rows, float) - np.mean(rows, axis=0)
    return centred / np.sqrt((centred**2).sum(1).mean())


def _noise(rng: np.random.Generator, items: int, width: int) -> Array:
    return _scaled(rng.standard_normal((items, width)))


def _beside(*parts: Array) -> Array:
    return np.concatenate(parts, axis=1)


def _traded(rng: np.random.Generator, items: int, share: float) -> NDArray[np.int64]:
    """Return row numbers of which a share trade places among themselves."""
    order, chosen = np.arange(items), np.flatnonzero(rng.random(items) < share)
    order[chosen] = rng.permutation(chosen)
    return order


def _turned(rows: Array, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return rows rotated at random in 96 dimensions: no coordinate means anything by itself."""
    rotation = np.linalg.qr(rng.standard_normal((DIM, DIM)))[0]
    return (rows @ rotation[: rows.shape[1]]).astype(np.float32)
