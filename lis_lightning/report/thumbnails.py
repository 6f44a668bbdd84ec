"""Pictures of items, small enough to travel with a table or a page."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

PIXELS = 96  # of the longer side; shown at half of it, for dense screens


def thumbnail(path: Path | None) -> Image.Image | None:
    """Return an image of at most PIXELS a side; None where there is none, it cannot be read, or Pillow is missing."""
    if path is None or find_spec("PIL") is None:
        return None
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.draft("RGB", (PIXELS, PIXELS))  # a JPEG is read at the scale that is needed
            small = image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # what Pillow makes of broken files
        return None
    small.thumbnail((PIXELS, PIXELS))
    return small
