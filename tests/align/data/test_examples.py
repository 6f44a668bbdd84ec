from __future__ import annotations

import numpy as np
import pytest

from lis_lightning.align.data import Examples, hold_out, mix_bits
from lis_lightning.errors import ConfigError, ShapeError


def _examples(number: int = 60, **options) -> Examples:
    rows = np.array([(i, i + 1 + k) for i in range(20) for k in range(20)], dtype=np.int64)[:number]
    held_out = hold_out(mix_bits(np.arange(number)), 0.05)
    return Examples({"anchor": rows[:, :1], "positive": rows[:, 1:]}, held_out, **options)


def test_the_side_of_an_example_does_not_depend_on_others():
    keys = mix_bits(np.arange(4000), 3)
    mask = hold_out(keys, 0.05)
    assert mask.sum() == 200
    np.testing.assert_array_equal(mask, hold_out(keys[::-1], 0.05)[::-1])
    fewer = hold_out(keys[:3800], 0.05)
    assert (fewer & ~mask[:3800]).sum() <= 10  # the share moved by 5 %, hardly an example changed sides
    assert (mask != hold_out(mix_bits(np.arange(4000), 4), 0.05)).any()


def test_the_number_held_out_is_bounded():
    assert hold_out(mix_bits(np.arange(10_000)), 0.5).sum() == 2000
    assert hold_out(mix_bits(np.arange(6)), 0.05).sum() == 2


@pytest.mark.parametrize(
    ("number", "share", "match"), [(10, 1.5, "but got 1.5"), (3, 0.05, "3 examples are too few to hold 2 out")]
)
def test_error_on_held_out(number, share, match):
    with pytest.raises(ConfigError, match=match):
        hold_out(mix_bits(np.arange(number)), share)


def test_error_on_rows_of_other_examples():
    with pytest.raises(ShapeError, match=r"'positive': \(4, 1\)"):
        Examples({"anchor": np.ones((5, 1), int), "positive": np.ones((4, 1), int)}, np.zeros(5, bool))
