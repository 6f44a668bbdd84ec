"""Item images: find them in the image folder, decode them to RGB, and check all of them before training."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from numpy.typing import NDArray

from lis_lightning.align.data.item_table import ItemImage, ItemTable, image_files
from lis_lightning.align.data.progress import with_progress
from lis_lightning.errors import ConfigError, ItemError, LisWarning

if TYPE_CHECKING:
    from PIL import Image

OnBadImage = Literal["raise", "blank"]

MAX_PIXELS = 50_000_000
# Leaves out formats that Pillow hands to other programs (EPS), and those that are not pictures.
_FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")
_BLANK_SIZE = 64
_GREY = (128, 128, 128)


def load_image(
    path: Path | None,
    *,
    size: int | None = None,
    on_error: OnBadImage = "raise",
    max_pixels: int = MAX_PIXELS,
) -> Image.Image:
    """Return an image in RGB, fully decoded; plain grey for an item without an image.

    Transparent pixels become grey, the camera's orientation is applied, and only the first frame of an animation is
    used.

    Args:
        path: The file; None gives grey.
        size: Width and height in pixels to scale to, ignoring the aspect ratio (nothing is cropped); None keeps the
            original size.
        on_error: ``"raise"``, or ``"blank"`` to return grey for an image that cannot be used.
        max_pixels: Largest width x height that is decoded; read from the header before decoding.

    Raises:
        ItemError: If the file is missing, damaged, too large or of an unknown format, and ``on_error="raise"``.
        ConfigError: If ``on_error`` is neither of the two.

    Example:
        >>> load_image(None, size=8).getpixel((0, 0))
        (128, 128, 128)
    """
    from PIL import Image

    _check_choice(on_error)
    if path is not None:
        try:
            image = _decode(Path(path), max_pixels)
        except _BadImageError as error:
            if on_error == "raise":
                raise ItemError(f"Image {path}: {error}. Repair it, or set on_bad_image=blank.") from error
        else:
            return image if size is None else image.resize((size, size), Image.Resampling.BICUBIC)
    return Image.new("RGB", (size or _BLANK_SIZE,) * 2, _GREY)


def check_images(items: ItemTable, on_error: OnBadImage = "raise", max_pixels: int = MAX_PIXELS) -> ItemTable:
    """Decode every image once, so that a damaged one is reported now and not in the middle of a training run.

    Args:
        items: The table; items without an image are fine.
        on_error: ``"raise"``, or ``"blank"`` to leave out the images that cannot be used.
        max_pixels: Largest width x height allowed; read from the header before decoding.

    Returns:
        The table; with ``"blank"``, without the images that cannot be used.

    Raises:
        ItemError: If images are missing, damaged or too large: their number, and the first five ids with the reasons.
        ConfigError: If ``on_error`` is neither of the two.

    Warns:
        LisWarning: With ``"blank"``, how many of the images cannot be used.
    """
    _check_choice(on_error)
    files = [(row, path) for row, image in enumerate(items.images) for path in image_files(image)]
    if not files:
        return items
    reasons = _reasons([path for _, path in files], max_pixels)
    bad = {file: reason for file, reason in zip(files, reasons, strict=True) if reason}
    if not bad:
        return items
    named = "; ".join(f"{items.ids[row]} ({path}: {bad[row, path]})" for row, path in list(bad)[:5])
    count = f"{len(bad)} of {len(files)} item images cannot be used"
    if on_error == "raise":
        raise ItemError(
            f"{count}. The first {min(5, len(bad))} by item id: {named}. Repair or remove them, or set "
            "on_bad_image=blank to train without them."
        )
    warnings.warn(f"{count} and are left out: {named}.", LisWarning, stacklevel=2)
    usable = list(items.images)
    for row in {row for row, _ in bad}:
        usable[row] = _item_image([path for path in image_files(items.images[row]) if (row, path) not in bad])
    return replace(items, images=tuple(usable))


def image_paths(
    ids: Sequence[Any] | NDArray[Any], names: Sequence[str | Sequence[str | None] | None], folder: Path
) -> tuple[ItemImage, ...]:
    """Return the path of each item's image, or the paths of its images; refuse paths outside of the image folder.

    Args:
        ids: The items, for the error message.
        names: Paths relative to ``folder``, or absolute ones within it; a list of paths for an item of several images,
            the path of a folder for all images in it, by name, such as the frames of a video; None or empty for an item
            without an image.
        folder: The only folder from which images may be read.

    Raises:
        ItemError: If the folder does not exist, or a path leaves it, also through a symbolic link.
    """
    root = Path(folder).expanduser().resolve()
    if not root.is_dir():
        raise ItemError(f"The image folder {root} does not exist; set image_folder to the folder of the item images.")
    rows = [[name] if isinstance(name, str) else list(name or ()) for name in names]
    named = [(row, name) for row, own in enumerate(rows) for name in own if name]
    _check_within(root, ids, [(row, name, root / name) for row, name in named])
    files: list[list[Path]] = [[] for _ in rows]
    for row, name in named:
        files[row] += _files(root / name)
    _check_within(root, ids, [(row, file.name, file) for row, own in enumerate(files) for file in own])
    return tuple(map(_item_image, files))


def is_image_name(path: Path) -> bool:
    """Return whether a file has the ending of an image."""
    return path.suffix.lower() in _ENDINGS


def _check_within(root: Path, ids: Any, files: Sequence[tuple[int, str, Path]]) -> None:
    """Raise ItemError for files, each with its row and name, that are not in the image folder."""
    outside = [(ids[row], name) for row, name, path in files if not path.resolve().is_relative_to(root)]
    if outside:
        named = "; ".join(f"{item} ({name})" for item, name in outside[:5])
        raise ItemError(
            f"{len(outside)} image paths leave the image folder {root}. The first {min(5, len(outside))} by item id: "
            f"{named}. Images are read from that folder only; move them there or set image_folder to a common parent."
        )


def _files(path: Path) -> list[Path]:
    """Return the images in a folder in the order of their names, frame2 before frame10; for a file, the file itself."""
    if not path.is_dir():
        return [path]
    files = sorted(filter(is_image_name, path.iterdir()), key=_name_order)
    return files or [path]  # an empty folder is reported as an image that cannot be used


def _name_order(path: Path) -> list[tuple[int, str]]:
    """Return a sort key that compares the numbers in a file name by value."""
    parts = re.split(r"(\d+)", path.name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _item_image(files: Sequence[Path]) -> ItemImage:
    """Return the images of an item as an item table has them."""
    if not files:
        return None
    return files[0] if len(files) == 1 else tuple(files)


class _BadImageError(Exception):
    """Why an image cannot be used."""


def _check_choice(on_error: str) -> None:
    if on_error not in get_args(OnBadImage):
        raise ConfigError(f"on_bad_image={on_error!r} is unknown; use one of {', '.join(get_args(OnBadImage))}.")


def _decode(path: Path, max_pixels: int) -> Image.Image:
    """Open and decode an image; raise _BadImageError with the reason, whatever is wrong with the file."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    if not path.is_file():
        raise _BadImageError("missing" if not path.exists() else "not a file")
    try:
        with Image.open(path, formats=_readable_formats()) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise _BadImageError(f"{width} x {height} pixels, more than the {max_pixels:,} allowed")
            image.load()
            return _to_rgb(ImageOps.exif_transpose(image))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _BadImageError(f"far more pixels than the {max_pixels:,} allowed") from None
    except UnidentifiedImageError:
        raise _BadImageError(f"not an image of a known format ({path.stat().st_size} bytes)") from None
    except _BadImageError:
        raise
    except Exception as error:  # decoders of damaged files raise OSError, SyntaxError, struct.error, and more
        raise _BadImageError(f"damaged ({type(error).__name__}: {error})") from error


def _readable_formats() -> list[str]:
    """Return the accepted formats that this build of Pillow can read."""
    from PIL import Image

    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]


def _to_rgb(image: Image.Image) -> Image.Image:
    from PIL import Image

    if image.mode.startswith("I;16"):
        # Pillow clips 16-bit grey at 255, which turns nearly every such picture white.
        image = image.convert("I").point(lambda value: value / 256).convert("L")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        grey = Image.new("RGBA", layer.size, (*_GREY, 255))
        return Image.alpha_composite(grey, layer).convert("RGB")
    return image.convert("RGB")


def _reasons(paths: Sequence[Path], max_pixels: int) -> list[str]:
    """Return why each image cannot be used; empty for those that can."""
    from PIL import Image

    def reason(path: Path) -> str:
        try:
            _decode(path, max_pixels)
        except _BadImageError as error:
            return str(error)
        return ""

    with warnings.catch_warnings(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        # Our own limit is reported with the item's id; Pillow would warn as well, at 89 million pixels.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return list(with_progress(pool.map(reason, paths), len(paths), "Checking item images"))
