"""A snapshot of a run: the result of one evaluation during training, with its step and its gain over earlier ones."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from typing_extensions import override

from lis_lightning.results.result import NAN, LISResult

if TYPE_CHECKING:
    from lis_lightning.results.verdict import Judgement


@dataclass(frozen=True, kw_only=True, eq=False)
class Snapshot(LISResult):
    """The result of one evaluation during training.

    It adds to a :class:`LISResult` what depends on the run; `verdict` and `message` are those of the run up to this
    step.

    Attributes:
        step: Optimizer step.
        best_ais: Best AIS of the run up to this snapshot; NaN if unknown. See :func:`ranked`.
        gain_z: Paired z statistic of this snapshot against the best one before it; NaN for the first.
        train_loss: Mean training loss since the snapshot before, on the first process; NaN if unknown.
        watched: Latest value of each watched metric since the snapshot before, by key; of the same step where there is
            one, as of a validation right after the snapshot.
        encode_seconds: Seconds spent on encoding the items; NaN if unknown.
        score_seconds: Seconds spent on scoring them; NaN if unknown.
        tasks: Snapshots of the other labels, by name.

    Example:
        >>> result = LISResult(ais=0.003, ais_low=0.001, ais_high=0.005, ais_geometry=0.002, auc_base=0.7, auc=0.703)
        >>> snapshot = Snapshot.of(result, step=200, encode_seconds=1.5)
        >>> snapshot.step, snapshot.ais, snapshot.scalars()["more/encode_seconds"]
        (200, 0.003, 1.5)
    """

    step: int
    best_ais: float = NAN
    gain_z: float = NAN
    train_loss: float = NAN
    watched: Mapping[str, float] = field(default_factory=dict)
    encode_seconds: float = NAN
    score_seconds: float = NAN
    tasks: Mapping[str, Snapshot] = field(default_factory=dict)

    @classmethod
    def of(
        cls, result: LISResult, *, step: int, train_loss: float = NAN, encode_seconds: float = NAN,
        score_seconds: float = NAN,
    ) -> Self:  # fmt: skip
        """Return a result as a snapshot of a run, without the verdict of the run.

        Args:
            result: The score of the representation.
            step: Optimizer step of the evaluation.
            train_loss: Mean training loss since the snapshot before.
            encode_seconds: Seconds spent on encoding.
            score_seconds: Seconds spent on scoring.
        """
        fields = {spec.name: getattr(result, spec.name) for spec in dataclasses.fields(LISResult)}
        fields["tasks"] = {name: cls.of(task, step=step) for name, task in result.tasks.items()}
        return cls(
            **fields, step=step, train_loss=train_loss, encode_seconds=encode_seconds, score_seconds=score_seconds
        )

    def judged(self, judgement: Judgement, tasks: Mapping[str, Snapshot]) -> Self:
        """Return the snapshot with the verdict of the run up to it.

        Args:
            judgement: Judgement of the run up to this snapshot.
            tasks: Judged snapshots of the other labels, by name.
        """
        return dataclasses.replace(
            self, verdict=judgement.verdict, message=judgement.message, gain_z=judgement.gain_z, tasks=tasks
        )

    @override
    def _numbers(self) -> dict[str, float]:
        return super()._numbers() | {"best_ais": self.best_ais, "gain_z": self.gain_z}

    @override
    def _own_numbers(self) -> dict[str, float]:
        seconds = {"encode_seconds": self.encode_seconds, "score_seconds": self.score_seconds}
        return super()._own_numbers() | {"train_loss": self.train_loss} | seconds


def ranked(past: Sequence[Snapshot], result: Snapshot) -> Snapshot:
    """Return the newest snapshot of a run with the best AIS so far, its own included, for each of its tasks.

    Args:
        past: The snapshots before it.
        result: The newest.

    Example:
        >>> first, second = (Snapshot(ais=ais, ais_low=0, ais_high=0, ais_geometry=0, auc_base=0.7, auc=0.7, step=step)
        ...                  for step, ais in enumerate([0.02, 0.01]))
        >>> ranked([first], second).best_ais
        0.02
    """
    tasks = {}
    for name, task in result.tasks.items():
        tasks[name] = ranked([earlier.tasks[name] for earlier in past if name in earlier.tasks], task)
    scored = [snapshot.ais for snapshot in (*past, result) if not math.isnan(snapshot.ais)]
    return dataclasses.replace(result, best_ais=max(scored, default=NAN), tasks=tasks)
