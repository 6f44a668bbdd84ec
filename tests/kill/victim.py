"""The process that is killed: a real training, resumed from its newest checkpoint, that says what it has put on disk.

Everything in here runs in a fork of the killer, which has imported the heavy packages already.
"""

from __future__ import annotations

import importlib
import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests._helpers import small_run

STEPS, EVERY, SAVED_EVERY, KEPT = 13, 2, 3, "last-3"
OURS = ("record.py", "history.py", "storage.py", "_packing.py")  # where a snapshot is on its way to the disk


def train(folder: Path, split: Any, journal: Path) -> Any:
    """Train to the end, from the newest checkpoint if there is one; return the monitor and the module."""
    say = _journal(journal)
    _tell(small_run.LISMonitor, say)
    quick = {"ceilings": ("ids",), "aligned_to": "ids", "k": 4, "placebo": False}
    monitor = small_run.monitor_of(split, every_n_steps=EVERY, save=KEPT, **quick)
    saver = small_run.saver(folder / "checkpoints", every=SAVED_EVERY)
    _, module = small_run.fit(folder, monitor, saver, steps=STEPS, ckpt_path=newest(folder))
    say("done", "", 0)
    return monitor, module


def newest(folder: Path) -> Path | None:
    """Return the newest checkpoint; Lightning renames them into place, so that each is whole."""
    steps = sorted(int(path.stem.partition("=")[2]) for path in (folder / "checkpoints").glob("step=*.ckpt"))
    return folder / "checkpoints" / f"step={steps[-1]}.ckpt" if steps else None


def _journal(path: Path) -> Callable[[str, str, int], None]:
    """Return what writes down, past every buffer, what the disk has taken."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    return lambda what, where, step: (os.write(descriptor, f"{what}\t{where}\t{step}\n".encode()), None)[1]


def _tell(monitor: type, say: Callable[[str, str, int], None]) -> None:
    """Let the record say what it has acknowledged, and what it is about to give up."""
    record = sys.modules["lis_lightning.results.record"].Record
    append, rewind = record.append, record.rewind

    def told_append(self: Any, result: Any) -> None:
        append(self, result)
        say("append", str(self.path), result.step)

    def told_rewind(self: Any, step: int) -> None:
        say("rewind", str(self.path), step)
        rewind(self, step)

    record.append, record.rewind = told_append, told_rewind


def die() -> None:
    """Leave as one leaves on `kill -9`: nothing is flushed, closed or cleaned up."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_at_line(countdown: int) -> Callable[[], int]:
    """Die at a line of the code that brings snapshots to the disk, counted from here; return what counts the lines."""
    passed = 0

    def local(frame: Any, event: str, _: Any) -> Any:
        nonlocal passed
        if event == "line":
            passed += 1
            if passed == countdown:
                die()
        return local

    def trace(frame: Any, event: str, _: Any) -> Any:
        name = frame.f_code.co_filename
        return local if name.endswith(OURS) and "lis_lightning" in name else None

    sys.settrace(trace)
    return lambda: passed


def die_torn(countdown: int, rng: random.Random) -> None:
    """Die in the flush of a record or a snapshot, when the disk has taken only a part of what was written last."""
    flush, passed = os.fsync, 0

    def torn(descriptor: int) -> None:
        nonlocal passed
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path.suffix in {".jsonl", ".draft"}:
            passed += 1
            if passed == countdown:
                data = path.read_bytes()
                start = data.rstrip(b"\n").rfind(b"\n") + 1 if path.suffix == ".jsonl" else 0
                os.truncate(path, rng.randrange(start, len(data)))
                die()
        flush(descriptor)

    os.fsync = torn


def import_anew() -> None:
    """Import our package as a fresh process does."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "lis_lightning"]:
        del sys.modules[name]
    del sys.modules["tests._helpers.small_run"]
    globals()["small_run"] = importlib.import_module("tests._helpers.small_run")
