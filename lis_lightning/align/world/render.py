"""Images and texts of the items of the generated world.

Six attributes determine preferences; some are visible in the image only, some in the text only. Everything else in
image and text (background, position, rotation, dots, noise; brand, size, delivery, adjectives) is nuisance: it is
independent of preferences, and it dominates the representations of an encoder that was not fine-tuned.

Example:
    >>> sorted(VOCABULARY)
    ['category', 'colour', 'material', 'pattern', 'shape', 'style']
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image

VOCABULARY: dict[str, dict[str, tuple[str, ...]]] = {
    "colour": dict.fromkeys(("red", "orange", "yellow", "green", "teal", "blue", "purple", "pink"), ()),
    "shape": dict.fromkeys(("disc", "square", "triangle", "star", "cross", "heart"), ()),
    "pattern": {
        "plain": ("plain", "unpatterned"),
        "stripes": ("striped", "pinstriped"),
        "checks": ("checked", "chequered"),
        "dots": ("dotted", "speckled"),
        "rings": ("ringed", "concentric"),
    },
    "category": {
        "lamp": ("lamp", "lantern"),
        "seat": ("chair", "stool"),
        "cup": ("mug", "tumbler"),
        "bag": ("backpack", "satchel"),
        "clock": ("clock", "timepiece"),
        "vase": ("vase", "planter"),
        "shelf": ("shelf", "bookcase"),
        "rug": ("rug", "carpet"),
    },
    "material": {
        "leather": ("leather", "suede"),
        "wood": ("oak", "walnut"),
        "metal": ("steel", "brass"),
        "fabric": ("cotton", "linen"),
        "glass": ("glass", "crystal"),
        "clay": ("ceramic", "porcelain"),
        "plastic": ("acrylic", "resin"),
    },
    "style": {
        "rustic": ("rustic", "farmhouse"),
        "minimal": ("minimal", "nordic"),
        "retro": ("retro", "vintage"),
        "playful": ("playful", "cartoonish"),
        "industrial": ("industrial", "workshop"),
        "ornate": ("ornate", "baroque"),
    },
}
"""Words that a text may use, by attribute and value; no words for an attribute that only the image shows."""

SHOWN_IN_TEXT = tuple(name for name, values in VOCABULARY.items() if all(values.values()))
SHOWN_IN_IMAGE = ("colour", "shape", "pattern")

_HUES = {"red": 0, "orange": 28, "yellow": 55, "green": 120, "teal": 176, "blue": 222, "purple": 272, "pink": 322}
# fmt: off
_BRANDS = (
    "Aldine", "Borva", "Castell", "Dunmore", "Elvik", "Farrow", "Gaspar", "Hollin", "Isberg", "Jorvik", "Kestrel",
    "Lumora", "Marlow", "Nordal", "Oakhurst", "Pellier", "Quantock", "Rivona", "Selkirk", "Tavira", "Umbria", "Valmont",
    "Wexley", "Xanthe", "Yarrow", "Zelmar", "Arbour", "Brixen", "Calder", "Dovetail",
)
_ADJECTIVES = (
    "handy", "sturdy", "lovely", "roomy", "compact", "elegant", "durable", "clever", "quiet", "bright", "gentle",
    "honest", "popular", "daily", "trusty", "neat", "light", "heavy", "bold", "calm", "smart", "solid", "fresh", "fine",
    "tidy", "warm", "cool", "proud", "simple", "rare",
)
_CITIES = (
    "Lyon", "Porto", "Ghent", "Turin", "Malmo", "Riga", "Leeds", "Bergen", "Vigo", "Graz", "Lodz", "Split", "Cork",
    "Nantes", "Basel", "Aarhus",
)
# fmt: on
_TEMPLATES = (
    "{title}. {adjective} {style} {category}, {pattern}, in {material}. {extra}",
    "{title}: a {pattern} {material} {category} with {style} looks. {extra}",
    "{title}. Made of {material} in {city}, this {pattern} {category} brings {style} charm. {extra}",
    "{extra} {title}: the {pattern} {category} by {brand} is {style} and built from {material}.",
    "{title}. {extra} Our {adjective} {style} {category} comes {pattern}; its body is {material}.",
)
_EXTRAS = (
    "Ships from {city}.",
    "Weighs {number} kg.",
    "Bought by {number} customers in {city}.",
    "With a {number}-year warranty.",
    "{second} and {adjective}.",
    "Designed in {city} by {brand}.",
    "Gift box {number} included.",
    "Keep it {adjective}.",
)

_OVERSAMPLING = 3

_Colour: TypeAlias = tuple[int, int, int]


def render_text(attributes: Mapping[str, str], rng: Generator) -> tuple[str, str]:
    """Return the title and the description of an item.

    Args:
        attributes: The item's value of every attribute in :data:`VOCABULARY`.
        rng: Random generator for the choice of words and the nuisance.

    Returns:
        A short title, and one text that holds the title and a word for each attribute of :data:`SHOWN_IN_TEXT`.
    """

    def pick(words: tuple[str, ...]) -> str:
        return words[int(rng.integers(len(words)))]

    words = {name: pick(VOCABULARY[name][attributes[name]]) for name in SHOWN_IN_TEXT}
    words |= {
        "brand": pick(_BRANDS),
        "city": pick(_CITIES),
        "adjective": pick(_ADJECTIVES),
        "second": pick(_ADJECTIVES),
    }
    words |= {
        "number": str(rng.integers(2, 99)),
        "letter": "ABCDEFGHKLMNPRSTVXYZ"[int(rng.integers(20))],
    }
    words["title"] = "{brand} {second} {category} {letter}{number}".format(**words)
    words["extra"] = pick(_EXTRAS).format(**words)
    return words["title"], pick(_TEMPLATES).format(**words)


def render_image(attributes: Mapping[str, str], rng: Generator, size: int) -> Image.Image:
    """Return the image of an item: its shape, pattern and colour on a random background.

    Args:
        attributes: The item's value of at least ``shape``, ``pattern`` and ``colour``.
        rng: Random generator for background, position, rotation, dots and noise.
        size: Width and height in pixels.

    Returns:
        An RGB image of ``size`` x ``size`` pixels.
    """
    from PIL import Image, ImageDraw

    large = size * _OVERSAMPLING
    canvas = _background(rng, large)
    radius = large * rng.uniform(0.31, 0.38)
    centre = large * rng.uniform(0.44, 0.56, size=2)
    turn = math.radians(rng.uniform(-20, 20))
    outline = _outline(attributes["shape"], turn)
    light = _fill(attributes["colour"], rng)
    dark = (int(0.35 * light[0]), int(0.35 * light[1]), int(0.35 * light[2]))
    mask = Image.new("L", (large, large))
    rim = Image.new("L", (large, large))
    ImageDraw.Draw(mask).polygon(_polygon(outline, centre, radius), fill=255)
    ImageDraw.Draw(rim).polygon(_polygon(outline, centre, radius * 1.1), fill=255)
    # A bright or dark rim separates the shape from any background.
    rim_brightness = 250 if rng.random() < 0.5 else 15
    canvas.paste((rim_brightness,) * 3, mask=rim)
    tone = Image.fromarray(_pattern(attributes["pattern"], large, centre, radius, turn, rng.uniform(0, 1)))
    canvas.paste(_two_tone(dark, light, tone), mask=mask)
    pixels = np.asarray(canvas.reduce(_OVERSAMPLING), dtype=np.float32)
    pixels = pixels + 7 * rng.standard_normal(pixels.shape, dtype=np.float32)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _fill(colour: str, rng: Generator) -> _Colour:
    """Return the named colour as RGB, with small random changes of hue, saturation and brightness."""
    hue = (_HUES[colour] + rng.uniform(-6, 6)) / 360 % 1
    return _rgb(hue, rng.uniform(0.75, 0.98), rng.uniform(0.82, 0.98))


def _rgb(hue: float, saturation: float, value: float) -> _Colour:
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return int(255 * red), int(255 * green), int(255 * blue)


def _two_tone(first: _Colour, second: _Colour, share: Image.Image) -> Image.Image:
    """Return an image with the first colour where ``share`` is white and the second where it is black."""
    from PIL import Image

    return Image.composite(Image.new("RGB", share.size, first), Image.new("RGB", share.size, second), share)


def _background(rng: Generator, size: int) -> Image.Image:
    """Return a gradient between two random colours with a few dots on it."""
    from PIL import Image, ImageDraw

    near = _rgb(rng.random(), rng.uniform(0.05, 0.45), rng.uniform(0.15, 0.95))
    far = _rgb(rng.random(), rng.uniform(0.05, 0.45), rng.uniform(0.15, 0.95))
    ramp = Image.linear_gradient("L").rotate(rng.uniform(0, 360)).resize((size, size), box=(38, 38, 218, 218))
    canvas = _two_tone(near, far, ramp)
    draw = ImageDraw.Draw(canvas)
    for _ in range(int(rng.integers(3, 9))):
        across, down = rng.uniform(0, size, size=2)
        radius = size * rng.uniform(0.015, 0.05)
        box = (across - radius, down - radius, across + radius, down + radius)
        draw.ellipse(box, fill=_rgb(rng.random(), rng.uniform(0.3, 1), rng.uniform(0.3, 1)))
    return canvas


def _outline(shape: str, turn: float) -> NDArray[np.float64]:
    """Return the corners of a shape in the unit circle, rotated by ``turn`` radians, [num_corners, 2]."""
    if shape == "heart":
        t = np.linspace(0, 2 * np.pi, 60, endpoint=False)
        across = 16 * np.sin(t) ** 3
        down = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
        corners = np.stack([across, down], axis=1) / 17
    elif shape == "cross":
        arm = 0.34
        quarter = np.array([[arm, -0.98], [arm, -arm], [0.98, -arm]])
        turns = [np.array([[0, -1], [1, 0]]), np.array([[-1, 0], [0, -1]]), np.array([[0, 1], [-1, 0]])]
        corners = np.concatenate([quarter, *(quarter @ matrix.T for matrix in turns)])
    else:
        count, inner = {"disc": (48, 1.0), "square": (4, 1.0), "triangle": (3, 1.0), "star": (10, 0.42)}[shape]
        start = np.pi / 4 if shape == "square" else -np.pi / 2
        angles = start + np.arange(count) * 2 * np.pi / count
        radii = np.where(np.arange(count) % 2, inner, 1.0)
        corners = np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii[:, None]
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    return np.asarray(corners @ rotation.T)


def _polygon(outline: NDArray[np.float64], centre: NDArray[np.float64], radius: float) -> list[tuple[float, float]]:
    return [(float(across), float(down)) for across, down in outline * radius + centre]


def _pattern(
    pattern: str, size: int, centre: NDArray[np.float64], radius: float, turn: float, phase: float
) -> NDArray[np.uint8]:
    """Return a mask with the darker tone of a pattern, [size, size] of 0 and 255."""
    if pattern == "plain":
        return np.zeros((size, size), dtype=np.uint8)
    axis = (np.arange(size, dtype=np.float32) + 0.5)[:, None]
    across, down = (axis.T - centre[0]) / radius, (axis - centre[1]) / radius
    u = 2.4 * (math.cos(turn) * across + math.sin(turn) * down) + phase
    v = 2.4 * (math.cos(turn) * down - math.sin(turn) * across) + phase
    if pattern == "stripes":
        dark = v % 1 < 0.45
    elif pattern == "checks":
        dark = (u % 1 < 0.5) ^ (v % 1 < 0.5)
    elif pattern == "dots":
        dark = np.hypot(u % 1 - 0.5, v % 1 - 0.5) < 0.3
    else:
        dark = (2.2 * np.hypot(across, down) + phase) % 1 < 0.45
    return np.where(dark, 255, 0).astype(np.uint8)
