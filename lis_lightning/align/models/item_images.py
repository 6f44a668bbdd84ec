"""The image of an item as input of a model, also where the processor refuses it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lis_lightning.align.data.images import OnBadImage, load_image
from lis_lightning.errors import ItemError


class ReplacedImage(dict[str, Any]):
    """Inputs of an item with plain grey in the place of an image that cannot be used."""


def process_image(
    path: Path | None, process: Callable[[Any], Mapping[str, Any]], *, on_error: OnBadImage
) -> Mapping[str, Any]:
    """Return what a processor makes of the image of an item.

    Args:
        path: Of the image; None for plain grey.
        process: Takes a PIL image.
        on_error: ``"raise"``, or ``"blank"`` to process plain grey where the image cannot be read, or where the
            processor refuses it: Qwen-VL one that is 200 times as wide as it is high.

    Returns:
        Its fields; a `ReplacedImage` if grey was processed in the place of the image.

    Raises:
        ItemError: If the image cannot be read or processed, and ``on_error="raise"``.
    """
    if path is None:
        return process(load_image(None))
    try:
        image = load_image(path)
        try:
            return process(image)
        except (ValueError, RuntimeError, ArithmeticError) as error:
            raise ItemError(
                f"Image {path} of {image.width} x {image.height} pixels cannot be processed: {error} Repair it, or set "
                "on_bad_image=blank."
            ) from error
    except ItemError:
        if on_error == "raise":
            raise
    return ReplacedImage(process(load_image(None)))
