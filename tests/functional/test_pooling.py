"""Pooling against loops, and its blindness to padding on either side."""

from __future__ import annotations

import pytest
import torch

from lis_lightning.errors import ShapeError
from lis_lightning.functional.pooling import pool, pool_history

EOS = 7
LENGTHS = (3, 5, 1)
WIDTH = 4


def sequences():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(length, WIDTH, generator=generator) for length in LENGTHS]


def tokens():
    return [torch.tensor(row) for row in ([1, EOS, 2], [EOS, 3, EOS, 5, 4], [EOS])]


def padded(rows, side, fill):
    """Rows in one tensor of 6 positions, and which of them are real."""
    out = torch.full((len(rows), 6, *rows[0].shape[1:]), fill, dtype=rows[0].dtype)
    real = torch.zeros(len(rows), 6, dtype=torch.bool)
    for row, values in enumerate(rows):
        where = slice(0, len(values)) if side == "right" else slice(6 - len(values), 6)
        out[row, where], real[row, where] = values, True
    return out, real


BY_HAND = {
    "mean": lambda states, ids: sum(states) / len(states),
    "cls": lambda states, ids: states[0],
    "last": lambda states, ids: states[-1],
    "eos": lambda states, ids: states[max(at for at, token in enumerate(ids.tolist()) if token == EOS)],
}


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("pooling", BY_HAND)
def test_pools_as_by_hand_whatever_the_padding_holds(pooling, side):
    states, real = padded(sequences(), side, torch.nan)
    ids, _ = padded(tokens(), side, EOS)  # padded with the token that ends sequences, as many tokenizers do
    expected = torch.stack([BY_HAND[pooling](*row) for row in zip(sequences(), tokens(), strict=True)])
    torch.testing.assert_close(pool(states, real, pooling, ids=ids, eos=[EOS]), expected)


def test_half_precision_is_averaged_in_single():
    states = torch.ones(1, 4096, 1, dtype=torch.bfloat16) * 0.1  # a bfloat16 sum would stall at 32
    pooled = pool(states, torch.ones(1, 4096, dtype=torch.bool), "mean")
    assert pooled.dtype == torch.float32
    assert pooled.item() == pytest.approx(states[0, 0, 0].item(), rel=1e-5)


@pytest.mark.parametrize(
    ("pooling", "message"),
    [
        ("mean", "1 of 2 sequences have no real position, the first in row 1"),
        ("eos", r"2 of 2 sequences have no token among \[9\], which end a sequence, the first in row 0"),
    ],
)
def test_a_sequence_with_nothing_to_pool_is_refused(pooling, message):
    real = torch.tensor([[True, True], [False, False]])
    with pytest.raises(ShapeError, match=message):
        pool(torch.ones(2, 2, 1), real, pooling, ids=torch.ones(2, 2, dtype=torch.int64), eos=[9])


def test_the_end_of_a_sequence_needs_its_tokens():
    with pytest.raises(ShapeError, match="needs the `ids`"):
        pool(torch.ones(1, 2, 1), torch.ones(1, 2, dtype=torch.bool), "eos")


def test_histories_pool_unit_rows_and_an_empty_one_is_zero(rows):
    histories = torch.stack([rows[:3], rows[3:6]])
    present = torch.tensor([[True, False, True], [False, False, False]])
    unit = rows / rows.norm(dim=1, keepdim=True)
    expected = torch.stack([(unit[0] + unit[2]) / 2, torch.zeros(4, dtype=torch.float64)])
    torch.testing.assert_close(pool_history(histories, present), expected)
