"""The arithmetic and the tables of costs.py: what was measured of runs in, Markdown and CSV rows out."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.append(str(Path(__file__).parent.parent / "evidence"))
from arithmetic import shown, spearman
from gold_noise import moves

NEEDS = {  # what it says of items, where it starts and ends, its interval, and what it reads
    "LIS": ("no", "yes", "yes, clustered by user", "events of w1 and w2, with their histories"),
    "LIS, a ranker's events": ("no", "yes", "yes, clustered by user", "the same of the windows of a ranker"),
    "gold DIN": ("no", "no", "no", "events: trains on those before w2, tests on w2"),
    "gold DCN": ("no", "no", "no", "events: trains on those before w2, tests on w2"),
    "FuxiCTR DIN": ("no", "no", "no", "events: trains on those before w2, tests on w2"),
    "OnlineProbe": ("yes", "no", "no", "representations and classes of items"),
    "OnlineKNN": ("yes", "no", "no", "representations and classes of items"),
    "RankMe": ("no", "the dimension", "no", "representations"),
}


@dataclass(frozen=True)
class Answer:
    """What a contender said of a run: a value a snapshot, and what they cost; or why it said nothing.

    Attributes:
        run: Its folder's name.
        contender: As in `NEEDS`, or a Lightning run without an evaluator.
        values: One a snapshot.
        seconds: CPU seconds of each snapshot, in order.
        one_off: Of what is made once a run, before the first snapshot.
        memory: What the process took on top of imports and data, in MiB.
        error: Why there is nothing else.
    """

    run: str
    contender: str
    values: tuple[float, ...] = ()
    seconds: tuple[float, ...] = ()
    one_off: float = 0.0
    memory: float = 0.0
    error: str = ""

    @property
    def typical(self) -> float:
        """CPU seconds of a snapshot: the median of all but the first."""
        return statistics.median(self.seconds[1:])

    @property
    def once(self) -> float:
        """CPU seconds that are paid once: what was made before, and what the first snapshot took beyond the others."""
        return self.one_off + max(0.0, self.seconds[0] - self.typical)


@dataclass(frozen=True)
class Gold:
    """The study's gold of a run: AUC [snapshots, fits] on all test events of users whom no contender sees."""

    fits: NDArray[np.float64]
    moves: bool

    @classmethod
    def of(cls, gold: Sequence[Any]) -> Gold:
        """Read the `gold` of a run's `gold.json`."""
        both = np.array(gold, float)
        return cls(both[..., 0], moves(both[..., 0].mean(1), both[..., 1]))

    def agrees(self, values: Sequence[float]) -> float:
        """Return Spearman's correlation of a curve with the mean of all fits."""
        return spearman(values, self.fits.mean(1))

    def one_fit(self) -> float:
        """Return how a single fit of gold agrees with the mean of the others, over all single fits."""
        others = (self.fits.sum(1, keepdims=True) - self.fits) / (self.fits.shape[1] - 1)
        return float(
            np.mean([spearman(fit, mean_of_others) for fit, mean_of_others in zip(self.fits.T, others.T, strict=True)])
        )


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *rows]) + "\n"


def costs(answers: Sequence[Answer], gold: dict[str, Gold]) -> str:
    """Return a row a contender: medians over runs of seconds, the most memory, and its mean agreement with gold."""
    rows = []
    for name in dict.fromkeys(one.contender for one in answers):
        every = [one for one in answers if one.contender == name]
        good = [one for one in every if not one.error]
        if not good:
            rows.append([name, f"failed: {every[0].error}", *["-"] * 5])
            continue
        agree = {one.run: gold[one.run].agrees(one.values) for one in good if name in NEEDS}
        rows.append([
            name,
            f"{statistics.median(one.typical for one in good):.2f}",
            f"{statistics.median(one.once for one in good):.2f}",
            f"{max(one.memory for one in good):.0f}",
            *_agreement(agree, gold),
            f"{len(good)}" if len(good) == len(every) else f"{len(good)}; {every[0].error or every[-1].error}",
        ])  # fmt: skip
    known = {run: one.one_fit() for run, one in gold.items()}
    rows.append(["(one fit of gold, with the others)", "-", "-", "-", *_agreement(known, gold), str(len(known))])
    header = ("contender", "s a snapshot", "s once", "memory, MiB", "Spearman with gold", "where gold moves", "runs")
    return markdown(header, rows)


def _agreement(by_run: dict[str, float], gold: dict[str, Gold]) -> list[str]:
    worlds = {run: (run.split("--")[0], run.split("--")[-1]) for run in by_run}
    moving = [run for run in by_run if gold[run].moves]
    return [shown([by_run[run] for run in runs], [worlds[run] for run in runs]) for runs in (by_run, moving)]


def ratios(answers: Sequence[Answer], score: str = "LIS, a ranker's events") -> str:
    """Return how long a score takes beside a fit of each ranker on the same events, run by run; "" without any."""
    seconds = {(one.run, one.contender): one.typical for one in answers if not one.error}
    rows = []
    for ranker in ("gold DIN", "gold DCN", "FuxiCTR DIN"):
        ratios = [
            value / seconds[run, ranker]
            for (run, who), value in seconds.items()
            if who == score and (run, ranker) in seconds
        ]
        if ratios:
            mean = statistics.mean(ratios)
            rows.append([ranker, f"{mean:.2f}", f"{min(ratios):.2f} to {max(ratios):.2f}", str(len(ratios))])
    return markdown(("ranker", "score / fit, mean", "runs from, to", "runs"), rows) if rows else ""


def features(names: Sequence[str]) -> str:
    """Return what each contender needs and tells."""
    header = ("contender", "classes of items", "ceiling", "interval", "reads")
    return markdown(header, [[name, *NEEDS[name]] for name in names if name in NEEDS])
