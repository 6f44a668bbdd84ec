"""Encoding and scoring of one snapshot, in two steps: the score needs the encoded items but not the module."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor, nn

from lis_lightning.data.split import PreferenceSplit
from lis_lightning.errors import ItemError, SnapshotError
from lis_lightning.monitor.background import Background
from lis_lightning.monitor.batches import Batches
from lis_lightning.monitor.encoder import Encoder
from lis_lightning.monitor.encoding import collect, encode_items
from lis_lightning.monitor.encoding_progress import PATIENCE, with_estimate
from lis_lightning.monitor.processes import together
from lis_lightning.monitor.representations import SideBySide
from lis_lightning.monitor.step_progress import StepProgress
from lis_lightning.monitor.training import Training
from lis_lightning.results import record_contents
from lis_lightning.results.snapshot import Snapshot
from lis_lightning.scoring.metric import LeakageImpactScore
from lis_lightning.scoring.options import ScoreOptions
from lis_lightning.scoring.scorer import Scorer


@dataclass(frozen=True)
class ScoredSnapshot:
    """The result of a snapshot with the representations that it scores.

    Attributes:
        result: The result, with its step.
        embeddings: The representations [num_items, dim], rows as ``split.item_ids``; None after a resume.
        model: Class of the module.
    """

    result: Snapshot
    embeddings: Tensor | None
    model: type


class SnapshotScorer:
    """Encodes and scores the items of one split, once per snapshot.

    Args:
        split: The split.
        options: Options of the score; the placebo is decided per snapshot.
        cache_dir: Folder where base ranker and ceilings are cached; see :class:`lis_lightning.scoring.Scorer`.
        progress: Whether an encode that takes long prints its progress.
    """

    def __init__(
        self, split: PreferenceSplit, options: ScoreOptions, cache_dir: str | Path | None = None, *, progress: bool
    ) -> None:
        self.split = split
        self.options = options
        self.scorer = Scorer(split, cache_dir=cache_dir)
        self.metric = LeakageImpactScore(split, ceilings=())
        self._progress = progress
        self._blocks = SideBySide()
        self._cache_dir = cache_dir

    def encode(
        self, training: Training, module: nn.Module, batches: Batches, encoder: Encoder, item_key: str
    ) -> tuple[Tensor, int]:
        """Return the representations of the split's items, equal on all processes, and the number of skipped items.

        Skipped are the items of this process's share that are not in the split.

        Raises:
            ItemError: If `items` lacks items of the split.
        """

        def share() -> int:
            self.metric.to(training.device if training.world_size > 1 else "cpu")
            encoded = encode_items(training, module, batches, self._blocks.joining(encoder), item_key)
            if self._progress:
                encoded = with_estimate(encoded, -(-self.split.num_items // training.world_size), rank_zero_info)
            return collect(encoded, self.metric, self.split.item_ids)

        try:
            skipped = together(training, share)
            with self.metric.sync_context(should_sync=training.world_size > 1):
                try:
                    return self.metric.embeddings(), skipped
                except SnapshotError as error:
                    raise ItemError(str(error)) from error
        finally:
            self.metric.reset()  # frees its sums, which are as large as the representations

    def encode_to_score(
        self, training: Training, module: nn.Module, batches: Batches, encoder: Encoder, item_key: str,
        *, first: bool, train_loss: float, placebo: bool, background: bool,
    ) -> Callable[[], ScoredSnapshot]:  # fmt: skip
        """Encode all items and return a function that scores them; call it within :func:`undisturbed`.

        Args:
            training: The training in progress, with its step.
            module: The module in training.
            batches: This process's share of the item batches.
            encoder: Called with the module and a batch.
            item_key: Key of the ids in a batch.
            first: Whether to report items outside the split, and the progress of a long score.
            train_loss: Mean training loss since the snapshot before.
            placebo: Whether to score a placebo representation too.
            background: Whether the score is computed while training goes on; it is then computed on the CPU.
        """
        started = time.perf_counter()
        embeddings, skipped = self.encode(training, module, batches, encoder, item_key)
        if skipped and first:
            rank_zero_info(
                f"{skipped} of the encoded items are not in the split and were left out; an attribute `item_ids` on "
                "`items` saves encoding them."
            )
        embeddings = embeddings.cpu() if background else embeddings
        seconds = time.perf_counter() - started
        about = {"step": training.step, "train_loss": train_loss, "encode_seconds": seconds}
        return partial(self._score, embeddings, type(module), about, placebo=placebo, first=first)

    def _score(
        self, embeddings: Tensor, model: type, about: dict[str, Any], *, placebo: bool, first: bool
    ) -> ScoredSnapshot:
        began = time.perf_counter()
        representations = self._blocks.separated(embeddings)
        if first and self._progress:
            self._measure_ceilings()
        result = self.scorer.score(representations, replace(self.options, placebo=placebo))
        seconds = time.perf_counter() - began
        if isinstance(representations, dict):  # what is kept is what AIS is of
            embeddings = next(iter(representations.values())).contiguous()
        return ScoredSnapshot(Snapshot.of(result, **about, score_seconds=seconds), embeddings, model)

    def _measure_ceilings(self) -> None:
        """Measure the ceilings, which take most of the time of the first score, and report the time left if long."""
        parts = [*self.split.tasks.values(), *self.split.periods[1:]]
        steps = [(part, name) for part in parts for name in self.options.preferences]
        report_step = StepProgress("LISMonitor", rank_zero_info, patience=PATIENCE, interval=PATIENCE)
        for number, (part, name) in enumerate(steps):
            report_step(f"LIS of {name}", number, len(steps))
            # Kept for the life of the split, so that the score finds it.
            Scorer(part, cache_dir=self._cache_dir).ceiling(self.options.preferences[name])


def background_state(background: Background[ScoredSnapshot]) -> dict[str, Any] | None:
    """Return the pending background score in plain values, for a checkpoint; None if there is none."""
    if background.step is None:
        return None
    scored = background.peek()
    if isinstance(scored, Exception):
        return {"step": background.step, "results": [], "error": f"{type(scored).__name__}: {scored}"}
    return {"step": background.step, "results": record_contents.pack([scored.result]), "error": ""}


def restore_background(background: Background[ScoredSnapshot], state: Mapping[str, Any] | None) -> None:
    """Restore the pending score in a checkpoint; it is read at the same step as without a resume."""
    if state is not None:
        results = record_contents.unpack(state["results"])
        background.restore(
            state["step"], ScoredSnapshot(results[0], None, object) if results else SnapshotError(state["error"])
        )
