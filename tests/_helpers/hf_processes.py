"""Trainings by transformers' Trainer in one of two processes: ``python -m tests._helpers.hf_processes FOLDER``."""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path

import torch

from lis_lightning.hf import LISEarlyStoppingCallback
from lis_lightning.results.stopping import StopRule
from tests._helpers import sentence_run
from tests._helpers.hf_run import monitor_of, trainer_of
from tests._helpers.small_run import make_split


def train(folder, *, watched=True, steps=4, encode=None, **options):
    """Train, and return what this process has seen."""
    seen = []

    def noted(module, batch):
        seen.append(len(batch["item_id"]))
        return module.encode_items(batch) if encode is None else encode(module, batch)

    trainer = trainer_of(folder, steps=steps, ddp_backend="gloo", ddp_find_unused_parameters=False)
    monitor = monitor_of(make_split(), encode=noted, **options)
    if watched:
        trainer.add_callback(LISEarlyStoppingCallback(monitor))
        monitor.attach(trainer)
    trainer.train()
    return {
        "weights": [value.tolist() for value in trainer.model.state_dict().values()],
        "steps": [result.step for result in monitor.results],
        "ais": [result.ais for result in monitor.results],
        "record": monitor.record_path is not None,
        "logged": [entry["step"] for entry in trainer.state.log_history if "eval_lis_ais" in entry],
        "ended": trainer.state.global_step,
        "encoded": sum(seen),
        "error": monitor.last_error,
    }


def evaluate(folder):
    """Train with sentence-transformers until the rule stops the training, and return what this process has seen."""
    evaluator = sentence_run.evaluator_of(make_split(), rule=StopRule(min_gain=1.0, min_progress=0))
    callbacks = [LISEarlyStoppingCallback(evaluator)]
    trainer = sentence_run.trainer_of(folder, evaluator, callbacks, steps=40, ddp_backend="gloo")
    trainer.train()
    return {
        "steps": [result.step for result in evaluator.results],
        "logged": [entry["step"] for entry in trainer.state.log_history if "eval_lis_ais" in entry],
        "ended": trainer.state.global_step,
        "record": evaluator.record_path is not None,
    }


def main(folder):
    torch.set_num_threads(1)
    rank = int(os.environ["RANK"])

    def fails_on_the_second(module, batch):
        if rank == 1 and module.forwards == 4:
            raise OSError("only here")
        return module.encode_items(batch)

    warnings.simplefilter("ignore")
    cases = {
        "without": {"watched": False},
        "with": {},
        "stopped": {"steps": 40, "encode": fails_on_the_second, "rule": StopRule(min_gain=1.0, min_progress=0)},
    }
    seen = {name: train(Path(folder, name), **options) for name, options in cases.items()}
    seen["evaluator"] = evaluate(Path(folder, "evaluator"))
    Path(folder, f"rank-{rank}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main(sys.argv[1])
