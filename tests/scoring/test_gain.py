import numpy as np
import pytest
import torch

from lis_lightning.functional.auc import auroc
from lis_lightning.functional.item_coordinates import principal_coordinates
from lis_lightning.functional.probe import NUM_GROUPS
from lis_lightning.scoring.base_ranker import look_up_items, probe_inputs
from lis_lightning.scoring.gain import evaluate
from lis_lightning.scoring.scorer import Scorer


@pytest.fixture(scope="module")
def arm(split, latents):
    return arm_of(split, latents)


def arm_of(split, vectors):
    prepared = Scorer(split).base_ranker
    inputs = probe_inputs(
        prepared, look_up_items(prepared.histories, [principal_coordinates(torch.from_numpy(vectors))])
    )
    return evaluate(split, prepared, inputs, prepared.logits)


def test_the_interval_holds_test_users_and_training_users(split, arm):
    gain = arm.gain
    assert gain.influence.size == split.num_users + NUM_GROUPS
    aucs = np.array([auroc(arm.leave_group_out[:, group], arm.labels[arm.sample]) for group in range(NUM_GROUPS)])
    variance = (NUM_GROUPS - 1) / NUM_GROUPS * ((aucs - aucs.mean()) ** 2).sum()
    np.testing.assert_allclose((gain.influence[-NUM_GROUPS:] ** 2).sum(), variance)
    assert gain.estimate.se**2 == pytest.approx((gain.influence**2).sum(), rel=0.02)
    assert 0 < variance < gain.estimate.se**2


def test_training_terms_tell_the_spread_over_training_users(split, latents, arm):
    """Against refits on resampled training users: their spread is what the terms stand for."""
    prepared = Scorer(split).base_ranker
    inputs = probe_inputs(
        prepared, look_up_items(prepared.histories, [principal_coordinates(torch.from_numpy(latents))])
    )
    user, rng = torch.from_numpy(split.events.user), np.random.default_rng(0)
    gains = []
    for _ in range(40):
        drawn = rng.integers(0, split.num_users, split.num_users)
        times = torch.from_numpy(np.bincount(drawn, minlength=split.num_users))[user] * prepared.train
        rows = torch.cat([torch.arange(user.numel()).repeat_interleave(times), (~prepared.train).nonzero()[:, 0]])
        gains.append(refit_gain(prepared, inputs, rows))
    spread = np.sqrt((arm.gain.influence[-NUM_GROUPS:] ** 2).sum())
    assert 0.5 < spread / np.std(gains) < 2


def refit_gain(prepared, inputs, rows):
    from lis_lightning.functional.probe import ProbeInputs, fit_probe

    chosen = ProbeInputs(
        *(values[rows] for values in (inputs.profile, inputs.target, inputs.attention, inputs.log_norm, inputs.rates))
    )
    base, labels, groups = prepared.logits[rows], prepared.labels[rows], prepared.groups[rows]
    fit = fit_probe(chosen, base, labels, groups)
    test = (groups < 0).numpy()
    return auroc((base + fit.score).numpy()[test], labels.numpy()[test])


def test_weights_of_one_change_nothing(arm):
    whole = np.ones(arm.labels.size, bool)
    weighted = arm.gain_of(whole, np.ones(arm.labels.size))
    assert weighted.value == pytest.approx(arm.gain.value)
    np.testing.assert_allclose(weighted.influence, arm.gain.influence, atol=1e-12)


def test_without_information_everything_is_exactly_zero(split):
    blank = arm_of(split, np.full((split.num_items, 5), 0.7))
    assert blank.gain.value == 0.0
    assert not blank.gain.influence.any()
    assert (blank.gain.estimate.low, blank.gain.estimate.high) == (0.0, 0.0)


def test_thinning_for_the_training_terms_keeps_both_classes(arm, monkeypatch):
    monkeypatch.setattr("lis_lightning.scoring.gain.JACKKNIFE_EVENTS", 300)
    thinned = arm.gain_of(np.ones(arm.labels.size, bool))
    spread, expected = (np.sqrt((gain.influence[-NUM_GROUPS:] ** 2).sum()) for gain in (thinned, arm.gain))
    assert 0.5 < spread / expected < 2
