"""The item table: ids, texts, images and features in one order, and the check that every image can be used."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lis_lightning.errors import ConfigError, ItemError, LisWarning, NonFiniteError, ShapeError

if TYPE_CHECKING:
    from PIL import Image

OnBadImage = Literal["raise", "blank"]

MAX_PIXELS = 50_000_000
_FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
_TITLE_CHARACTERS = 60
_BLANK_SIZE = 64
_GREY = (128, 128, 128)


@dataclass(frozen=True, eq=False)
class ItemTable:
    """Items in a fixed order; row ``i`` of every field belongs to ``ids[i]``.

    Attributes:
        ids: Original ids, [num_items], int64 or str, each once.
        texts: What the item says; may be empty.
        images: Where the item's picture is; None where it has none.
        features: Precomputed features, [num_items, dim], finite; None where there are none.
        titles: A short name for display; the first 60 characters of the text where none is given.
        categories: What a catalogue says, by name of the category; None where it says nothing of an item.

    Raises:
        ItemError: If an id occurs twice, or a field has another number of rows than there are ids.
        ShapeError: If ``features`` is not [num_items, dim].
        NonFiniteError: If a feature is NaN or infinite.

    Example:
        >>> items = ItemTable(np.array([7, 9]), ("red cup", "blue mug"), (None, None))
        >>> items.select([9]).texts
        ('blue mug',)
    """

    ids: NDArray[Any]
    texts: tuple[str, ...]
    images: tuple[Path | None, ...]
    features: NDArray[np.float32] | None = None
    titles: tuple[str, ...] = ()
    categories: Mapping[str, tuple[str | None, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        titles = self.titles or ("",) * len(self.texts)
        fields = {"texts": self.texts, "images": self.images, "titles": titles, **self.categories}
        for name, rows in fields.items():
            if len(rows) != len(self.ids):
                raise ItemError(f"`{name}` has {len(rows)} rows for {len(self.ids)} item ids; give one row an item.")
        shown = tuple(title or text[:_TITLE_CHARACTERS] for title, text in zip(titles, self.texts, strict=True))
        object.__setattr__(self, "titles", shown)
        values, counts = np.unique(self.ids, return_counts=True)
        if (counts > 1).any():
            raise ItemError(
                f"{int((counts > 1).sum())} item ids occur more than once in the item table: "
                f"{first_ids(values[counts > 1])}. Keep one row an item."
            )
        if self.features is not None:
            check_features(self.features, self.ids)

    def __len__(self) -> int:
        return len(self.ids)

    def catalogue(self) -> pl.DataFrame:
        """Return how items are shown to people: ``item_id``, ``title`` and ``image``, a path."""
        images = [None if path is None else str(path) for path in self.images]
        return pl.DataFrame({"item_id": self.ids, "title": self.titles, "image": pl.Series(images, dtype=pl.String)})

    def rows(self, ids: Iterable[Any]) -> NDArray[np.int64]:
        """Return the row of each of the given ids.

        Args:
            ids: Item ids, in any order, also repeated.

        Raises:
            ItemError: If ids are absent; the message counts them and names the first five.
        """
        return rows_of(ids, self.ids, "item table", "Add their rows, or leave them out of the log.")

    def select(self, ids: Iterable[Any]) -> ItemTable:
        """Return the table of the given ids, in that order.

        Args:
            ids: Item ids, each once.

        Raises:
            ItemError: If ids are absent; the message counts them and names the first five.
        """
        rows = self.rows(ids)
        return ItemTable(
            ids=self.ids[rows],
            texts=tuple(self.texts[row] for row in rows),
            images=tuple(self.images[row] for row in rows),
            features=None if self.features is None else self.features[rows],
            titles=tuple(self.titles[row] for row in rows),
            categories={name: tuple(values[row] for row in rows) for name, values in self.categories.items()},
        )


def rows_of(wanted: Iterable[Any], ids: NDArray[Any], where: str, advice: str) -> NDArray[np.int64]:
    """Return the row of each wanted id among `ids`.

    Args:
        wanted: Item ids, in any order, also repeated.
        ids: The ids there are, each once.
        where: What holds them, for messages.
        advice: What to do about absent ones, a sentence.

    Raises:
        ItemError: If ids are absent; the message counts them and names the first five.
    """
    asked = wanted.tolist() if isinstance(wanted, np.ndarray) else list(wanted)
    row_of = {item: row for row, item in enumerate(ids.tolist())}
    absent = [item for item in dict.fromkeys(asked) if item not in row_of]
    if absent:
        raise ItemError(
            f"{len(absent)} of {len(set(asked))} item ids have no row in the {where} of {len(ids)} items: "
            f"{first_ids(absent)}.{_kind_hint(absent[0], ids)} {advice}"
        )
    return np.array([row_of[item] for item in asked], dtype=np.int64)


def load_image(
    path: Path | None,
    *,
    size: int | None = None,
    on_error: OnBadImage = "raise",
    max_pixels: int = MAX_PIXELS,
) -> Image.Image:
    """Return a picture in RGB, decoded completely; plain grey where the item has none.

    Transparency is laid over grey, the camera's orientation is applied, of an animation the first frame is taken.

    Args:
        path: The file; None gives grey.
        size: Width and height in pixels to scale to, without keeping the proportions (nothing is cropped away); None
            keeps the picture's own.
        on_error: ``"raise"``, or ``"blank"`` to get grey for a picture that cannot be used.
        max_pixels: The largest width x height that is decoded, read from the header before decoding.

    Raises:
        ItemError: If the file is missing, damaged, too large or of an unknown format, and ``on_error="raise"``.
        ConfigError: If ``on_error`` is neither of the two.
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
    """Decode every image once, so that a damaged one is found now and not in the middle of a training run.

    Args:
        items: The table; items without an image are fine.
        on_error: ``"raise"``, or ``"blank"`` to go on without the images that cannot be used.
        max_pixels: The largest width x height allowed, read from the header before decoding.

    Returns:
        The table; with ``"blank"``, the images that cannot be used are None in it.

    Raises:
        ItemError: If images are missing, damaged or too large: their number, and the first five ids with the reasons.
        ConfigError: If ``on_error`` is neither of the two.

    Warns:
        LisWarning: With ``"blank"``, how many images of how many cannot be used.
    """
    _check_choice(on_error)
    rows = [row for row, path in enumerate(items.images) if path is not None]
    if not rows:
        return items
    reasons = _reasons([items.images[row] for row in rows], max_pixels)
    bad = {row: reason for row, reason in zip(rows, reasons, strict=True) if reason}
    if not bad:
        return items
    named = "; ".join(f"{items.ids[row]} ({items.images[row]}: {bad[row]})" for row in list(bad)[:5])
    count = f"{len(bad)} of {len(rows)} item images cannot be used"
    if on_error == "raise":
        raise ItemError(
            f"{count}. The first {min(5, len(bad))} by item id: {named}. Repair or remove them, or set "
            "on_bad_image=blank to train with plain grey in their place."
        )
    warnings.warn(f"{count} and are replaced by plain grey: {named}.", LisWarning, stacklevel=2)
    return replace(items, images=tuple(None if row in bad else path for row, path in enumerate(items.images)))


def image_paths(
    ids: Sequence[Any] | NDArray[Any], names: Sequence[str | None], folder: Path
) -> tuple[Path | None, ...]:
    """Return where each item's image is, and refuse any that lies outside the image folder.

    Args:
        ids: The items, for the message.
        names: Paths relative to ``folder``, or absolute ones within it; None or empty for an item without one.
        folder: The only folder from which images may be read.

    Raises:
        ItemError: If the folder does not exist, or a path leaves it, also through a symbolic link.
    """
    root = Path(folder).expanduser().resolve()
    if not root.is_dir():
        raise ItemError(f"The image folder {root} does not exist; set image_folder to the folder of the item images.")
    paths = [(root / name) if name else None for name in names]
    outside = [row for row, path in enumerate(paths) if path and not path.resolve().is_relative_to(root)]
    if outside:
        named = "; ".join(f"{ids[row]} ({names[row]})" for row in outside[:5])
        raise ItemError(
            f"{len(outside)} image paths leave the image folder {root}. The first {min(5, len(outside))} by item id: "
            f"{named}. Images are read from that folder only; move them there or set image_folder to a common parent."
        )
    return tuple(paths)


def check_features(features: NDArray[np.float32], ids: NDArray[Any]) -> None:
    """Raise unless ``features`` is a finite matrix with one row an item.

    Args:
        features: Should be [num_items, dim].
        ids: The items, [num_items].

    Raises:
        ShapeError: With the shape that came and the one expected.
        NonFiniteError: With the first five items that hold NaN or infinity.
    """
    if features.ndim != 2 or features.shape[0] != len(ids):
        raise ShapeError(
            f"Item features have shape {features.shape}, expected ({len(ids)}, dim): one row an item, in the order of "
            "the item table."
        )
    broken = ~np.isfinite(features).all(axis=1)
    if broken.any():
        raise NonFiniteError(
            f"The features of {int(broken.sum())} of {len(ids)} items hold NaN or infinity: item ids "
            f"{first_ids(ids[broken])}. Write zeros for items without features."
        )


def first_ids(ids: Iterable[Any], count: int = 5) -> str:
    """Return the first few ids as they would be written in Python, and how many more there are."""
    shown = ids.tolist() if isinstance(ids, np.ndarray) else list(ids)
    more = f" and {len(shown) - count} more" if len(shown) > count else ""
    return ", ".join(repr(item) for item in shown[:count]) + more


class _BadImageError(Exception):
    """Why one image cannot be used."""


def _check_choice(on_error: str) -> None:
    if on_error not in get_args(OnBadImage):
        raise ConfigError(f"on_bad_image={on_error!r} is unknown; use one of {', '.join(get_args(OnBadImage))}.")


def _kind_hint(wanted: Any, ids: NDArray[Any]) -> str:
    """Return the likely cause where ids are numbers on one side and texts on the other."""
    have_text, want_text = ids.dtype.kind in "OU", isinstance(wanted, str)
    if not len(ids) or have_text == want_text:
        return ""
    kinds = ("integers", "strings")
    return (
        f" The likely cause: its ids are {kinds[have_text]} ({ids.tolist()[0]!r}) and the others "
        f"{kinds[want_text]} ({wanted!r}); write both with one type."
    )


def _decode(path: Path, max_pixels: int) -> Image.Image:
    """Open and decode one image; whatever is wrong with it comes out as one sentence."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    if not path.is_file():
        raise _BadImageError("missing" if not path.exists() else "not a file")
    try:
        # The list of formats keeps out those that Pillow hands to other programs (EPS) or that are not pictures.
        with Image.open(path, formats=[name for name in _FORMATS if name in _known_formats()]) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise _BadImageError(f"{width} x {height} pixels, more than the {max_pixels:,} allowed")
            image.load()
            upright = ImageOps.exif_transpose(image)
            return _to_rgb(upright)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _BadImageError(f"far more pixels than the {max_pixels:,} allowed") from None
    except UnidentifiedImageError:
        raise _BadImageError(f"not an image of a known format ({path.stat().st_size} bytes)") from None
    except _BadImageError:
        raise
    except Exception as error:  # decoders of damaged files raise OSError, SyntaxError, struct.error, and more
        raise _BadImageError(f"damaged ({type(error).__name__}: {error})") from error


def _known_formats() -> dict[str, Any]:
    from PIL import Image

    Image.init()
    return Image.OPEN


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


def _reasons(paths: Sequence[Path | None], max_pixels: int) -> list[str]:
    """Return why each image cannot be used, empty for those that can; a bar appears after two seconds."""
    from PIL import Image

    def reason(path: Path | None) -> str:
        try:
            _decode(Path(path or ""), max_pixels)
        except _BadImageError as error:
            return str(error)
        return ""

    with warnings.catch_warnings(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        # Our own limit speaks; Pillow's, at 89 million pixels, would be said once more and without the item's id.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return list(_with_bar(pool.map(reason, paths), len(paths)))


def _with_bar(values: Iterator[str], total: int) -> Iterator[str]:
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TimeRemainingColumn

    started = time.monotonic()
    progress = Progress(
        SpinnerColumn(),
        "Checking item images",
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    task = progress.add_task("", total=total)
    with ExitStack() as stack:
        for value in values:
            if not progress.live.is_started and time.monotonic() - started > 2:
                stack.enter_context(progress)
            progress.advance(task)
            yield value
