"""Prune jobs of a sweep that are significantly behind the best finished job.

Successive halving drops the lower half of the jobs. Here a job is ended only if it is significantly behind at the same
optimizer step, in a comparison paired by user. So a job that is as good as the others is hardly ever ended by chance.
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
from lis_lightning.results.stopping import StopRule
from lis_lightning.results.verdict import Judgement

WARM_UP = 2  # snapshots after the raw one that are not compared: fine-tuning often dips first
SIGNIFICANCE = 0.05  # highest probability that a job as good as all others is ended


@dataclass(frozen=True, kw_only=True)
class Rival:
    """The best of the finished jobs of a sweep.

    Attributes:
        name: Name of the job, for messages.
        results: Its snapshots.
        num_finished: Number of finished jobs.
    """

    name: str
    results: Sequence[Snapshot]
    num_finished: int


def behind(result: Snapshot, rival: Rival, look: int, rule: StopRule) -> str | None:
    """Return why a job should be ended after a snapshot; None if the evidence is not sufficient.

    A sequential one-sided paired t test. A job that is never worse than the finished jobs by more than a negligible
    gain (`StopRule.negligible_gain`) is ended with a probability of at most 5 %, however often it is compared and
    however many jobs the rival was selected from: comparison k spends 1 / (k (k + 1)) of the 5 %, which sums to all of
    it, divided by the number of finished jobs (Bonferroni). A job that starts slowly and would overtake later is lost.

    Args:
        result: The snapshot.
        rival: The best finished job.
        look: Number of this comparison of the job, from 1.
        rule: Defines the negligible gain.
    """
    theirs = next((snapshot for snapshot in rival.results if snapshot.step == result.step), None)
    if theirs is None or theirs.split_hash != result.split_hash or theirs.influence.shape != result.influence.shape:
        return None
    gap = result.compare(theirs)
    margin = rule.negligible_gain(theirs.ais)
    if not gap.value + margin < 0 or not gap.se > 0:
        return None
    # Student's t with the effective number of users: if few users carry the difference, its error is uncertain.
    p = float(stdtr(effective_users(result.influence - theirs.influence), (gap.value + margin) / gap.se))
    if p >= SIGNIFICANCE / (look * (look + 1) * max(rival.num_finished, 1)):
        return None
    return f"AIS {-gap.value:.4f} behind {rival.name} at step {result.step} (p {p:.1g})"


class Pruning(pl.Callback):
    """Ends a fit if a snapshot is significantly behind the best finished job of the sweep at that step.

    Args:
        monitor: Its snapshots are compared, except those of the warm-up, in which the score of fine-tuning often dips.
        rival: Returns the best finished job, or None before the first. It is called at every snapshot, since jobs that
            run at the same time may have finished.

    Attributes:
        looks: Number of comparisons so far.
        reason: Why the fit was ended; empty if it was not.
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
        """End the fit on all processes; the first process decides, since it reads the files of the sweep."""
        if len(self.monitor.results) - 1 <= WARM_UP:
            return False
        reason = self._look() if trainer.is_global_zero else ""
        self.reason = trainer.strategy.broadcast(reason)
        if self.reason:
            trainer.should_stop = True
        return bool(self.reason)

    def _look(self) -> str:
        """Return why the job should be ended; empty if it should go on, or no other job can be read."""
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
