"""A snapshot of a run: the result of one evaluation during training, and its place in the run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from typing_extensions import override

from lis_lightning.results.result import NAN, LISResult

if TYPE_CHECKING:
    from lis_lightning.results.verdict import Judgement


@dataclass(frozen=True, kw_only=True, eq=False)
class Snapshot(LISResult):
    """One evaluation of a model in training. Field names are the logged keys without ``lis/``.

    A result says what one representation scores; a snapshot adds what only the run knows. Its `verdict` and `message`
    are those of the run up to this step.

    Attributes:
        step: Optimizer step.
        gain_z: Paired z of this snapshot against the best one before it; NaN for the first.
        train_loss: Mean training loss since the snapshot before, on the first process; NaN where unknown.
        encode_seconds: Seconds spent encoding the items; NaN where unknown.
        score_seconds: Seconds spent scoring them; NaN where unknown.
        tasks: Snapshots of the other labels, by name.

    Example:
        >>> result = LISResult(ais=0.003, ais_low=0.001, ais_high=0.005, ais_geometry=0.002, auc_base=0.7, auc=0.703)
        >>> snapshot = Snapshot.of(result, step=200, encode_seconds=1.5)
        >>> snapshot.step, snapshot.ais, snapshot.scalars()["encode_seconds"]
        (200, 0.003, 1.5)
    """

    step: int
    gain_z: float = NAN
    train_loss: float = NAN
    encode_seconds: float = NAN
    score_seconds: float = NAN
    tasks: Mapping[str, Snapshot] = field(default_factory=dict)

    @classmethod
    def of(
        cls, result: LISResult, *, step: int, train_loss: float = NAN, encode_seconds: float = NAN,
        score_seconds: float = NAN,
    ) -> Self:  # fmt: skip
        """Return a result as a snapshot of a run, not yet judged beside the others.

        Args:
            result: The score of the representation.
            step: Optimizer step it was taken at.
            train_loss: Mean training loss since the snapshot before.
            encode_seconds: Seconds spent encoding.
            score_seconds: Seconds spent scoring.
        """
        fields = {spec.name: getattr(result, spec.name) for spec in dataclasses.fields(LISResult)}
        fields["tasks"] = {name: cls.of(task, step=step) for name, task in result.tasks.items()}
        return cls(
            **fields, step=step, train_loss=train_loss, encode_seconds=encode_seconds, score_seconds=score_seconds
        )

    def judged(self, judgement: Judgement, tasks: Mapping[str, Snapshot]) -> Self:
        """Return the snapshot with what the run says up to it.

        Args:
            judgement: Of the run up to this snapshot.
            tasks: The snapshots of the other labels, judged.
        """
        return dataclasses.replace(
            self, verdict=judgement.verdict, message=judgement.message, gain_z=judgement.gain_z, tasks=tasks
        )

    @override
    def _own_scalars(self) -> dict[str, float]:
        return super()._own_scalars() | {"gain_z": self.gain_z}

    @override
    def scalars(self) -> dict[str, float]:
        return super().scalars() | {"encode_seconds": self.encode_seconds, "score_seconds": self.score_seconds}
