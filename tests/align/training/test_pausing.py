"""A fit that is paused and continued ends with the weights of a fit in one go."""

from __future__ import annotations

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader

from lis_lightning.align.training.pausing import Pause


class Dropped(pl.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 1))

    def training_step(self, batch, _):
        return self.layer(batch).pow(2).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def _fit(folder, step, path, checkpoint=None):
    module, pause = Dropped(), Pause(step, path)
    trainer = pl.Trainer(
        max_steps=6, callbacks=[pause], logger=False, default_root_dir=folder, accelerator="cpu",
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    batches = DataLoader(torch.ones(24, 4), batch_size=2, generator=torch.Generator())
    trainer.fit(module, batches, ckpt_path=checkpoint, weights_only=False)
    return module.layer[1].weight.detach(), pause, trainer


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*your dataloader is not resumable")
def test_dropout_goes_on_where_it_was(tmp_path):
    path = tmp_path / "paused.ckpt"
    whole, pause, _ = _fit(tmp_path, None, path)
    assert not pause.reached
    assert not path.exists()
    _, pause, trainer = _fit(tmp_path, 3, path)
    assert pause.reached
    assert trainer.global_step == 3
    torch.manual_seed(99)
    continued, _, trainer = _fit(tmp_path, None, path, checkpoint=path)
    assert trainer.global_step == 6
    assert torch.equal(continued, whole)
