import pytest
from PIL import Image

from lis_lightning.report.thumbnails import thumbnail


@pytest.mark.parametrize(
    ("name", "size", "mode", "expected"),
    [
        ("wide.jpg", (800, 200), "RGB", (96, 24)),
        ("tall.png", (100, 300), "RGBA", (32, 96)),
        ("grey.png", (50, 40), "L", (50, 40)),
        ("palette.gif", (200, 200), "P", (96, 96)),
    ],
)
def test_an_image_becomes_a_thumbnail(image, name, size, mode, expected):
    small = thumbnail(image(name, size, mode))
    assert (small.size, small.mode) == (expected, "RGB")


def test_an_image_too_large_to_open_is_left_out(image, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # twice that is what Pillow calls a bomb
    assert thumbnail(image("bomb.png", (50, 50))) is None
