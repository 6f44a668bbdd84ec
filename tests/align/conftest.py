from __future__ import annotations

import numpy as np
import pytest

from lis_lightning.align.data import ItemTable

_WORDS = ("red lamp", "blue wooden chair", "a tall green vase with a long description of its many uses", "cup", "rug")
_COLOURS = ((220, 30, 30), (30, 30, 220), (30, 200, 60), (240, 240, 90), (120, 60, 30))


@pytest.fixture(scope="session")
def pictured(tmp_path_factory) -> ItemTable:
    """Five items with images of their own, texts of unequal length, and a sixth without an image."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("images")
    paths = []
    for number, colour in enumerate(_COLOURS):
        paths.append(folder / f"{number}.png")
        Image.new("RGB", (40, 30 + number), colour).save(paths[-1])
    ids = np.arange(10, 16)
    return ItemTable(ids, (*_WORDS, ""), (*paths, None))


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Where the tests of this process keep their tiny models."""
    return tmp_path_factory.mktemp("models")
