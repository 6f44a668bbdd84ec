from __future__ import annotations

import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lis_lightning.align.data import ItemTable, load_image
from lis_lightning.align.data.images import check_images, image_paths
from lis_lightning.errors import ConfigError, ItemError, LisWarning

GREY = (128, 128, 128)


def _table(paths: list[Path | None]) -> ItemTable:
    count = len(paths)
    return ItemTable(np.arange(100, 100 + count), tuple(f"item {i}" for i in range(count)), tuple(paths))


def _picture(path: Path, colour: tuple[int, ...] = (200, 10, 10), size: tuple[int, int] = (20, 10), **save) -> Path:
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[len(colour)]
    Image.new(mode, size, colour if len(colour) > 1 else colour[0]).save(path, **save)
    return path


def _header_only(path: Path, width: int, height: int) -> Path:
    """A PNG of a few bytes that claims to be of any size."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    data = b"IDAT" + zlib.compress(b"\0" * 100)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", len(data) - 4) + data + b"\0\0\0\0")
    return path


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "gif", "bmp", "tiff", "ppm"])
def test_common_formats_are_read_as_rgb(tmp_path, ending):
    image = load_image(_picture(tmp_path / f"one.{ending}"))
    assert (image.mode, image.size) == ("RGB", (20, 10))
    assert np.abs(np.array(image.getpixel((9, 5))) - (200, 10, 10)).max() < 12


def test_image_is_scaled_to_a_square_without_cropping(tmp_path):
    canvas = Image.new("RGB", (40, 20), (0, 0, 0))
    canvas.paste((255, 255, 255), (0, 0, 4, 20))
    canvas.save(tmp_path / "a.png")
    image = load_image(tmp_path / "a.png", size=10)
    assert image.size == (10, 10)
    assert image.getpixel((0, 5))[0] > 200
    assert image.getpixel((9, 5))[0] < 20


def test_no_image_is_grey():
    assert load_image(None, size=5).getcolors() == [(25, GREY)]
    assert load_image(None).getcolors()[0][1] == GREY


def test_transparency_is_laid_over_grey(tmp_path):
    image = load_image(_picture(tmp_path / "a.png", (255, 0, 0, 0)))
    assert image.getcolors() == [(200, GREY)]
    Image.new("P", (4, 4), 1).save(tmp_path / "b.gif", transparency=1)
    assert load_image(tmp_path / "b.gif").getcolors() == [(16, GREY)]


def test_sixteen_bit_grey_keeps_its_brightness(tmp_path):
    Image.fromarray(np.full((4, 4), 128 * 256, dtype=np.uint16)).save(tmp_path / "a.png")
    assert load_image(tmp_path / "a.png").getcolors() == [(16, GREY)]


def test_camera_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    assert load_image(_picture(tmp_path / "a.jpg", exif=exif)).size == (10, 20)


def _broken(kind: str, folder: Path) -> Path:
    path = folder / f"{kind}.png"
    if kind == "truncated":
        whole = _picture(folder / "whole.png", size=(200, 200))
        noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
        Image.fromarray(noise).save(whole)
        path.write_bytes(whole.read_bytes()[:20_000])
    elif kind == "text":
        path.write_text("<html>404</html>")
    elif kind == "empty":
        path.touch()
    elif kind == "folder":
        path.mkdir()
    elif kind == "postscript":
        path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    elif kind == "large":
        _header_only(path, 8_000, 8_000)
    elif kind == "bomb":
        _header_only(path, 10_000, 10_000)
    elif kind == "enormous":
        _header_only(path, 60_000, 60_000)
    return path


REASONS = {
    "missing": "missing",
    "folder": "not a file",
    "truncated": "damaged",
    "text": r"not an image of a known format \(16 bytes\)",
    "empty": r"not an image of a known format \(0 bytes\)",
    "postscript": "not an image of a known format",
    "large": "8000 x 8000 pixels, more than the 50,000,000 allowed",
    "bomb": "far more pixels than the 50,000,000 allowed",
    "enormous": "far more pixels than the 50,000,000 allowed",
}


@pytest.mark.parametrize("kind", REASONS)
def test_an_unusable_image_is_an_error_with_its_reason_or_grey(tmp_path, kind):
    path = _broken(kind, tmp_path)
    with pytest.raises(ItemError, match=rf"{kind}\.png: {REASONS[kind]}.*on_bad_image=blank"):
        load_image(path)
    assert load_image(path, size=3, on_error="blank").getcolors() == [(9, GREY)]


def test_pixel_limit_is_read_before_decoding(tmp_path):
    path = _header_only(tmp_path / "a.png", 100, 100)
    with pytest.raises(ItemError, match="100 x 100 pixels, more than the 9,999 allowed"):
        load_image(path, max_pixels=9_999)
    with pytest.raises(ItemError, match="damaged"):
        load_image(path, max_pixels=10_000)


def test_check_passes_good_images_and_items_without(tmp_path):
    table = _table([_picture(tmp_path / "a.png"), None])
    assert check_images(table) is table


def test_check_names_the_first_five_and_the_way_out(tmp_path):
    good = _picture(tmp_path / "good.png")
    bad = [_broken(kind, tmp_path) for kind in REASONS]
    with pytest.raises(ItemError) as caught:
        check_images(_table([good, None, *bad]))
    message = str(caught.value)
    assert "9 of 10 item images cannot be used. The first 5 by item id: 102 (" in message
    assert [f"; {item} (" in message for item in (103, 104, 105, 106, 107)] == [True] * 4 + [False]
    assert "missing.png: missing)" in message
    assert "on_bad_image=blank" in message


def test_check_can_go_on_without_the_bad_ones_and_says_how_many(tmp_path):
    table = _table([_picture(tmp_path / "good.png"), tmp_path / "gone.png", _broken("enormous", tmp_path)])
    with pytest.warns(
        LisWarning, match=r"2 of 3 item images cannot be used and are left out: 101 \(.*gone.png: missing"
    ):
        checked = check_images(table, "blank")
    assert checked.images == (tmp_path / "good.png", None, None)
    assert checked.texts == table.texts
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert check_images(checked, "blank") is checked


def test_unknown_choice_is_refused(tmp_path):
    for call in (check_images, lambda table, choice: load_image(None, on_error=choice)):
        with pytest.raises(ConfigError, match=r"on_bad_image='skip' is unknown; use one of raise, blank"):
            call(_table([None]), "skip")


def test_a_bar_appears_once_the_check_takes_long(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    table = _table([_picture(tmp_path / f"{row}.png") for row in range(3)])
    check_images(table)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("lis_lightning.align.data.progress.PATIENCE", 0.0)
    check_images(table)
    assert "Checking item images" in capsys.readouterr().err


def test_paths_within_the_folder_are_resolved(tmp_path):
    (tmp_path / "sub").mkdir()
    inside = tmp_path / "sub" / "a.png"
    found = image_paths(np.arange(4), ["sub/a.png", str(inside), None, ""], tmp_path)
    assert found == (inside, inside, None, None)


def test_an_item_has_several_images_by_a_list_or_a_folder(tmp_path):
    (tmp_path / "clip").mkdir()
    (tmp_path / "none").mkdir()
    frames = [_picture(tmp_path / "clip" / f"frame{number}.png") for number in (1, 2, 10)]
    (tmp_path / "clip" / "notes.txt").write_text("no image")
    one, two = tmp_path / "1.png", tmp_path / "2.png"
    names = [["1.png", None, "2.png"], "clip", ["1.png", "clip"], ["2.png"], [], [None, ""], "none"]
    expected = ((one, two), tuple(frames), (one, *frames), two, None, None, tmp_path / "none")
    assert image_paths(np.arange(7), names, tmp_path) == expected


def test_of_several_images_the_bad_ones_are_named_or_left_out(tmp_path):
    good = [_picture(tmp_path / f"{number}.png") for number in range(3)]
    bad = _broken("text", tmp_path)
    table = _table([(good[0], bad, good[1]), (bad, good[2]), (bad,), tuple(good)])
    with pytest.raises(ItemError, match=r"3 of 9 item images cannot be used.*by item id: 100 \(.*; 101 \(.*; 102 \("):
        check_images(table)
    with pytest.warns(LisWarning, match="3 of 9 item images"):
        assert check_images(table, "blank").images == ((good[0], good[1]), good[2], None, tuple(good))


@pytest.mark.parametrize(
    "name", ["../secret.png", "/etc/hostname", "sub/../../secret.png", "link.png", "door/secret.png", "door", "frames"]
)
def test_paths_that_leave_the_image_folder_are_refused(tmp_path, name):
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    secret = _picture(tmp_path / "secret.png")
    (folder / "link.png").symlink_to(secret)
    (folder / "door").symlink_to(tmp_path)
    (folder / "frames").mkdir()
    (folder / "frames" / "frames.png").symlink_to(secret)
    with pytest.raises(ItemError, match=r"1 image paths leave the image folder .*images\. .* 8 \(") as caught:
        image_paths(np.array([7, 8]), ["fine.png", name], folder)
    assert name in str(caught.value)


def test_a_missing_image_folder_is_named(tmp_path):
    with pytest.raises(ItemError, match=r"image folder .*nowhere does not exist; set image_folder"):
        image_paths(np.array([1]), ["a.png"], tmp_path / "nowhere")
