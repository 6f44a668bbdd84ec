"""Train against a W&B server on the loopback that behaves or does not: ``python wandb_fit.py HOW FOLDER``.

well    the server answers
resume  the run stops in the middle, and goes on in a new W&B run object of the same id
500     after the start the server refuses a dozen requests with this status
429     the same
hang    in the middle of the training the server stops to answer
dead    in the middle of the training the server goes away
killed  W&B's own service process goes away, of a run that is kept offline

Prints one line of JSON: whether the weights are those of a training without a logger, how long the end took, what the
monitor made of it, and what the server received.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import WandbLogger

from lis_lightning.results.record import Record
from lis_lightning.tracking import loggers as tracking
from tests._helpers import small_run
from tests._helpers.wandb_stub import Stub

STEPS, MIDDLE, STOP, BOUND = 6, 3, 4, 3.0


class Middle(Callback):
    """Does something after a step, and notes when the last step was done."""

    def __init__(self, action):
        self.action, self.at = action, 0.0

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == MIDDLE:
            self.action()
        self.at = time.perf_counter()


def misbehave(how, server):
    if how in {"hang", "dead"}:
        deadline = time.monotonic() + 20
        while len(server.history("run", "lis/ais")) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        server.hanging.set() if how == "hang" else server.die()
    elif how == "killed":
        found = subprocess.run(["pgrep", "-P", str(os.getpid()), "wandb-core"], capture_output=True, text=True)
        os.kill(int(found.stdout.split()[0]), signal.SIGKILL)


def logger_of(folder, **options):
    logger = WandbLogger(project="p", save_dir=folder, id="run", **options)
    logger.experiment  # noqa: B018  # starts the run
    return logger


def train(how, folder, server):
    """Train to the end; return Trainer, module, monitor, the logger and when the last step was done."""
    options = {"save": "best", "artifact": True, "dirpath": folder / "run"}
    split, middle = small_run.make_split(), Middle(lambda: misbehave(how, server))
    monitor = small_run.monitor_of(split, **options)
    logger = logger_of(folder)
    logger.log_hyperparams({"rate": 0.1})
    if how.isdigit():
        server.errors.extend([int(how)] * 12)
    if how == "resume":
        small_run.fit(folder, monitor, small_run.saver(folder / "checkpoints", every=STOP), logger=logger, steps=STOP)
        assert tracking.close([logger]) == []
        monitor = small_run.monitor_of(split, **options)
        logger = logger_of(folder, resume="must")
        checkpoint = folder / "checkpoints" / f"step={STOP}.ckpt"
        trainer, module = small_run.fit(folder, monitor, middle, logger=logger, steps=STEPS, ckpt_path=checkpoint)
    else:
        trainer, module = small_run.fit(folder, monitor, middle, logger=logger, steps=STEPS)
    return trainer, module, monitor, logger, middle.at


def main(how, folder):
    weights = small_run.fit(folder / "plain", steps=STEPS)[1].state_dict()
    with Stub() as server:
        os.environ |= server.environment(folder)
        if how == "killed":
            os.environ["WANDB_MODE"] = "offline"
        if how in {"hang", "dead", "killed"}:
            tracking.FINISH_SECONDS = BOUND
            os.environ["WANDB_FINISH_TIMEOUT"] = "2"
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            trainer, module, monitor, logger, at = train(how, folder, server)
        ended = time.perf_counter()
        closing = tracking.close([logger])
        said = {
            "step": trainer.global_step,
            "same_weights": all(torch.equal(value, weights[name]) for name, value in module.state_dict().items()),
            "end_seconds": ended - at,
            "close_seconds": time.perf_counter() - ended,
            "closing": closing,
            "recorded": [result.step for result in Record.read(monitor.record_path)[1]],
            "ais": [result.ais for result in monitor.results],
            "failures": [s["error"] for s in Record.statuses(monitor.record_path) if s["kind"] == "failure"],
            "warnings": [str(warning.message) for warning in caught if "LISMonitor" in str(warning.message)],
            "rows": server.rows.get("run", []),
            "summary": server.summary.get("run", {}),
            "config": sorted(server.config.get("run", {})),
            "files": {name: len(body) for name, body in server.files.items()},
            "tables": {n: json.loads(b) for n, b in server.files.items() if n.startswith("media/table")},
            "alerts": [alert["title"] for alert in server.operations("NotifyScriptableRunAlert")],
            "artifacts": [made["input"] for made in server.operations("CreateArtifact")],
            "committed": len(server.operations("CommitArtifact")),
            "finished": server.finished,
            "refused": len(server.refused),
        }
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
