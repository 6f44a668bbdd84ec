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


def test_the_distance_to_the_ceiling_is_a_share_with_its_interval_or_why_there_is_none(scored):
    best = scored(0)[-1]
    known = recorded_run(None, [dataclasses.replace(best, realised=0.5, realised_low=0.4, realised_high=0.6)])
    assert answers(known)[1].answer == "50% realised [40%, 60%]"
    no_share = dataclasses.replace(best, realised=math.nan)
    unclear = dataclasses.replace(best.ceilings["pairs"], low=-0.01, value=0.01, high=0.03)
    assert answers(recorded_run(None, [dataclasses.replace(no_share, ceilings={"pairs": unclear})]))[1].answer == (
        "The ceiling may be 0"
    )
    low = dataclasses.replace(best.ceilings["pairs"], low=1e-5, value=1e-4, high=2e-4)
    assert answers(recorded_run(None, [dataclasses.replace(no_share, ceilings={"pairs": low})]))[1].answer == (
        "AIS exceeds the ceiling"
    )
    assert (
        answers(recorded_run(None, [dataclasses.replace(no_share, ceilings={})]))[1].answer == "No ceiling was computed"
    )
