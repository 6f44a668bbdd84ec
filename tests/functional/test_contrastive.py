from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch.nn import functional as F

from lis_lightning.errors import ConfigError, NonFiniteError, ShapeError
from lis_lightning.functional.contrastive import info_nce, multi_positive_contrastive


def _draw(num_pairs: int, dim: int, seed: int, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(num_pairs, dim, generator=generator, dtype=dtype),
        torch.randn(num_pairs, dim, generator=generator, dtype=dtype),
    )


def _mask(num_pairs: int, seed: int, share: float = 0.3) -> torch.Tensor:
    return torch.rand(num_pairs, num_pairs, generator=torch.Generator().manual_seed(seed)) < share


def _by_hand(anchors: torch.Tensor, positives: torch.Tensor, temperature: float, mask: torch.Tensor | None) -> float:
    """The formula of the docstring, one scalar at a time."""
    num_pairs = len(anchors)

    def score(i: int, j: int) -> float:
        a, p = anchors[i].tolist(), positives[j].tolist()
        dot = sum(x * y for x, y in zip(a, p, strict=True))
        return dot / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in p)) / temperature

    total = 0.0
    for i in range(num_pairs):
        row = column = 0.0
        for j in range(num_pairs):
            if i == j or mask is None or not mask[i, j]:
                row += math.exp(score(i, j))
            if i == j or mask is None or not mask[j, i]:
                column += math.exp(score(j, i))
        total += math.log(row) + math.log(column) - 2 * score(i, i)
    return total / (2 * num_pairs)


@settings(max_examples=25, deadline=None)
@given(
    num_pairs=st.integers(1, 7),
    dim=st.integers(1, 5),
    temperature=st.floats(0.05, 3.0),
    masked=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_equals_double_loop(num_pairs, dim, temperature, masked, seed):
    anchors, positives = _draw(num_pairs, dim, seed)
    mask = _mask(num_pairs, seed) if masked else None
    loss = info_nce(anchors, positives, temperature, mask)
    assert loss.item() == pytest.approx(_by_hand(anchors, positives, temperature, mask), rel=1e-9, abs=1e-12)


def test_equals_two_cross_entropies():
    anchors, positives = _draw(16, 8, 0, torch.float32)
    logits = F.cosine_similarity(anchors[:, None], positives[None], dim=-1) / 0.1
    expected = (F.cross_entropy(logits, torch.arange(16)) + F.cross_entropy(logits.T, torch.arange(16))) / 2
    torch.testing.assert_close(info_nce(anchors, positives, 0.1), expected)


def test_ignores_length_of_rows_and_order_of_pairs():
    anchors, positives = _draw(9, 4, 1)
    mask = _mask(9, 1)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(2))
    expected = info_nce(anchors, positives, 0.2, mask)
    scaled = info_nce(anchors * torch.arange(1, 10)[:, None], positives * 0.01, 0.2, mask)
    permuted = info_nce(anchors[order], positives[order], 0.2, mask[order][:, order])
    swapped = info_nce(positives, anchors, 0.2, mask.T)
    torch.testing.assert_close(torch.stack([scaled, permuted, swapped]), expected.expand(3))


def test_masked_pair_gets_no_gradient():
    anchors, positives = _draw(3, 4, 3)
    positives.requires_grad_()
    mask = torch.zeros(3, 3, dtype=torch.bool)
    mask[:, 2] = True  # column 2 stays only in its own row
    mask[2, :] = True
    info_nce(anchors, positives, 0.5, mask).backward()
    assert positives.grad is not None
    assert positives.grad[2].abs().max() == 0
    assert positives.grad[:2].abs().min() > 0


def test_diagonal_of_mask_is_not_read():
    anchors, positives = _draw(5, 3, 4)
    mask = _mask(5, 4)
    torch.testing.assert_close(
        info_nce(anchors, positives, 0.3, mask | torch.eye(5, dtype=torch.bool)),
        info_nce(anchors, positives, 0.3, mask & ~torch.eye(5, dtype=torch.bool)),
    )


@pytest.mark.parametrize("masked", [False, True], ids=["all negatives", "masked"])
def test_gradients(masked):
    anchors, positives = (rows.requires_grad_() for rows in _draw(5, 3, 5))
    temperature = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    mask = _mask(5, 5) if masked else None
    assert torch.autograd.gradcheck(lambda a, p, t: info_nce(a, p, t, mask), (anchors, positives, temperature))


def test_stays_in_float32_under_autocast():
    anchors, positives = _draw(64, 32, 6, torch.float32)
    expected = info_nce(anchors, positives, 0.01)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = info_nce(anchors, positives, 0.01)
    assert inside.dtype == torch.float32
    assert inside.item() == expected.item()


def test_half_precision_rows_give_a_float32_loss():
    anchors, positives = _draw(8, 4, 7, torch.bfloat16)
    loss = info_nce(anchors, positives, 0.07)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, info_nce(anchors.float(), positives.float(), 0.07))


def test_zero_row_is_finite():
    anchors, positives = _draw(4, 3, 8)
    anchors[0] = 0
    anchors.requires_grad_()
    info_nce(anchors, positives, 0.07).backward()
    assert torch.isfinite(anchors.grad).all()


def test_one_pair_has_nothing_to_learn_from():
    anchors, positives = _draw(1, 3, 9)
    assert info_nce(anchors, positives).item() == 0.0


@pytest.mark.parametrize(
    ("anchors", "positives", "match"),
    [
        ((4, 3), (4, 2), r"`anchors` \(4, 3\), `positives` \(4, 2\)"),
        ((4, 3), (5, 3), r"`anchors` \(4, 3\), `positives` \(5, 3\)"),
        ((0, 3), (0, 3), r"\(0, 3\)"),
        ((3,), (3,), r"\(3,\)"),
    ],
)
@pytest.mark.usefixtures("unchecked_shapes")
def test_error_on_wrong_shapes(anchors, positives, match):
    with pytest.raises(ShapeError, match=match):
        info_nce(torch.ones(anchors), torch.ones(positives))


@pytest.mark.usefixtures("unchecked_shapes")
def test_error_on_mask_of_wrong_shape():
    with pytest.raises(ShapeError, match=r"\[4, 4\].*\(4, 3\)"):
        info_nce(torch.ones(4, 3), torch.ones(4, 3), known_positives=torch.ones(4, 3, dtype=torch.bool))


def test_error_on_temperature():
    with pytest.raises(ConfigError, match=r"above 0, but got -0.5"):
        info_nce(torch.ones(2, 3), torch.ones(2, 3), temperature=-0.5)


def test_error_on_nan_names_row():
    positives = torch.ones(4, 3)
    positives[2, 1] = math.nan
    with pytest.raises(NonFiniteError, match=r"`positives` has NaN.* 1 of 4 rows, the first is row 2"):
        info_nce(torch.ones(4, 3), positives)


def test_further_negatives_join_the_direction_from_the_anchors():
    anchors, positives = _draw(4, 3, seed=0)
    more, _ = _draw(5, 3, seed=1)
    hidden = torch.rand(4, 5, generator=torch.Generator().manual_seed(2)) < 0.4
    loss = info_nce(anchors, positives, 0.3, negatives=more, known_negatives=hidden)
    a, p, n = (F.normalize(x, dim=1) for x in (anchors, positives, more))
    total = 0.0
    for i in range(4):
        row = [math.exp(float(a[i] @ p[j]) / 0.3) for j in range(4)]
        row += [math.exp(float(a[i] @ n[j]) / 0.3) for j in range(5) if not hidden[i, j]]
        column = [math.exp(float(a[j] @ p[i]) / 0.3) for j in range(4)]
        total += math.log(sum(row)) + math.log(sum(column)) - 2 * float(a[i] @ p[i]) / 0.3
    assert loss.item() == pytest.approx(total / 8)
    assert info_nce(anchors, positives, 0.3, negatives=more, known_negatives=torch.ones(4, 5, dtype=torch.bool)) == (
        pytest.approx(info_nce(anchors, positives, 0.3).item())
    )


def test_many_positives_against_the_formula():
    rows, _ = _draw(6, 3, seed=3)
    classes = torch.tensor([0, 1, 0, 2, 0, -1])
    unit = F.normalize(rows, dim=1)
    total, counted = 0.0, 0
    for i in range(6):
        others = [p for p in range(6) if p != i and classes[p] == classes[i] and classes[i] >= 0]
        if others:
            counted += 1
            below = math.log(sum(math.exp(float(unit[i] @ unit[j]) / 0.2) for j in range(6) if j != i))
            total -= sum(float(unit[i] @ unit[p]) / 0.2 - below for p in others) / len(others)
    assert counted == 3
    assert multi_positive_contrastive(rows, classes, 0.2).item() == pytest.approx(total / counted)


def test_items_without_a_class_in_common_cost_nothing_and_have_gradients():
    rows, _ = _draw(3, 2, seed=0)
    rows.requires_grad_()
    loss = multi_positive_contrastive(rows, torch.tensor([0, 1, -1]))
    loss.backward()
    assert loss.item() == 0.0
    assert torch.isfinite(rows.grad).all()
