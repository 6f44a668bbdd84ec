"""Train with a W&B server that goes away after the run has started: ``python wandb_down.py hang|dead|killed FOLDER``.

hang    the server takes requests and never answers
dead    the server is gone
killed  W&B's own service process is gone, of a run that is kept offline

Prints one line of JSON: how long the training took, of it the end, what the monitor made of it, the points recorded.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import small_run
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import WandbLogger

from lis_lightning import tracking
from lis_lightning.record import Record

ANSWER = {
    "viewer": {"id": "1", "entity": "e", "username": "u", "flags": "{}", "teams": {"edges": []}},
    "serverInfo": {"cliVersionInfo": {"max_cli_version": "9"}, "latestLocalVersionInfo": None, "features": []},
    "upsertBucket": {
        "inserted": True,
        "bucket": {
            "id": "1", "name": "x", "displayName": "x", "config": "{}", "historyLineCount": 0, "sweepName": None,
            "project": {"id": "1", "name": "p", "entity": {"id": "1", "name": "e"}},
        },
    },
}  # fmt: skip


class Server(BaseHTTPRequestHandler):
    """As much of W&B's API as a run needs to start; then nothing."""

    hanging = threading.Event()

    def answer(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.hanging.is_set():
            time.sleep(3600)
        body = json.dumps({"data": ANSWER}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = answer  # names of the base class

    def log_message(self, *_):
        pass


class Clock(Callback):
    """When the last step was done."""

    def on_train_batch_end(self, trainer, *_):
        self.at = time.perf_counter()


def main(how, folder):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    os.environ |= {"WANDB_DIR": str(folder), "WANDB_SILENT": "true", "WANDB_FINISH_TIMEOUT": "2"}
    os.environ |= {"WANDB_BASE_URL": f"http://127.0.0.1:{server.server_port}", "WANDB_API_KEY": "x" * 40}
    os.environ["WANDB_MODE"] = "offline" if how == "killed" else "online"
    tracking.FINISH_SECONDS = 3.0
    logger = WandbLogger(project="p", save_dir=folder)
    logger.experiment  # noqa: B018  # starts the run
    if how == "hang":
        Server.hanging.set()
    elif how == "dead":
        server.shutdown()
        server.server_close()
    else:
        found = subprocess.run(["pgrep", "-P", str(os.getpid()), "wandb-core"], capture_output=True, text=True)
        os.kill(int(found.stdout.split()[0]), signal.SIGKILL)
    monitor, clock = small_run.monitor_of(small_run.make_split(), dirpath=folder), Clock()
    began = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer, _ = small_run.fit(folder, monitor, clock, logger=logger, steps=6)
    ended = time.perf_counter()
    said = {
        "step": trainer.global_step,
        "seconds": ended - began,
        "end_seconds": ended - clock.at,
        "recorded": [result.step for result in Record.read(monitor.record_path)[1]],
        "failures": [s["error"] for s in Record.statuses(monitor.record_path) if s["kind"] == "failure"],
        "warnings": [str(warning.message) for warning in caught if "LISMonitor" in str(warning.message)],
    }
    print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
