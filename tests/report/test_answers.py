import dataclasses
import math

import pytest

from lis_lightning.report import recorded_run
from lis_lightning.report.answers import answers, mark, tone
from lis_lightning.results.verdict import VERDICTS, Judgement


def told(run, verdict, *, stop=False, reason=""):
    found = dataclasses.replace(run)
    found.__dict__["judgement"] = Judgement(
        verdict=verdict, message="m", stop=stop, reason=reason, best=len(run.results) - 1, gain_z=0.0
    )
    return [one.answer for one in answers(found)]


@pytest.mark.parametrize("verdict", VERDICTS)
def test_every_verdict_answers_the_four_questions(scored, verdict):
    run = recorded_run(None, scored(0))
    assert all(told(run, verdict))
    assert mark(verdict)
    assert tone(verdict) in {"good", "bad", "plain"}


def test_the_bottleneck_is_the_one_of_the_verdict(scored):
    run = recorded_run(None, scored(0))
    assert told(run, "data-bound")[3] == "The preference data"
    assert told(run, "model-bound")[3] == "The model or its training"


def test_a_run_goes_on_while_it_improves_and_stops_when_the_rule_says_so(scored):
    run = recorded_run(None, scored(0))
    assert told(run, "improving")[2] == "Go on"
    assert told(run, "plateau", stop=True, reason="flat")[2] == "Stop"
    assert told(dataclasses.replace(run, ended=True), "plateau")[2].startswith("The run has ended; best at step")


def first_answer(best, **changes):
    return answers(recorded_run(None, [dataclasses.replace(best, **changes)]))[0]


def test_headroom_is_the_first_answer_or_why_there_is_none(scored):
    best = scored(0)[-1]
    known = first_answer(best, headroom=0.004, headroom_low=0.002, headroom_high=0.006)
    assert known.question == "What would the data still add?"
    assert known.answer == "+0.0040 [+0.0020, +0.0060]"
    assert first_answer(best, headroom=math.nan).answer == "Not measured"
    bare = first_answer(best, headroom=math.nan, ceilings={})
    assert (bare.answer, bare.evidence) == ("No preference data was scored", "see the curve")


def test_lis_and_the_share_of_it_come_with_what_they_are(scored):
    best = scored(0)[-1]
    shared = first_answer(best, realised=0.5, realised_low=0.4, realised_high=0.6).evidence
    assert shared.startswith("LIS of pairs (an estimate of what this preference data carries): +")
    assert shared.endswith("; realised, AIS / LIS: 50% [40%, 60%]")
    unclear = dataclasses.replace(best.ceilings["pairs"], low=-0.01, value=0.01, high=0.03)
    assert first_answer(best, realised=math.nan, ceilings={"pairs": unclear}).evidence.endswith("; it may be 0")
    low = dataclasses.replace(best.ceilings["pairs"], low=1e-5, value=1e-4, high=2e-4)
    assert first_answer(best, realised=math.nan, ceilings={"pairs": low}).evidence.endswith("; AIS exceeds it")


def test_the_best_is_corrected_where_several_were_to_choose_from(scored):
    action = answers(recorded_run(None, scored(0)))[2].evidence
    assert "corrected for being the best of 7." in action
    assert "corrected" not in answers(recorded_run(None, scored(0)[:1]))[2].evidence
