"""Answers to four questions about a run: what the data would still add, improvement, stopping, and the bottleneck."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lis_lightning.report.runs import RecordedRun
from lis_lightning.results.evidence import gain_over
from lis_lightning.results.format import (
    estimate_name,
    format_bounds,
    format_estimate,
    format_interval,
    format_share,
)
from lis_lightning.results.snapshot import Snapshot

# For each verdict: a mark that is readable without colour, whether the run still improves, and the bottleneck.
_ANSWERS = {
    "warming-up": ("○", "Too early to tell", "Not known yet"),
    "improving": ("▲", "Yes", "None: training still helps"),
    "plateau": ("■", "No", "Neither stands out"),
    "at-ceiling": ("★", "No", "The preference data: all of it is used"),
    "ceiling-not-binding": ("◆", "See the curve", "Not the preference data: content carries more"),
    "data-bound": ("▼", "No", "The preference data"),
    "model-bound": ("■", "No", "The model or its training"),
    "past-its-best": ("▼", "No, it falls", "The training: it went past its best"),
    "overfitting": ("▼", "No, it falls", "The model: it loses what helps new users"),
    "collapsed": ("✕", "No", "The training: all items look alike"),
    "placebo-failed": ("✕", "Cannot be read", "The base ranker of the score"),
    "underpowered": ("?", "Cannot be told", "The split: too few events"),
    "undecided": ("?", "Not clear yet", "Not known yet"),
    "quantisation-bound": ("▼", "No", "Quantisation: the codes lose what the vectors gain"),
    "too-few-snapshots": ("?", "Cannot be told", "Too few snapshots to say"),
}
_UNFINISHED = {"warming-up", "improving", "undecided"}
_GOOD = {"improving", "at-ceiling", "ceiling-not-binding"}
_BAD = {"past-its-best", "overfitting", "collapsed", "placebo-failed", "data-bound"}


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Question about a run with a short answer and its evidence."""

    question: str
    answer: str
    evidence: str


def mark(verdict: str) -> str:
    """Return the mark of a verdict, which is readable without colour."""
    return _ANSWERS[verdict][0]


def tone(verdict: str) -> str:
    """Return the colour class of a verdict: ``good``, ``bad`` or ``plain``."""
    if verdict in _GOOD:
        return "good"
    return "bad" if verdict in _BAD else "plain"


def answers(run: RecordedRun) -> list[Answer]:
    """Return the answers to the four questions for a run.

    Args:
        run: The run so far.
    """
    judgement, last, best = run.judgement, run.results[-1], run.best
    _, improving, bottleneck = _ANSWERS[judgement.verdict]
    newest = f"newest snapshot: step {last.step}, AIS {format_interval(last.ais, last.ais_low, last.ais_high)}"
    if len(run.results) > 1:
        gain = gain_over(run.results[0], last)
        newest += f"; over the first {format_interval(gain.value, gain.low, gain.high)}, paired by user"
    keep = f"Keep step {best.step}: AIS {format_interval(best.ais, best.ais_low, best.ais_high)}{picked(run)}."
    reason = judgement.reason and f"{judgement.reason[0].upper()}{judgement.reason[1:]}."
    return [
        Answer(question="What would the data still add?", answer=headroom(best), evidence=_carried(best)),
        Answer(question="Still improving?", answer=improving, evidence=newest),
        Answer(question="Stop or go on?", answer=_action(run), evidence=" ".join(filter(None, [reason, keep]))),
        Answer(question="What is the bottleneck?", answer=bottleneck, evidence=f"verdict: {judgement.verdict}"),
    ]


def headroom(best: Snapshot) -> str:
    """Return what the preference data would still add to a snapshot, or why it is not known."""
    if math.isfinite(best.headroom):
        return format_interval(best.headroom, best.headroom_low, best.headroom_high)
    return "Not measured" if best.ceilings else "No preference data was scored"


def picked(run: RecordedRun) -> str:
    """Return the AIS of the best snapshot corrected for having been picked, in words; empty where it is unknown."""
    if len(run.results) == 1 or math.isnan(run.corrected.value):
        return ""
    return f"; {format_estimate(run.corrected)} corrected for being the best of {len(run.results)}"


def _carried(best: Snapshot) -> str:
    """Return LIS and the realised share, with what LIS is."""
    limit = best.ceiling
    if limit is None:
        return "see the curve"
    carried = f"{estimate_name(best.aligned_to)}: {format_estimate(limit)}"
    if not math.isnan(best.realised):
        bounds = format_bounds(best.realised_low, best.realised_high, percent=True)
        return f"{carried}; realised, AIS / LIS: {format_share(best.realised)} {bounds}"
    if limit.low <= 0:
        return f"{carried}; it may be 0"
    return f"{carried}; {'AIS exceeds it' if best.ais > limit.value else 'too unclear for a share'}"


def _action(run: RecordedRun) -> str:
    if run.ended:
        return f"The run has ended; best at step {run.best.step}"
    if run.judgement.stop:
        return "Stop"
    return "Go on" if run.judgement.verdict in _UNFINISHED else "Nothing forces a stop"
