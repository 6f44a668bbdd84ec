"""A score does not depend on the precision that the training has set, and leaves it as it was."""

from __future__ import annotations

import threading

import pytest
import torch

from lis_lightning.scoring.compute_settings import full_precision
from lis_lightning.scoring.options import ScoreOptions
from lis_lightning.scoring.scorer import Scorer


@pytest.fixture
def medium():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    yield
    torch.set_float32_matmul_precision(before)


def _ais(split):
    vectors = torch.randn(split.num_items, 96, generator=torch.Generator().manual_seed(0))
    return Scorer(split, cache_dir="off").score(vectors, ScoreOptions(ceilings=(), placebo=False)).ais


def test_a_score_under_autocast_is_the_same(split):
    alone = _ais(split)
    with torch.autocast("cpu", torch.bfloat16):
        assert _ais(split) == alone


def test_a_score_under_reduced_matmul_precision_is_the_same(split, request):
    alone = _ais(split)
    request.getfixturevalue("medium")
    assert _ais(split) == alone
    assert torch.get_float32_matmul_precision() == "medium"


def test_the_precision_of_a_running_training_is_not_changed_from_a_thread(medium):
    seen = []

    def work():
        with full_precision():
            seen.append(torch.get_float32_matmul_precision())

    with full_precision():
        pass
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == ["medium"]


def test_the_precision_is_restored_after_an_exception(medium):
    with pytest.raises(RuntimeError, match="stop"), full_precision():
        raise RuntimeError("stop")
    assert torch.get_float32_matmul_precision() == "medium"
