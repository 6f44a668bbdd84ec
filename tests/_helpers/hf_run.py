"""A small training by transformers' Trainer whose model has dropout and BatchNorm, watched by a monitor."""

from __future__ import annotations

import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments

from lis_lightning.hf import LISTrainerCallback
from tests._helpers.small_run import ITEMS, contents

DIM, NUM_ROWS = 4, 40


class Model(nn.Module):
    """Learns the contents of the items, so that its score rises; its output is a loss with many logits."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(DIM, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.ReLU(), nn.Linear(8, DIM))
        self.forwards = 0

    def encode_items(self, batch):
        return self.body(batch["x"])

    def forward(self, x, labels=None):
        self.forwards += 1
        logits = self.body(x)
        return {"loss": nn.functional.mse_loss(logits, x), "logits": logits}


ROWS = [{"x": contents()[row % len(ITEMS)], "labels": torch.zeros(1)} for row in range(NUM_ROWS)]


def trainer_of(folder, *callbacks, steps=8, seed=7, **options):
    """Return a Trainer of a fresh model; callbacks stand in its list as given."""
    torch.manual_seed(seed)
    options = {"eval_strategy": "no", "save_strategy": "no", "logging_steps": 1, "report_to": "none"} | options
    arguments = TrainingArguments(
        str(folder), max_steps=steps, per_device_train_batch_size=8, learning_rate=3e-2, use_cpu=True,
        disable_tqdm=True, seed=seed, **options,
    )  # fmt: skip
    return Trainer(Model(), arguments, train_dataset=ROWS, eval_dataset=ROWS[:8], callbacks=list(callbacks))


def monitor_of(split, **options):
    quick = {"every_n_steps": 2, "placebo": False, "ceilings": (), "progress": False, "batch_size": 7}
    return LISTrainerCallback(split, options.pop("items", ITEMS), **quick | options)


class At(TrainerCallback):
    """Calls a function after a step."""

    def __init__(self, step, action):
        self.step, self.action = step, action

    def on_step_end(self, args, state, control, **context):
        if state.global_step == self.step:
            self.action()


def weights(trainer):
    """Weights, buffers, optimizer states and the next random numbers."""
    optimizer = [value for state in trainer.optimizer.state_dict()["state"].values() for value in state.values()]
    return [*trainer.model.state_dict().values(), *optimizer, torch.rand(3)]


def equal(left, right):
    return len(left) == len(right) and all(map(torch.equal, left, right))
