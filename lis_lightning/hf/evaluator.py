"""Evaluator of sentence-transformers that scores the item embeddings of a model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from sentence_transformers.base.evaluation import BaseEvaluator
from sentence_transformers.base.model import BaseModel
from torch import Tensor
from torch.utils.data import Dataset
from typing_extensions import override

from lis_lightning.data.split import PreferenceSplit
from lis_lightning.hf.metrics import evaluator_metrics
from lis_lightning.monitor.engine import SnapshotEngine
from lis_lightning.monitor.missing_scores import WORST
from lis_lightning.monitor.schedule import EveryValidation
from lis_lightning.monitor.training import Training
from lis_lightning.results.snapshot import Snapshot, ranked
from lis_lightning.results.verdict import Judgement


class LISEvaluator(SnapshotEngine, BaseEvaluator):
    """Score the item embeddings of a SentenceTransformer at each evaluation, without disturbing the training.

    It is called as the evaluators of sentence-transformers are, and returns the values of one snapshot, as
    ``lis_ais``, ``lis_headroom`` and so on::

        evaluator = LISEvaluator(split, dict(zip(items["item_id"], items["text"])))
        trainer = SentenceTransformerTrainer(
            model, args, train_dataset=pairs, loss=loss, evaluator=evaluator,
            callbacks=[LISEarlyStoppingCallback(evaluator)],
        )

    with, in `args`, ``eval_strategy="steps"``, ``eval_on_start=True`` for the raw snapshot, and
    ``metric_for_best_model="eval_lis_ais"`` if checkpoints are to be ranked by it. The evaluations of a training form a
    curve, which is judged and written to a record, as by :class:`lis_lightning.LISMonitor`. The record lies in the
    folder that the Trainer gives its evaluators, ``eval`` in its `output_dir`. :class:`LISEarlyStoppingCallback` stops
    the training by the rule, lets the verdict count with the planned steps and the training loss, and takes the curve
    through the Trainer's checkpoints. Without it a resumed training starts a new curve.

    Outside of a training, as in ``evaluator(model)``, the model is scored and the curve stays as it is. For a schedule
    of its own, :class:`LISTrainerCallback` works in this Trainer too.

    Args:
        split: The preference split to score on.
        inputs: What `model.encode` takes, by item id: a text, an image, or a dict of several modalities.
        prompt_name: Name of the prompt for items, one of the model's.
        prompt: The prompt itself.
        truncate_dim: Number of leading dimensions to score, for models with Matryoshka embeddings. None scores all.
        **options: Further arguments of :class:`lis_lightning.LISMonitor`: `name`, `catalogue`, `batch_size`, `save`,
            `save_dtype`, `dirpath`, `placebo`, `ceilings`, `aligned_to`, `k`, `reads`, `cache_dir`, `rule`,
            `strict`, `log_more`, `progress` and, with :class:`LISEarlyStoppingCallback`, `watch`.

    Attributes:
        primary_metric: ``lis_ais``, or with a `name` ``lis_<name>_ais``.
        reason: Why the stop rule says to stop, in a sentence; empty if it does not.

    Raises:
        ConfigError: As :class:`lis_lightning.LISMonitor`.
        SnapshotError: If `inputs` lacks items of the split (at the first evaluation).

    Example:
        >>> import polars
        >>> from sentence_transformers import SentenceTransformer
        >>> from sentence_transformers.sentence_transformer.modules import StaticEmbedding
        >>> from tokenizers import Tokenizer, models
        >>> from lis_lightning.data import PreferenceSplit
        >>> log = polars.DataFrame({"user_id": [0, 1] * 20, "item_id": [0, 1, 2, 3] * 10,
        ...                         "timestamp": range(40), "label": [0, 1, 1, 0, 1] * 8})
        >>> words = Tokenizer(models.WordLevel({"red": 0, "green": 1, "blue": 2, "grey": 3}, unk_token="grey"))
        >>> model = SentenceTransformer(modules=[StaticEmbedding(words, embedding_dim=4)], device="cpu")
        >>> evaluator = LISEvaluator(PreferenceSplit.from_log(log), dict(enumerate(["red", "green", "blue", "grey"])),
        ...                          ceilings=(), cache_dir="off", placebo=False, progress=False)
        >>> values = evaluator(model)
        >>> -1 < values[evaluator.primary_metric] < 1
        True
    """

    def __init__(
        self,
        split: PreferenceSplit,
        inputs: Mapping[Any, Any],
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        truncate_dim: int | None = None,
        **options: Any,
    ) -> None:
        self.inputs = inputs
        self.prompt_name = prompt_name
        self.prompt = prompt
        self.truncate_dim = truncate_dim
        encode = _Encode(prompt_name, prompt, truncate_dim)
        super().__init__(
            split, _Inputs(inputs), encode=encode, collate_fn=_collate, schedule=EveryValidation(), **options
        )

    @override
    def _connect(self) -> None:
        self.greater_is_better = True
        self._key = f"{self._prefix.replace('/', '_')}_ais"
        self.primary_metric = self._key
        self.reason = ""
        self._planned_steps: int | None = None
        self._started = False

    @override
    def _reset(self) -> None:
        super()._reset()
        self.reason = ""
        self._started = False

    @override
    def _evaluator(self) -> dict[str, Any]:
        return super()._evaluator() | {"encode": repr(self.encode)}

    def __call__(
        self, model: BaseModel, output_path: str | None = None, epoch: float = -1, steps: int = -1
    ) -> dict[str, float]:
        """Score a model and return the logged values by key.

        Args:
            model: The model.
            output_path: Folder of the record; None writes none.
            epoch: Epochs of training so far.
            steps: Optimizer steps so far; -1 outside of a training.
        """
        folder = self.dirpath or output_path
        training = _Evaluation(steps, int(epoch), device=model.device, folder=folder)
        if steps < 0 or steps == self._last_step:  # maybe other weights, such as the best ones
            values = self._values(ranked(self._results, self._score(training, model)))
        else:
            values = self._evaluate(training, model)
        # Only the main value: those of sentence-transformers' own evaluators fill the model card.
        main = {self._key: values[self._key]}
        self.store_metrics_in_model_card_data(model, main, int(epoch), steps)
        return values

    def begin(self, max_steps: int, state: dict[str, Any] | None = None) -> None:
        """Start a new curve, or go on with the one of a checkpoint; :class:`LISEarlyStoppingCallback` calls it.

        Args:
            max_steps: Optimizer steps that are planned.
            state: What :meth:`state_dict` returned; None starts anew.
        """
        self._reset()
        self._planned_steps = max_steps
        if state is not None:
            self.load_state_dict(state)

    def add_logs(self, step: int, logs: Mapping[str, Any]) -> None:
        """Note what the Trainer logs: the training loss, for the verdict ``overfitting``, and what is watched.

        Args:
            step: Optimizer steps so far.
            logs: Values by key.
        """
        if logs.get("loss") is not None:
            self._train_loss.add(torch.tensor(float(logs["loss"])))
        self._note_metrics(_Evaluation(step, 0, device=torch.device("cpu"), folder=None), logs)

    def get_config_dict(self) -> dict[str, Any]:
        """Return the settings that the model card shows."""
        settings = {"prompt_name": self.prompt_name, "prompt": self.prompt, "truncate_dim": self.truncate_dim}
        return {name: value for name, value in settings.items() if value is not None}

    @property
    def description(self) -> str:
        """Name in the model card."""
        return "Leakage Impact Score"

    def _evaluate(self, training: _Evaluation, model: BaseModel) -> dict[str, float]:
        """Add a snapshot to the curve, and return its values; those of the one before if it failed."""
        if training.step < self._last_step:  # another training
            self._reset()
        if not self._started:
            self._prepare(training)
            self._bind(model)
            self._begin(training, model, self._planned_steps)
            self._started = True
        self._look(training, model, validation=True, required=True)
        if not self._results:
            return {self._key: -WORST}
        return self._values(self._results[-1])

    def _values(self, result: Snapshot) -> dict[str, float]:
        """Return the logged values of a snapshot by key."""
        return evaluator_metrics(result, self._prefix, more=self.log_more)

    def _score(self, training: _Evaluation, model: BaseModel) -> Snapshot:
        """Return the score of a model, apart from the curve."""
        self._prepare(training)
        self._bind(model)
        with self._undisturbed(training, model):
            score = self._snapshot_scorer.encode_to_score(
                training, model, self._batches, self._encoder, self.item_key,
                first=False, train_loss=math.nan, placebo=False, background=False,
            )  # fmt: skip
            return score().result

    @override
    def _heed(self, training: Training, judgement: Judgement) -> bool:
        self.reason = judgement.reason if judgement.stop else ""
        return judgement.stop


@dataclass(frozen=True)
class _Encode:
    """Encodes a batch of inputs with the model's own `encode`, which shares it among processes where that is needed."""

    prompt_name: str | None
    prompt: str | None
    truncate_dim: int | None

    def __call__(self, model: Any, batch: dict[str, list[Any]]) -> Tensor:
        embeddings: Tensor = model.encode(
            batch["input"], batch_size=len(batch["input"]), convert_to_tensor=True, show_progress_bar=False,
            prompt_name=self.prompt_name, prompt=self.prompt, truncate_dim=self.truncate_dim,
        )  # fmt: skip
        return embeddings


class _Inputs(Dataset[dict[str, Any]]):
    """The inputs as a dataset of items, texts sorted by their length in characters."""

    def __init__(self, inputs: Mapping[Any, Any]) -> None:
        self.item_ids = list(inputs)
        self._inputs = list(inputs.values())
        self.lengths = [len(value) if isinstance(value, str) else 0 for value in self._inputs]

    def __len__(self) -> int:
        return len(self._inputs)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {"item_id": self.item_ids[row], "input": self._inputs[row]}


def _collate(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Return a batch whose inputs stay a list, as `encode` takes them."""
    return {name: [row[name] for row in rows] for name in ("item_id", "input")}


class _Evaluation(Training):
    """A training during its evaluation, which this process computes without the others.

    sentence-transformers calls evaluators on the first process, whose `encode` hands the others their share; or, with
    a sharded model, on every process, each of which encodes all.
    """

    def __init__(self, step: int, epoch: int, *, device: torch.device, folder: str | Path | None) -> None:
        super().__init__(step, epoch, device=device, folder=folder or ".")
        self._writes = folder is not None and super().rank == 0

    @property
    @override
    def rank(self) -> int:
        return 0

    @property
    @override
    def world_size(self) -> int:
        return 1

    @property
    @override
    def is_first(self) -> bool:
        return self._writes
