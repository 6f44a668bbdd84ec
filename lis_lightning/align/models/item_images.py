"""The images of an item as input of a model, also where the processor refuses one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lis_lightning.align.data.images import OnBadImage, load_image
from lis_lightning.align.data.item_table import ItemImage, image_files
from lis_lightning.errors import ConfigError, ItemError

Process = Callable[[list[Any]], Mapping[str, Any]]
"""Return what a processor makes of the PIL images of an item."""


class ReplacedImage(dict[str, Any]):
    """Inputs of an item without its images, since one of them cannot be used."""


def process_images(
    image: ItemImage, process: Process, *, on_error: OnBadImage, max_images: int, grey: bool = True
) -> Mapping[str, Any]:
    """Return what a processor makes of the images of an item.

    Args:
        image: Of the item.
        process: Runs the processor.
        on_error: ``"raise"``, or ``"blank"`` to process the item without its images where one cannot be read, or where
            the processor refuses it: Qwen-VL one that is 200 times as wide as it is high.
        max_images: The most images that are read; of more, such as the frames of a video, an even selection.
        grey: Whether an item without images is processed with one of plain grey, for models that need one.

    Returns:
        Its fields; a `ReplacedImage` if the images were left out.

    Raises:
        ItemError: If an image cannot be read or processed, and ``on_error="raise"``.
    """
    every_file = image_files(image)
    files = [every_file[position] for position in _spread(len(every_file), max_images)]
    nothing = [load_image(None)] if grey else []
    if not files:
        return process(nothing)
    try:
        images = [load_image(file) for file in files]
        try:
            return process(images)
        except (ValueError, RuntimeError, ArithmeticError) as error:
            sizes = [f"{file} of {each.width} x {each.height} pixels" for file, each in zip(files, images, strict=True)]
            raise ItemError(
                f"Image {', '.join(sizes)} cannot be processed: {error} Repair it, or set on_bad_image=blank."
            ) from error
    except ItemError:
        if on_error == "raise":
            raise
    return ReplacedImage(process(nothing))


def check_max_images(max_images: int) -> None:
    """Raise ConfigError for a number of images below 1."""
    if max_images < 1:
        raise ConfigError(f"`max_images` must be 1 or more, but got {max_images}.")


def _spread(count: int, limit: int) -> Sequence[int]:
    """Return all positions up to a count, or evenly spread ones if these are more than the limit."""
    if count <= limit:
        return range(count)
    positions: list[int] = np.linspace(0, count - 1, limit).round().astype(int).tolist()
    return positions


def mean_of_images(vectors: Tensor, counts: Tensor | None) -> Tensor:
    """Return the mean of the vectors of each item.

    Args:
        vectors: Of all images, item by item, [num_images, dim].
        counts: How many of them belong to each item; None for one each.
    """
    return vectors if counts is None else torch.segment_reduce(vectors, "mean", lengths=counts, axis=0)
