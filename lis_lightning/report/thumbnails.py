"""Thumbnails of item images, small enough to embed in a table or a page."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

PIXELS = 96  # of the longer side; shown at half of it, for dense screens


def thumbnail(path: Path | None) -> Image.Image | None:
    """Return an image of at most PIXELS per side; None if there is none, or it cannot be read."""
    if path is None:
        return None
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.draft("RGB", (PIXELS, PIXELS))  # a JPEG is decoded at a reduced scale
            small = image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # raised by Pillow for damaged files
        return None
    small.thumbnail((PIXELS, PIXELS))
    return small


def data_url(path: Path | None) -> str | None:
    """Return the thumbnail of an image as a JPEG in a data URL; None as for :func:`thumbnail`."""
    small = thumbnail(path)
    if small is None:
        return None
    small.save(output := io.BytesIO(), "JPEG", quality=72)
    return f"data:image/jpeg;base64,{base64.b64encode(output.getvalue()).decode()}"
