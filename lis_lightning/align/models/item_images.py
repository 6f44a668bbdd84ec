"""The image of an item as input of a model, also where the processor refuses it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lis_lightning.align.data.images import OnBadImage, load_image
from lis_lightning.errors import ItemError


def process_image(
    path: Path | None, process: Callable[[Any], Mapping[str, Any]], *, on_error: OnBadImage
) -> Mapping[str, Any]:
    """Return what a processor makes of the image of an item.

    Args:
        path: Of the image; None for plain grey.
        process: Takes a PIL image.
        on_error: ``"raise"``, or ``"blank"`` to process plain grey where the image cannot be read, or where the
            processor refuses it: Qwen-VL one that is 200 times as wide as it is high.

    Raises:
        ItemError: If the image cannot be read or processed, and ``on_error="raise"``.
    """
    image = load_image(path, on_error=on_error)
    try:
        return process(image)
    except (ValueError, RuntimeError, ArithmeticError) as error:
        if path is None:
            raise
        if on_error == "raise":
            raise ItemError(
                f"Image {path} of {image.width} x {image.height} pixels cannot be processed: {error} Repair it, or set "
                "on_bad_image=blank."
            ) from error
    return process(load_image(None))
