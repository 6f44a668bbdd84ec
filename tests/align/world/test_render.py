from __future__ import annotations

import colorsys

import numpy as np
import pytest

from lis_lightning.align.world import VOCABULARY
from lis_lightning.align.world.render import SHOWN_IN_IMAGE, SHOWN_IN_TEXT, render_image, render_text


def _looks(rng: np.random.Generator, **fixed: str) -> dict[str, str]:
    return {name: list(values)[rng.integers(len(values))] for name, values in VOCABULARY.items()} | fixed


def _pixels(looks: dict[str, str], seed: int = 0, size: int = 48) -> np.ndarray:
    return np.asarray(render_image(looks, np.random.default_rng(seed), size), dtype=float)


BASE = _looks(np.random.default_rng(0), shape="disc", pattern="plain", colour="red")


def test_text_has_a_word_for_each_attribute_it_shows():
    rng = np.random.default_rng(0)
    for _ in range(200):
        looks = _looks(rng)
        title, text = render_text(looks, rng)
        assert title in text
        assert len(text.split()) < 40
        for name in SHOWN_IN_TEXT:
            assert any(word in text for word in VOCABULARY[name][looks[name]]), (name, looks[name], text)


def test_text_is_silent_about_what_only_the_image_shows():
    hidden = [value for name in VOCABULARY if name not in SHOWN_IN_TEXT for value in VOCABULARY[name]]
    assert hidden
    rng = np.random.default_rng(1)
    for _ in range(200):
        text = render_text(_looks(rng), rng)[1].lower().replace(".", " ").split()
        assert not set(hidden) & set(text)


def test_words_of_one_attribute_value_are_not_words_of_another():
    words = [word for values in VOCABULARY.values() for synonyms in values.values() for word in synonyms]
    assert len(words) == len(set(words))
    for word in words:
        assert not [other for other in words if word != other and f" {word} " in f" {other} "], word


def test_every_attribute_shows_somewhere_and_some_in_one_place_only():
    image, text = set(SHOWN_IN_IMAGE), set(SHOWN_IN_TEXT)
    assert image | text == set(VOCABULARY)
    assert image - text
    assert text - image
    assert image & text


@pytest.mark.parametrize("size", [16, 48, 80])
def test_image_is_rgb_of_the_asked_size(size):
    image = render_image(BASE, np.random.default_rng(0), size)
    assert (image.size, image.mode) == ((size, size), "RGB")


@pytest.mark.parametrize("name", SHOWN_IN_IMAGE)
def test_values_of_a_shown_attribute_look_different_on_the_same_scene(name):
    drawn = [_pixels(BASE | {name: value}) for value in VOCABULARY[name]]
    for row, one in enumerate(drawn):
        for other in drawn[:row]:
            assert (np.abs(one - other).max(axis=2) > 40).mean() > 0.03


@pytest.mark.parametrize("name", sorted(set(VOCABULARY) - set(SHOWN_IN_IMAGE)))
def test_attributes_of_the_text_do_not_change_the_image(name):
    first, *_, last = VOCABULARY[name]
    np.testing.assert_array_equal(_pixels(BASE | {name: first}), _pixels(BASE | {name: last}))


@pytest.mark.parametrize(("colour", "degrees"), [("red", 0), ("yellow", 55), ("green", 120), ("blue", 222)])
def test_the_middle_of_a_plain_item_has_its_hue(colour, degrees):
    for seed in range(5):
        red, green, blue = _pixels(BASE | {"colour": colour}, seed)[20:28, 20:28].mean(axis=(0, 1)) / 255
        hue = 360 * colorsys.rgb_to_hsv(red, green, blue)[0]
        assert abs((hue - degrees + 180) % 360 - 180) < 12


def test_nuisance_makes_most_of_the_variance_between_images():
    rng = np.random.default_rng(2)
    looks = [_looks(rng) for _ in range(200)]
    pixels = np.stack([np.asarray(render_image(item, rng, 16), dtype=float).ravel() for item in looks])
    shown = [[item[name] == value for name in SHOWN_IN_IMAGE for value in VOCABULARY[name]] for item in looks]
    design = np.column_stack([np.ones(len(looks)), np.array(shown, dtype=float)])
    residual = pixels - design @ np.linalg.lstsq(design, pixels, rcond=None)[0]
    explained = 1 - (residual**2).sum() / ((pixels - pixels.mean(axis=0)) ** 2).sum()
    assert 0.05 < explained < 0.35
