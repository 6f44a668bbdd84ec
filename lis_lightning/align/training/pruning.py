"""End a job of a sweep where the evidence says that it is behind the best one: no need to see how it goes on.

Halving drops what is lower. Here a job goes only where it is significantly behind, paired by user, at the same
optimizer step; luck ends no job that is as good as the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_warn
from scipy.special import stdtr
from typing_extensions import override

from lis_lightning.errors import LisWarning
from lis_lightning.functional.intervals import effective_users
from lis_lightning.monitor.callback import LISMonitor
from lis_lightning.results.snapshot import Snapshot
from lis_lightning.results.stopping import Judgement, StopRule

SURE = 0.05  # of the probability that a job as good as all others is ended


@dataclass(frozen=True, kw_only=True)
class Rival:
    """The best of the finished jobs of a sweep.

    Attributes:
        name: Of the job, for messages.
        results: Its snapshots.
        among: Finished jobs that it is the best of.
    """

    name: str
    results: Sequence[Snapshot]
    among: int


def behind(result: Snapshot, rival: Rival, look: int, rule: StopRule) -> str | None:
    """Say why a job is to be ended after a snapshot; None where the evidence is not enough.

    A job whose representation is at each step worth as much as that of each finished job, but for a change that counts
    as none (`plateau_delta`), is ended with a probability of at most 5 %, however often it is looked at and however
    many jobs the rival is the best of: look k is given 1 / (k (k + 1)) of that, which sums to all of it, and its share
    is divided by the number of jobs (Bonferroni). One that starts slowly and would overtake later is lost.

    Args:
        result: The snapshot.
        rival: The best finished job.
        look: Which comparison of this job it is, from 1.
        rule: With the change that counts as none.
    """
    other = next((one for one in rival.results if one.step == result.step), None)
    if other is None or other.split_hash != result.split_hash or other.influence.shape != result.influence.shape:
        return None
    gap = result.compare(other)
    margin = max(rule.plateau_delta, rule.plateau_share * other.ais)
    if not gap.value + margin < 0 or not gap.se > 0:
        return None
    # Of Student's t: where few users carry the difference its error is not well known.
    chance = float(stdtr(effective_users(result.influence - other.influence), (gap.value + margin) / gap.se))
    if chance >= SURE / (look * (look + 1) * max(rival.among, 1)):
        return None
    return f"AIS {-gap.value:.4f} behind {rival.name} at step {result.step} (p {chance:.1g})"


class Pruning(pl.Callback):
    """Ends a fit where a snapshot is significantly behind the best finished job of the sweep at that step.

    Args:
        monitor: Whose snapshots are compared; its rule says how many are a warm-up, in which fine-tuning dips.
        rival: Returns the best finished job, None before the first. It is asked at every snapshot: jobs that run at
            the same time may have ended since.

    Attributes:
        looks: Comparisons so far.
        reason: Why the fit was ended; empty where it was not.
    """

    def __init__(self, monitor: LISMonitor, rival: Callable[[], Rival | None]) -> None:
        self.monitor = monitor
        self.rival = rival
        self.looks = 0
        self.reason = ""

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit" and self._compare not in self.monitor.listeners:
            self.monitor.listeners.append(self._compare)

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit" and self._compare in self.monitor.listeners:
            self.monitor.listeners.remove(self._compare)

    @override
    def state_dict(self) -> dict[str, int]:
        return {"looks": self.looks}

    @override
    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self.looks = state_dict["looks"]

    def _compare(self, trainer: pl.Trainer, judgement: Judgement) -> bool:
        """End the fit on all processes if the first one, which sees the files of the sweep, says so."""
        if len(self.monitor.results) - 1 <= self.monitor.rule.warmup:
            return False
        said = self._look() if trainer.is_global_zero else ""
        self.reason = trainer.strategy.broadcast(said)
        if self.reason:
            trainer.should_stop = True
        return bool(self.reason)

    def _look(self) -> str:
        try:
            rival = self.rival()
        except Exception as error:  # a file of another job must not end this one
            rank_zero_warn(
                f"The other jobs of the sweep cannot be read: {type(error).__name__}: {error}", category=LisWarning
            )
            return ""
        if rival is None:
            return ""
        self.looks += 1
        return behind(self.monitor.results[-1], rival, self.looks, self.monitor.rule) or ""
