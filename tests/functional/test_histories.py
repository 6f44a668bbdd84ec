import numpy as np
import pytest
import torch

from lis_lightning.functional.histories import repeat_counts, user_profiles


def history_rows(histories, event):
    return range(int(histories.start[event]), int(histories.stop[event]))


def test_profiles_equal_a_loop_over_histories(histories, vectors):
    got = user_profiles(vectors, histories)
    for event in range(25):
        expected = torch.zeros(6, dtype=torch.float64)
        for row in history_rows(histories, event):
            residual = histories.label[row] - histories.user_rate[event]
            expected += residual * vectors[histories.item[row]]
        torch.testing.assert_close(got[event], expected / (5 + len(history_rows(histories, event))))


def test_repeats_count_the_target_in_its_own_history(histories):
    got = repeat_counts(histories)
    for event in range(25):
        same = [r for r in history_rows(histories, event) if histories.item[r] == histories.target[event]]
        positive = sum(float(histories.label[r]) for r in same)
        assert got[event].tolist() == pytest.approx([np.log1p(positive), np.log1p(len(same) - positive)])
