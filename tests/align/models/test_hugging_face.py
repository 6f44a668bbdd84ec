from __future__ import annotations

import pytest

from lis_lightning.align.models.hugging_face import quiet_transformers


def test_progress_bars_come_back():
    from transformers.utils import logging

    seen = []

    def fail():
        with quiet_transformers():
            seen.append(logging.is_progress_bar_enabled())
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert seen == [False]
    assert logging.is_progress_bar_enabled()
