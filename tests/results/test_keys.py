"""Keys without blanks, each of them once."""

from __future__ import annotations

import pytest

from lis_lightning.results.keys import name_parts


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        (["head items"], ["head_items"]),
        (["genre=Sci-Fi/Fantasy", "genre=(other)"], ["genre_Sci-Fi_Fantasy", "genre_other"]),
        (["x=a b", "x=a_b", "x=a/b"], ["x_a_b", "x_a_b_2", "x_a_b_3"]),
        (["x=a", "x=a low"], ["x_a", "x_a_low_2"]),  # `x_a_low` is the end of an interval
        (["x=a low", "x=a"], ["x_a_low", "x_a_2"]),
        (["国=中 国"], ["国_中_国"]),
        (["?", "!"], ["_", "__2"]),
    ],
)
def test_parts_of_keys_are_plain_and_different(names, parts):
    assert name_parts(names) == dict(zip(names, parts, strict=True))
