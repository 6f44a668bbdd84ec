import numpy as np
from scipy.optimize import brentq

from lis_lightning.data.split import PreferenceSplit
from lis_lightning.functional.auc import auroc, auroc_influence
from lis_lightning.functional.intervals import Z95, cluster_interval, user_sums
from lis_lightning.scoring.scorer import Scorer


def test_the_smallest_detectable_gain_is_found_four_times_in_five(split):
    test = split.tested
    base, labels, users = (
        Scorer(split).base_ranker.logits.numpy()[test],
        split.events.label[test],
        split.events.user[test],
    )
    noise = np.random.default_rng(5).standard_normal((100, base.size))
    before, base_influence = auroc_influence(base, labels)

    def mean_gain(strength):
        return np.mean([auroc(signal(strength, draw), labels) - before for draw in noise])

    def signal(strength, draw):
        return base + strength**2 * (labels - 0.5) + strength * draw

    strength = brentq(lambda value: mean_gain(value) - Scorer(split).smallest_detectable_gain, 0.01, 3, xtol=1e-3)
    hits = 0
    for draw in noise:
        after, influence = auroc_influence(signal(strength, draw), labels)
        hits += cluster_interval(after - before, user_sums(influence - base_influence, users, split.num_users)).z > Z95
    assert 65 <= hits <= 95


def test_the_smallest_detectable_gain_hardly_depends_on_the_draw(log):
    gains = [
        Scorer(PreferenceSplit.from_log(log, seed=seed, unseen_items=0)).smallest_detectable_gain for seed in range(6)
    ]
    assert max(gains) < 1.4 * min(gains)


def test_more_events_detect_smaller_gains(log, split):
    fewer = PreferenceSplit.from_log(log, max_events=600)
    assert Scorer(fewer).smallest_detectable_gain > 1.3 * Scorer(split).smallest_detectable_gain


def test_a_handful_of_events_detects_nothing(log):
    assert Scorer(PreferenceSplit.from_log(log, max_events=60)).smallest_detectable_gain > 0.05
