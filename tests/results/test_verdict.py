"""The verdict on recorded trajectories: real scores of known representations, made by trajectories/generate.py."""

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lis_lightning.errors import ConfigError, ShapeError
from lis_lightning.functional.intervals import cluster_interval
from lis_lightning.results.record_contents import unpack
from lis_lightning.results.result import Ceiling, LISResult
from lis_lightning.results.snapshot import Snapshot
from lis_lightning.results.verdict import VERDICTS, gain_over_best, judge

TRAJECTORIES = Path(__file__).parent / "trajectories"
PAIRS = "LIS of pairs (an estimate of what this preference data carries)"
ENDS = {
    "at-ceiling": "at-ceiling",
    "ceiling-not-binding": "ceiling-not-binding",
    "collapse": "collapsed",
    "data-bound": "data-bound",
    "dip-then-rise": "improving",
    "model-bound": "model-bound",
    "overfit-items": "past-its-best",
    "overfit-users": "past-its-best",
    "placebo-failed": "placebo-failed",
    "plateau": "plateau",
    "underpowered": "underpowered",
}


def recorded(name):
    return unpack((TRAJECTORIES / f"{name}.jsonl").read_text().splitlines())


def judged(results, rule=None):
    """The judgement after each result."""
    return [judge(results[: number + 1], rule) for number in range(len(results))]


def spread(se, users=200):
    """Influence values with this standard error."""
    values = np.random.default_rng(0).standard_normal(users)
    values -= values.mean()
    return values * se / np.sqrt(users / (users - 1) * (values @ values))


def flat(ais=0.0, se=0.001, *, limit=None, limit_se=0.001, **kwargs):
    gain = cluster_interval(ais, spread(se))
    ceilings = {}
    if limit is not None:
        edge = cluster_interval(limit, spread(limit_se))
        ceilings = {"pairs": Ceiling(value=limit, low=edge.low, high=edge.high, influence=spread(limit_se))}
    kind = Snapshot if "step" in kwargs else LISResult
    return kind(
        ais=ais, ais_low=gain.low, ais_high=gain.high, ais_geometry=ais, auc_base=0.7, auc=0.7 + ais,
        influence=spread(se), ceilings=ceilings, num_events=10_000, **kwargs,
    )  # fmt: skip


@pytest.mark.parametrize(("name", "verdict"), ENDS.items())
def test_every_kind_of_trajectory_ends_with_its_verdict(name, verdict):
    assert judge(recorded(name)).verdict == verdict


@pytest.mark.parametrize("name", ENDS)
def test_a_verdict_does_not_flip_back_and_forth_but_may_become_unclear(name):
    verdicts = [judgement.verdict for judgement in judged(recorded(name)) if judgement.verdict != "undecided"]
    turns = [here for here, before in zip(verdicts[1:], verdicts, strict=False) if here != before]
    assert len(turns) == len(set(turns)), verdicts


def test_a_dip_does_not_stop_a_run_that_rises_again():
    judgements = judged(recorded("dip-then-rise"))
    assert not any(judgement.stop for judgement in judgements)
    assert [judgement.verdict for judgement in judgements[6:]] == ["improving"] * 3
    assert re.fullmatch(r"AIS \+0\.0092: steps 400 to 600 gained \+0\.0064 \[.*\]\. Go on\.", judgements[6].message)


def test_a_dip_in_the_first_part_of_the_plan_is_not_past_its_best():
    results = recorded("dip-then-rise")[:4]
    assert judge(results, max_steps=1000).verdict == "past-its-best"
    assert judge(results, max_steps=2000).verdict == "warming-up"


def test_a_significant_fall_is_past_its_best_and_names_the_step_to_keep():
    judgements = judged(recorded("overfit-items"))
    assert [judgement.verdict for judgement in judgements[5:]] == ["past-its-best"] * 4
    assert all(judgement.best == 4 for judgement in judgements[4:])
    assert re.fullmatch(
        r"AIS fell from \+0.0\d+ to \+0.0\d+, by -0.0\d+ \[.*\] \(the gap between seen and unseen items went from "
        r"-0.0\d+ to \+0.0\d+\)\. Keep the snapshot of step 400\.",
        judgements[6].message,
    )


def test_a_fall_is_overfitting_where_the_training_loss_still_falls():
    results = recorded("overfit-users")
    falling = [replace(result, train_loss=1.0 - index / 10) for index, result in enumerate(results)]
    assert judge(falling).verdict == "overfitting"
    assert "while the training loss still falls, from 0.6 to 0.1" in judge(falling).message
    rising = [replace(result, train_loss=index / 10) for index, result in enumerate(results)]
    assert judge(rising).verdict == "past-its-best"


def test_a_plateau_is_said_once_the_rest_cannot_add_a_relevant_gain():
    judgement = judge(recorded("plateau"), max_steps=1500)
    assert (judgement.verdict, judgement.stop) == ("plateau", True)
    assert judgement.message == judgement.reason + ". Keep the snapshot of step 500."
    assert re.fullmatch(
        r"at the pace since step 900, the remaining 200 steps add at most 0\.000\d AUC, less than the 0\.0008 worth "
        r"training for",
        judgement.reason,
    )


def test_noise_on_a_plateau_is_neither_a_rise_nor_a_fall():
    # The ten snapshots of the plateau know the same: any order of them is as good as the recorded one.
    results = recorded("plateau")
    rise, level = results[:4], results[4:]
    rng = np.random.default_rng(0)
    verdicts = []
    for _ in range(40):
        shuffled = [level[index] for index in rng.permutation(len(level))]
        results = [replace(result, step=400 + 100 * index) for index, result in enumerate(shuffled)]
        verdicts.append([judge([*rise, *results[:number]]).verdict for number in range(5, len(level) + 1)])
    assert np.isin(verdicts, ["plateau", "undecided"]).mean() > 0.95


def test_a_plateau_far_below_the_ceiling_is_model_bound():
    judgement = judge(recorded("model-bound"))
    assert re.search(
        r"at most \d\d% of LIS of pairs \(an estimate of .*\) can be realised at this pace, and steps 600",
        judgement.message,
    )
    assert "the model or its training is the bottleneck, not the data" in judgement.message


def test_the_ceiling_is_said_and_a_lower_newest_snapshot_does_not_take_it_back():
    judgements = judged(recorded("at-ceiling"))
    assert [judgement.verdict for judgement in judgements[4:]] == ["at-ceiling"] * 3
    assert not any(judgement.stop for judgement in judgements[:6])  # content may go beyond: the curve decides
    assert f"AIS +0.0262 has reached {PAIRS}, +0.0251 [" in judgements[4].message
    assert judgements[6].message.endswith("Keep the snapshot of step 500. Only better preference data can bring more.")


def test_a_ceiling_that_does_not_bind_is_said_and_does_not_stop():
    judgement = judge(recorded("ceiling-not-binding"))
    assert not judgement.stop
    assert f"exceeds {PAIRS}, +0.0251 [" in judgement.message


def test_data_that_cannot_help_is_said_from_the_first_snapshot_on():
    judgements = judged(recorded("data-bound"))
    assert {judgement.verdict for judgement in judgements} == {"data-bound"}
    assert re.fullmatch(
        re.escape(PAIRS) + r" is \+0.000\d \[-0.000\d, \+0.00\d+\], below the \+0.005 that matters: more or better "
        r"preference data is needed; more training will not help\.",
        judgements[0].message,
    )


def test_a_split_too_small_names_the_events_that_would_do():
    judgement = judge(recorded("underpowered"))
    assert re.search(
        r"it may be nothing, and it may be the \+0.005 that matters. 500 test events cannot tell, about \d+,000 can",
        judgement.message,
    )


def test_with_the_events_asked_for_the_verdict_is_no_longer_underpowered():
    wide = judge([flat(limit=0.001, limit_se=0.003)])
    assert wide.verdict == "underpowered"
    needed = int(re.search(r"about ([\d,]+) can", wide.message)[1].replace(",", ""))
    for limit in (0.0, 0.001, 0.0025, 0.005):
        assert judge([flat(limit=limit, limit_se=0.003 * math.sqrt(10_000 / needed))]).verdict != "underpowered"


def test_an_exact_nothing_is_underpowered_where_the_split_would_not_have_shown_more():
    nothing = replace(flat(limit=0.0, limit_se=0.0), ais=0.0, ais_low=0.0, ais_high=0.0, influence=np.zeros(200))
    few = replace(nothing, num_events=131, detectable=0.1)
    assert judge([few]).verdict == "underpowered"
    assert re.search(r"is 0, .* 131 test events show gains from \+0\.1000 only, about 2,700 the", judge([few]).message)
    assert judge([replace(nothing, num_events=200_000, detectable=0.0007)]).verdict == "data-bound"


def test_an_underpowered_split_names_the_days_where_time_has_a_unit():
    wide = replace(flat(limit=0.001, limit_se=0.003), num_days=20.0)
    assert re.search(r"about 58,000 can \(120 days at this rate\): more users or a longer log", judge([wide]).message)
    assert "days" not in judge([flat(limit=0.001, limit_se=0.003)]).message


def test_a_narrow_interval_around_a_low_ceiling_does_not_replace_the_power_of_the_split():
    """A ranker that hardly uses useless vectors has a small standard error, which says nothing of a gain of .005."""
    low = flat(limit=0.0005, limit_se=0.0005, ais=0.0)
    assert judge([low]).verdict == "data-bound"
    coarse = judge([replace(low, detectable=0.010)])
    assert coarse.verdict == "underpowered"
    assert "10,000 test events show gains from +0.0100 only, about 20,000 the +0.005" in coarse.message


@pytest.mark.parametrize("clear", [False, True])
def test_fewer_than_ten_users_are_underpowered_even_where_the_interval_leaves_out_zero(clear):
    result = replace(flat(0.02 if clear else 0.0, 0.001, limit=0.02), num_users=2)
    judgement = judge([result])
    assert judgement.verdict == "underpowered"
    assert judgement.message.startswith("the test events are of 2 users: no interval holds with fewer than 10.")
    assert judge([replace(result, num_users=10)]).verdict != "underpowered"


def test_without_a_ceiling_ais_itself_is_what_may_be_underpowered():
    assert judge([flat(0.001, 0.003)]).message.startswith("AIS is +0.0010 [-0.0050, +0.0070]: it may be nothing")
    assert judge([flat(0.001, 0.001)]).verdict == "warming-up"


def test_one_user_says_nothing():
    alone = replace(flat(), influence=np.zeros(1))
    assert judge([alone]).verdict == "underpowered"
    assert judge([alone]).message == "AIS rests on one user; nothing can be said. Score more users."


def test_a_clear_ais_is_not_data_bound():
    assert judge([flat(0.002, 0.0005, limit=0.0015, limit_se=0.001)]).verdict != "data-bound"


def test_an_unclear_ceiling_is_not_reached():
    assert judge([flat(0.01, 0.002, limit=0.01, limit_se=0.003)]).verdict == "warming-up"
    assert judge([flat(0.01, 0.002, limit=0.01, limit_se=0.0015)]).verdict == "at-ceiling"


def test_collapse_says_what_to_go_back_to():
    message = judge(recorded("collapse")).message
    assert "effective rank of the representation is 1.1" in message
    assert "Keep the snapshot of step 300." in message


def test_a_failed_placebo_shows_both_arms():
    results = recorded("placebo-failed")
    assert {judgement.verdict for judgement in judged(results)} == {"placebo-failed"}
    permuted = results[0].placebo.permuted
    assert (
        f"{permuted.value:+.4f} [{permuted.low:+.4f}, {permuted.high:+.4f}] (rows permuted)" in judge(results).message
    )


def test_a_failed_snapshot_changes_nothing_but_the_words():
    results = recorded("plateau")
    failed = replace(results[0], ais=math.nan, influence=np.zeros(0), step=50)
    whole, holed = judge(results), judge([results[0], failed, *results[1:]])
    assert (holed.verdict, holed.stop, holed.best, holed.gain_z) == (whole.verdict, whole.stop, 6, whole.gain_z)
    newest = judge([*results, failed])
    assert newest.verdict == whole.verdict
    assert newest.message == "the newest snapshot has no score; up to the one before: " + whole.message
    assert math.isnan(newest.gain_z)
    assert judge([failed, results[0]]).best == 1
    assert math.isnan(judge([failed, results[0]]).gain_z)


def test_no_score_at_all_is_no_verdict_on_training():
    judgement = judge([replace(flat(), ais=math.nan)])
    assert (judgement.verdict, judgement.stop, judgement.best) == ("warming-up", False, 0)
    assert judgement.message == "no snapshot has a score yet: look at why they failed."


def test_gains_are_paired_against_the_best_before():
    results = recorded("plateau")[:7]
    gain = gain_over_best(results)
    assert math.isnan(gain_over_best(results[:1]).value)
    assert gain == results[6].compare(results[5])
    unpaired = (results[6].ais - results[5].ais) / np.hypot(results[6].se, results[5].se)
    assert abs(gain.z) > 5 * abs(unpaired)
    assert judge(results).gain_z == gain.z


def test_one_representation_shows_no_trend():
    assert judge([flat(0.01, limit=0.02)]).message.startswith("one representation shows no trend")
    assert judge([flat(0.01, limit=0.02, realised_high=0.6)]).verdict == "model-bound"
    assert "snapshot 1, step 0: too early" in judge([flat(0.01, limit=0.02, step=0)]).message


def test_results_of_two_splits_are_refused():
    with pytest.raises(ShapeError, match="'a' with 200 users, the other on 'b'"):
        judge([flat(split_hash="b"), flat(split_hash="a")])


def test_every_verdict_is_known_and_reached():
    reached = {judgement.verdict for name in ENDS for judgement in judged(recorded(name))}
    assert reached | {"overfitting", "quantisation-bound", "too-few-snapshots"} == set(VERDICTS)


def test_nothing_to_judge_is_an_error():
    with pytest.raises(ConfigError, match="list of results is empty"):
        judge([])


def test_headroom_says_what_is_left_and_ends_a_run_that_has_it_all():
    results = recorded("ceiling-not-binding")
    bare = judge(results)
    assert bare.verdict == "ceiling-not-binding"
    left = [replace(one, headroom=0.004, headroom_low=0.002, headroom_high=0.006) for one in results]
    assert (
        "Leaked on top of this representation, pairs would still add +0.0040 [+0.0020, +0.0060]" in judge(left).message
    )
    assert not judge(left).stop


def test_a_representation_that_has_what_the_data_can_teach_is_at_the_ceiling():
    short = flat(0.010, limit=0.012, limit_se=0.0005, headroom=0.0, headroom_low=-0.0001, headroom_high=0.0001)
    assert judge([short]).verdict == "at-ceiling"
    assert judge([replace(short, headroom=0.001, headroom_high=0.002)]).verdict != "at-ceiling"


def test_a_ceiling_that_is_met_while_the_data_has_more_to_teach_is_not_reached():
    met = flat(0.012, limit=0.012, limit_se=0.0005)
    assert judge([met]).verdict == "at-ceiling"
    more = replace(met, headroom=0.004, headroom_low=0.002, headroom_high=0.006)
    assert judge([more]).verdict != "at-ceiling"


def test_a_clear_ais_above_an_empty_ceiling_is_not_data_bound():
    """Shuffled pairs, with content that gains a little by itself."""
    clear = flat(0.0012, 0.0003, limit=0.0, limit_se=0.0001)
    assert judge([clear, clear]).verdict == "ceiling-not-binding"
    assert judge([flat(0.0002, 0.0003, limit=0.0, limit_se=0.0001)]).verdict == "data-bound"


@pytest.mark.parametrize("limit", [0.005, 0.01, 0.02])
@pytest.mark.parametrize("limit_se", [0.0005, 0.001, 0.002, 0.004, 0.01])
def test_a_real_ceiling_is_hardly_ever_data_bound_whatever_the_size_of_the_log(limit, limit_se):
    rng = np.random.default_rng(0)
    draws = limit + limit_se * rng.standard_normal(400)
    bound = [judge([flat(0.0, limit_se, limit=value, limit_se=limit_se)]).verdict == "data-bound" for value in draws]
    assert np.mean(bound) <= 0.05


def test_a_low_ceiling_on_few_events_is_underpowered_and_names_the_events():
    judgement = judge([flat(-0.004, 0.0035, limit=-0.004, limit_se=0.0035)])
    assert judgement.verdict == "underpowered"
    assert re.search(r"10,000 test events show gains from \+0\.0098 only, about 39,000 the \+0\.005", judgement.message)


def test_a_finished_run_ends_with_a_verdict():
    results = [flat(0.01, step=step) for step in (0, 50, 100)]
    assert judge(results).verdict == "warming-up"
    for judgement in (judge(results, ended=True), judge(results, max_steps=100)):
        assert judgement.verdict == "too-few-snapshots"
        assert "3 of the 4 snapshots that show a trend: 1 more needed" in judgement.message


def test_a_finished_run_without_any_score_says_how_many_are_needed():
    judgement = judge([replace(flat(), ais=math.nan)], ended=True)
    assert judgement.verdict == "too-few-snapshots"
    assert "4 are needed" in judgement.message


def test_a_finished_run_whose_users_are_lost_counts_the_snapshots_that_it_can_use():
    lost = [replace(flat(0.005, step=step), influence=np.zeros(0)) for step in range(0, 300, 50)]
    message = judge([*lost, flat(0.01, step=300)], ended=True).message
    assert "2 of the 4 snapshots that show a trend: 2 more needed" in message


@pytest.mark.parametrize("users", [30, 100, 300, 1000, 3000])
def test_a_real_ceiling_of_heavy_tailed_users_is_hardly_ever_data_bound(users):
    """The influence of each user grows with an activity that is heavy-tailed; the ceiling is .005 or .01."""
    rng = np.random.default_rng(users)
    bound = []
    for limit in (0.005, 0.01):
        for _ in range(100):
            activity = np.exp(rng.standard_normal(users))
            influence = 0.06 * activity / activity.sum() * rng.standard_normal(users)
            value = limit + influence.sum()
            edge = cluster_interval(value, influence - influence.mean())
            ceiling = Ceiling(value=value, low=edge.low, high=edge.high, influence=influence - influence.mean())
            result = replace(flat(0.0), ceilings={"pairs": ceiling}, influence=spread(0.001, users))
            bound.append(judge([result]).verdict == "data-bound")
    assert np.mean(bound) <= 0.05


@pytest.mark.parametrize(("rank", "ais", "collapsed"), [(6.0, 0.002, True), (6.0, 0.01, False), (8.0, 0.002, False)])
def test_a_rank_that_is_lost_is_a_collapse_where_nothing_is_gained(rank, ais, collapsed):
    raw = flat(0.002, 0.0005, limit=0.03, companions={"rankme": 29.0})
    late = flat(ais, 0.0006, limit=0.03, companions={"rankme": rank})
    assert (judge([raw, raw, raw, late]).verdict == "collapsed") is collapsed
    assert judge([raw, late]).verdict == "warming-up"
