"""The LightningModule that trains an item encoder for objectives on preference data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from typing_extensions import override

from lis_lightning.align.data.data_module import ExampleDataModule
from lis_lightning.align.models.checkpoints import KEY, complete_state, describe_encoder, leave_out_base
from lis_lightning.align.models.item_encoder import ItemEncoder
from lis_lightning.align.objectives.objective import Objective, Temperature
from lis_lightning.align.objectives.regularisers import Regulariser
from lis_lightning.align.training.gradient_cache import check_parts, encode_in_parts
from lis_lightning.align.training.sharding import average_replicated, clip_sharded, is_sharded, shard_layers
from lis_lightning.errors import ConfigError
from lis_lightning.functional.matryoshka import matryoshka_loss
from lis_lightning.monitor.batches import LoaderBatches
from lis_lightning.monitor.encoding import encode_items
from lis_lightning.monitor.isolation import undisturbed
from lis_lightning.monitor.lightning_training import LightningTraining


class AlignmentModule(pl.LightningModule):
    """Trains an encoder for a weighted sum of objectives, with AdamW, linear warm-up and cosine decay.

    Logs ``train/loss``, ``train/<objective>`` and ``train/<objective>_temperature``; and ``val/loss`` and
    ``val/<objective>`` of the held-out examples.

    Args:
        encoder: From item batches to representations.
        objectives: What it is trained for, by name.
        regularisers: Losses that keep the representations apart, by name.
        learning_rate: The highest, reached after warm-up: of the head, the objectives, and models with random weights.
        backbone_learning_rate: The highest of the model under the head. None: what suits its weights, as the encoder
            says (for a pretrained model by the mode of its tuning), else `learning_rate`.
        weight_decay: Of weight matrices; norms, biases and temperatures are not decayed.
        warmup_share: Share of the run during which the learning rate rises, 0 to below 1.
        nested_dims: Numbers of first dimensions that are trained by themselves (Matryoshka, Kusupati et al. 2022); None
            trains all dimensions together only.

    Raises:
        ConfigError: If a value is out of range, or there is no objective.

    Example:
        >>> from lis_lightning.align.models import FeatureEncoder
        >>> from lis_lightning.align.objectives import PairContrastive
        >>> module = AlignmentModule(FeatureEncoder(4, output_dim=2), {"pairs": PairContrastive()})
        >>> module.encode_items({"features": torch.zeros(3, 4)}).shape
        torch.Size([3, 2])
    """

    def __init__(
        self,
        encoder: ItemEncoder,
        objectives: Mapping[str, Objective],
        *,
        regularisers: Mapping[str, Regulariser] | None = None,
        learning_rate: float = 1e-3,
        backbone_learning_rate: float | None = None,
        weight_decay: float = 0.01,
        warmup_share: float = 0.1,
        nested_dims: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        _check_range("learning_rate", learning_rate, learning_rate > 0, "above 0")
        backbone_rate = backbone_learning_rate
        if backbone_rate is None:
            backbone_rate = encoder.backbone_learning_rate or learning_rate
        _check_range("backbone_learning_rate", backbone_rate, backbone_rate > 0, "above 0")
        _check_range("weight_decay", weight_decay, weight_decay >= 0, "0 or more")
        _check_range("warmup_share", warmup_share, 0 <= warmup_share < 1, "from 0 to below 1")
        if not objectives:
            raise ConfigError("There is no objective to train for; name one, as in recipe=infonce.")
        if isinstance(nested_dims, int | str):
            raise ConfigError(f"`nested_dims` must be a list of numbers, as in [16, 32], but got {nested_dims!r}.")
        dims = list(nested_dims or ())
        if dims and (min(dims) < 1 or max(dims) > encoder.output_dim):
            raise ConfigError(f"`nested_dims` must lie in 1 to {encoder.output_dim}, but got {dims}.")
        self.save_hyperparameters(ignore=["encoder", "objectives", "regularisers"])
        self.encoder = encoder
        self.objectives = nn.ModuleDict(objectives)
        self.regularisers = nn.ModuleDict(regularisers or {})
        self.learning_rate = learning_rate
        self.backbone_learning_rate = backbone_rate
        self.weight_decay = weight_decay
        self.warmup_share = warmup_share
        self.nested_dims = dims or [encoder.output_dim]
        self._description: dict[str, Any] | None = None  # of the encoder before it was sharded

    def encode_items(self, batch: dict[str, Any]) -> Tensor:
        """Return the representations [B, D] of an item batch."""
        representations: Tensor = self.encoder(batch)
        return representations

    def use_learning_rate(self, rate: float) -> None:
        """Set the highest learning rate; that of the model under the head keeps its ratio to it."""
        ratio = self.backbone_learning_rate / self.learning_rate
        self.learning_rate, self.backbone_learning_rate = rate, rate * ratio
        for name in ("learning_rate", "backbone_learning_rate"):
            self.hparams[name] = getattr(self, name)

    @override
    def configure_model(self) -> None:
        mesh: Any = self.device_mesh
        if mesh is None or self._description is not None:
            return
        if getattr(self.trainer.strategy, "_save_distributed_checkpoint", False):
            raise ConfigError(
                "A checkpoint holds the trained weights in one file; set save_distributed_checkpoint=false in "
                "trainer.strategy."
            )
        self.strict_loading = False  # the base weights are loaded already, and are not in a checkpoint
        self._description = describe_encoder(self.encoder, precision=str(self.trainer.precision))
        shard_layers(self.encoder.layers(), mesh)

    @override
    def on_after_backward(self) -> None:
        if self._description is not None:
            average_replicated(self)

    @override
    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        if self._description is None or not gradient_clip_val:
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)
        elif gradient_clip_algorithm not in {None, "norm"}:
            raise ConfigError(f"Sharded gradients are clipped by norm, but got {gradient_clip_algorithm!r}.")
        else:
            clip_sharded(self, float(gradient_clip_val))

    @override
    def on_fit_start(self) -> None:
        if getattr(self.trainer.datamodule, "micro_batch", None) is not None:  # type: ignore[attr-defined]
            if self._description is not None:
                raise ConfigError(
                    "training.micro_batch needs the whole model in every process, but its layers are sharded. Set it "
                    "to null, and model.gradient_checkpointing=true to save memory; or set trainer.strategy=ddp."
                )
            check_parts(self.encoder)
        objectives: Any = self.objectives
        waiting = [own for own in objectives.values() if own.needs_reference and own.reference is None]
        if waiting:
            # The encoder before the first step; a resumed run has its reference from the checkpoint.
            batches: ExampleDataModule = self.trainer.datamodule  # type: ignore[attr-defined]  # set by `fit`
            loader = LoaderBatches(self.encoder.loader(batches.items), "item_id")
            training = LightningTraining(self.trainer)
            encoded = encode_items(training, self, loader, lambda module, batch: module.encode_items(batch))
            with undisturbed(self):
                reference = torch.cat([rows for _, rows in encoded])
            for objective in waiting:
                objective.reference = reference

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        own = self._description or describe_encoder(self.encoder, precision=str(self.trainer.precision))
        checkpoint[KEY] = own
        leave_out_base(checkpoint["state_dict"], checkpoint[KEY], prefix="encoder.")

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self._description is not None:  # the strategy has restored the weights of a sharded model
            return
        if KEY not in checkpoint:
            raise ConfigError(
                f"The checkpoint does not describe an encoder ({KEY!r} is missing): it is not of lis-align."
            )
        state: dict[str, Any] = {}
        complete_state(self.encoder, state, checkpoint[KEY])
        checkpoint["state_dict"].update({f"encoder.{name}": weight for name, weight in state.items()})

    @override
    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        losses, size = self._losses(batch)
        total = self._sum(losses)
        self.log("train/loss", total, prog_bar=True, batch_size=size)
        self.log_dict({f"train/{name}": loss.detach() for name, loss in losses.items()}, batch_size=size)
        for name, objective in self.objectives.items():
            if isinstance(temperature := getattr(objective, "temperature", None), Temperature):
                self.log(f"train/{name}_temperature", temperature.value.detach(), batch_size=size)
        return total

    @override
    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        # Objectives have different numbers of held-out batches; one that has none left is None here.
        losses, size = self._losses({name: part for name, part in batch.items() if part is not None})
        if losses.keys() >= set(self.objectives):  # objectives with fewer held-out examples end earlier
            self.log("val/loss", self._sum(losses), prog_bar=True, batch_size=size, sync_dist=True)
        self.log_dict({f"val/{name}": loss for name, loss in losses.items()}, batch_size=size, sync_dist=True)

    @override
    def configure_optimizers(self) -> OptimizerLRScheduler:
        total = self.trainer.estimated_stepping_batches
        if not math.isfinite(total):
            raise ConfigError(
                "The learning rate falls to 0 at the end of the run, but the run has no end: max_steps and max_epochs "
                "of the Trainer are both -1. Set max_steps."
            )
        optimizer = AdamW(self._parameter_groups(), lr=self.learning_rate)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": warmup_cosine(optimizer, int(total), self.warmup_share), "interval": "step"},
        }

    def _losses(self, batches: dict[str, Any]) -> tuple[dict[str, Tensor], int]:
        """Return the loss of each objective and regulariser, and how many items were encoded."""
        rows = {name: self._representations(batch["items"]) for name, batch in batches.items()}
        losses = {}
        for name, own_rows in rows.items():
            loss = partial(self._objective(name).loss, batch=batches[name])
            losses[name] = matryoshka_loss(loss, own_rows, self.nested_dims)
        all_rows = torch.cat(list(rows.values()))
        regularisers: Any = self.regularisers
        for name, regulariser in regularisers.items():
            losses[name] = regulariser.loss(all_rows)
        return losses, len(all_rows)

    def _representations(self, items: dict[str, Any] | list[dict[str, Any]]) -> Tensor:
        """Return the representations of an item batch, or of one that is split into micro-batches."""
        return (
            encode_in_parts(self.encoder, items, self.device) if isinstance(items, list) else self.encode_items(items)
        )

    def _objective(self, name: str) -> Objective:
        objective: Any = self.objectives[name]
        return cast(Objective, objective)

    def _sum(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Return the weighted sum."""
        parts: dict[str, Any] = {**self.objectives, **self.regularisers}
        return torch.stack([parts[name].weight * loss for name, loss in losses.items()]).sum()

    def _parameter_groups(self) -> list[dict[str, Any]]:
        """Return the trained parameters by learning rate: matrices, which are decayed, and the others."""
        backbone = set()
        if self.backbone_learning_rate != self.learning_rate:
            backbone = set(self.encoder.backbone_parameters())
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        groups: list[dict[str, Any]] = []
        for rate, is_backbone in ((self.learning_rate, False), (self.backbone_learning_rate, True)):
            own = [parameter for parameter in trained if (parameter in backbone) == is_backbone]
            for sharded in (False, True):  # AdamW updates a group at once, which must not mix the two
                alike = [parameter for parameter in own if is_sharded(parameter) == sharded]
                matrices = [parameter for parameter in alike if parameter.ndim >= 2]
                others = [parameter for parameter in alike if parameter.ndim < 2]
                groups.append({"params": matrices, "lr": rate, "weight_decay": self.weight_decay})
                groups.append({"params": others, "lr": rate, "weight_decay": 0.0})
        return [group for group in groups if group["params"]]


def warmup_cosine(optimizer: Optimizer, num_steps: int, warmup_share: float) -> LambdaLR:
    """Return a schedule with linear warm-up, then half a cosine down to 0.

    Step s (from 0) of W warm-up steps runs at (s + 1) / W of the highest rate, so that no step runs at rate 0.

    Args:
        optimizer: Its rates are the highest ones.
        num_steps: Optimizer steps of the run.
        warmup_share: Share of them spent rising.

    Example:
        >>> optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
        >>> rate = warmup_cosine(optimizer, num_steps=8, warmup_share=0.5).lr_lambdas[0]
        >>> [round(rate(step), 3) for step in range(9)]
        [0.25, 0.5, 0.75, 1.0, 1.0, 0.854, 0.5, 0.146, 0.0]
    """
    warmup = round(warmup_share * num_steps)

    def rate(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        progress = (step - warmup) / max(1, num_steps - warmup)
        return (1 + math.cos(math.pi * min(progress, 1.0))) / 2

    return LambdaLR(optimizer, rate)


def _check_range(name: str, value: float, fits: bool, expected: str) -> None:
    if not fits or not math.isfinite(value):
        raise ConfigError(f"`{name}` must be {expected}, but got {value}.")
