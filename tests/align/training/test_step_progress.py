"""The bar over the optimizer steps of a run."""

import io
import logging

import pytorch_lightning as pl
import torch
from rich.console import Console
from torch.utils.data import DataLoader

from lis_lightning.align.training import step_progress
from lis_lightning.align.training.step_progress import StepProgress


class Speaker(pl.LightningModule):
    """Logs a loss, and says something by Lightning's logger in each step."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch, _):
        logging.getLogger("pytorch_lightning.utilities.rank_zero").info("LIS step %d", self.global_step)
        loss = self.layer(batch).square().mean()
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


def test_it_counts_the_steps_of_the_run_and_lines_stand_above_it(tmp_path, monkeypatch):
    terminal = io.StringIO()
    console = Console(file=terminal, force_terminal=True, width=100)
    monkeypatch.setattr(step_progress, "Console", lambda stderr: console)
    handler = logging.StreamHandler()
    monkeypatch.setattr(step_progress._LIGHTNING, "handlers", [handler])
    before = handler.stream
    trainer = pl.Trainer(
        max_steps=5, max_epochs=-1, callbacks=[StepProgress()], logger=False, enable_checkpointing=False,
        accelerator="cpu", default_root_dir=tmp_path, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Speaker(), DataLoader(torch.zeros(4, 2), batch_size=2, num_workers=0))
    shown = terminal.getvalue()
    assert "/5" in shown
    assert "train/loss 0." in shown
    assert "Epoch" not in shown
    assert "\nLIS step 3\n" in shown.replace("\x1b[2K", "").replace("\r", "\n").replace("\x1b[1A", "")
    assert handler.stream is before
