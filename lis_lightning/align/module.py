"""The module that aligns an item encoder to co-engagement pairs."""

from __future__ import annotations

import math
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from typing_extensions import override

from lis_lightning.align.models import ItemEncoder
from lis_lightning.errors import ConfigError
from lis_lightning.functional.contrastive import info_nce

_LEAST_TEMPERATURE = 0.01  # CLIP (Radford et al. 2021, section 2.5): the scale is clipped at 100 against instability


class AlignmentModule(pl.LightningModule):
    """Trains an encoder by symmetric InfoNCE, with AdamW, linear warm-up and cosine decay.

    Logs ``train/loss``, ``train/temperature`` and ``val/loss`` (the loss of held-out pairs at the same temperature).

    Args:
        encoder: From item batches to representations.
        learning_rate: The highest, reached after warm-up.
        weight_decay: Of weight matrices; norms, biases and the temperature are not decayed.
        warmup_share: Share of the run during which the learning rate rises, 0 to below 1.
        temperature: At the start. It is learned, and never falls below 0.01.

    Raises:
        ConfigError: If a value is out of range.
    """

    def __init__(
        self,
        encoder: ItemEncoder,
        *,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.01,
        warmup_share: float = 0.1,
        temperature: float = 0.07,
    ) -> None:
        super().__init__()
        _check_range("learning_rate", learning_rate, learning_rate > 0, "above 0")
        _check_range("weight_decay", weight_decay, weight_decay >= 0, "0 or more")
        _check_range("warmup_share", warmup_share, 0 <= warmup_share < 1, "from 0 to below 1")
        _check_range("temperature", temperature, temperature >= _LEAST_TEMPERATURE, f"{_LEAST_TEMPERATURE} or more")
        self.save_hyperparameters(ignore=["encoder"])
        self.encoder = encoder
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.warmup_share = warmup_share
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature)))

    @property
    def temperature(self) -> Tensor:
        """The temperature of the loss, a scalar; bounded here, so that its gradient ends where the bound begins."""
        return self.log_temperature.clamp(min=math.log(_LEAST_TEMPERATURE)).exp()

    def encode_items(self, batch: dict[str, Any]) -> Tensor:
        """Return the representations [B, D] of an item batch."""
        representations: Tensor = self.encoder(batch)
        return representations

    @override
    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        loss = self._loss(batch)
        size = len(batch["anchor"])
        self.log("train/loss", loss, prog_bar=True, batch_size=size)
        self.log("train/temperature", self.temperature.detach(), batch_size=size)
        return loss

    @override
    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self.log("val/loss", self._loss(batch), prog_bar=True, batch_size=len(batch["anchor"]), sync_dist=True)

    @override
    def configure_optimizers(self) -> OptimizerLRScheduler:
        total = self.trainer.estimated_stepping_batches
        if not math.isfinite(total):
            raise ConfigError(
                "The learning rate falls to 0 over the whole run, which has no end: max_steps and max_epochs of the "
                "Trainer are both -1. Give max_steps."
            )
        optimizer = AdamW(self._parameter_groups(), lr=self.learning_rate)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": warmup_cosine(optimizer, int(total), self.warmup_share), "interval": "step"},
        }

    def _loss(self, batch: dict[str, Any]) -> Tensor:
        representations = self.encode_items(batch["items"])
        return info_nce(
            representations[batch["anchor"]], representations[batch["positive"]], self.temperature, batch["known"]
        )

    def _parameter_groups(self) -> list[dict[str, Any]]:
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return [
            {"params": [parameter for parameter in trained if parameter.ndim >= 2], "weight_decay": self.weight_decay},
            {"params": [parameter for parameter in trained if parameter.ndim < 2], "weight_decay": 0.0},
        ]


def warmup_cosine(optimizer: Optimizer, num_steps: int, warmup_share: float) -> LambdaLR:
    """Return a schedule that rises linearly over the first steps and then follows half a cosine down to 0.

    Step s (from 0) of W warm-up steps runs at (s + 1) / W of the highest rate: no step is wasted at 0.

    Args:
        optimizer: Holds the highest rate of each group.
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
