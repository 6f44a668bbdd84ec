"""Kill a training again and again, resume it each time, and print what got lost: ``python -m tests.kill [--kills N]``.

Each round trains a small module from its first step to its last, with a LISMonitor that keeps snapshots and a
ModelCheckpoint in the middle of epochs. It is killed (SIGKILL) at random points and resumed from its newest checkpoint:

    time    anywhere from the start of the process to its end
    import  while our package is imported
    line    before a random line of the code that brings results and snapshots to the disk
    torn    in a flush, with only a part of the last write on the disk, as a power cut leaves it

After every kill all files are read: each result that the record had acknowledged must be there, once, and each snapshot
that the newest checkpoint will want. At the end of a round, curve, weights and snapshots must be those of a run that
nobody disturbed.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import pickle
import random
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from rich.console import Console
from rich.table import Table

from lis_lightning.errors import LisError
from lis_lightning.monitor import load_embeddings
from lis_lightning.results.record import Record
from tests._helpers import small_run
from tests.kill import victim

KINDS = {"time": 0.35, "import": 0.1, "line": 0.4, "torn": 0.15}
COUNTED = ("kills", "resumes", "lost", "duplicated", "corrupt")


def forked(action: Callable[[], Any], log: Path) -> int:
    """Do something in a fork of this process; return its id. Nothing that it does comes back but what it writes."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        with log.open("a") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            action()
            code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def ended(pid: int) -> int:
    """Wait for a fork; return its exit status, negative if a signal ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class Round:
    """One training in one folder, and what its record has acknowledged so far."""

    def __init__(self, folder: Path, split: Any) -> None:
        self.folder = folder
        self.split = split
        self.journal = folder / "journal"
        self.log = folder / "log"
        folder.mkdir()

    def attempt(self, prepare: Callable[[], Any] = lambda: None, kill_after: float | None = None) -> bool:
        """Let the training run until it ends or is killed; return whether it was killed."""

        def run() -> None:
            prepare()
            victim.train(self.folder, self.split, self.journal)

        pid = forked(run, self.log)
        if kill_after is not None:
            time.sleep(kill_after)
            os.kill(pid, signal.SIGKILL)  # a process that has ended is still there: nobody has waited for it
        code = ended(pid)
        if code not in {0, -signal.SIGKILL}:
            raise RuntimeError(f"The training failed by itself: {self.log.read_text()[-3000:]}")
        return code != 0

    def acknowledged(self) -> dict[Path, set[int]]:
        """Return the steps that each record has to hold."""
        known: dict[Path, set[int]] = {}
        for line in self.journal.read_text().splitlines() if self.journal.exists() else []:
            what, where, step = line.split("\t")
            if what == "append":
                known.setdefault(Path(where), set()).add(int(step))
            elif what == "rewind":
                known[Path(where)] = {kept for kept in known.get(Path(where), ()) if kept <= int(step)}
        return known

    def damage(self) -> Counter[str]:
        """Read everything, and count what is not as it was acknowledged."""
        found: Counter[str] = Counter()
        for path, steps in self.acknowledged().items():
            try:
                recorded = [result.step for result in Record.read(path)[1]]
            except LisError:
                found["corrupt"] += 1
                continue
            found["lost"] += len(steps - set(recorded))
            found["duplicated"] += len(recorded) - len(set(recorded))
        for path in self.folder.glob("snapshots*/step-*.safetensors"):
            try:
                load_embeddings(path, self.split)
            except LisError:
                found["corrupt"] += 1
        found["lost"] += len(self.wanted() - {path.name for path in self.folder.glob("snapshots*/*.safetensors")})
        return found

    def wanted(self) -> set[str]:
        """Return the snapshots that a run resumed from the newest checkpoint believes to have."""
        path = victim.newest(self.folder)
        if path is None:
            return set()
        states = torch.load(path, weights_only=True)["callbacks"]
        (state,) = [state for key, state in states.items() if key.startswith("LISMonitor")]
        steps = [json.loads(line)["result"]["step"] for line in state["results"] if '"kind":"result"' in line]
        return {f"step-{step:08d}.safetensors" for step in steps[-3:]}

    def outcome(self) -> dict[str, Any]:
        """Return what must not depend on kills: the curve, the last checkpoint's weights, the snapshots."""
        path = max(self.folder.glob("record*.jsonl"), key=lambda path: (path.stat().st_mtime_ns, path.name))
        results = Record.read(path)[1]
        last = torch.load(victim.newest(self.folder), weights_only=True)
        folder = path.with_name(path.stem.replace("record", "snapshots"))
        return {
            "curve": small_run.curve(results),
            "weights": {name: value.tolist() for name, value in last["state_dict"].items()},
            "snapshots": {
                file.name: load_embeddings(file, self.split).tolist() if file.suffix == ".safetensors" else "left over"
                for file in sorted(folder.iterdir())
            },
            "ended": Record.statuses(path)[-1]["kind"],
        }


def prepared(kind: str, rng: random.Random, lines: int) -> Callable[[], Any]:
    """Return what a training has to do first, to be killed in this way; `lines` are those that a whole run passes."""
    if kind == "line":
        countdown = rng.randrange(1, lines)
        return lambda: victim.die_at_line(countdown)
    if kind == "torn":
        countdown, seed = rng.randrange(1, 12), rng.random()
        return lambda: victim.die_torn(countdown, random.Random(seed))
    return victim.import_anew


def kill(kills: int, seed: int, folder: Path) -> dict[str, Counter[str]]:
    """Kill trainings so often, and return what was counted, by the way they were killed."""
    rng = random.Random(seed)
    ended(forked(lambda: (folder / "split").write_bytes(pickle.dumps(small_run.make_split())), folder / "log"))
    split = pickle.loads((folder / "split").read_bytes())  # polars has threads, which no fork survives
    undisturbed = Round(folder / "undisturbed", split)
    began = time.perf_counter()
    undisturbed.attempt(lambda: None)
    seconds = time.perf_counter() - began
    expected, lines = undisturbed.outcome(), count_lines(folder, split)
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in (*KINDS, "rounds")}
    kinds = [kind for kind, share in KINDS.items() for _ in range(math.ceil(share * kills))]
    rng.shuffle(kinds)
    number = 0
    while (done := sum(counts[kind]["kills"] for kind in KINDS)) < kills:
        number += 1
        one = Round(folder / f"round-{number}", split)
        for kind in kinds[done : min(done + 8, kills)]:
            left = 1 - (int(at.stem.partition("=")[2]) if (at := victim.newest(one.folder)) else 0) / victim.STEPS
            after = {"time": rng.uniform(0, seconds * left), "import": rng.uniform(0, 0.3)}.get(kind)
            first = (lambda: None) if kind == "time" else prepared(kind, rng, max(2, int(lines * left)))
            resumed = at is not None
            if not one.attempt(first, after):
                break
            counts[kind] += one.damage() + Counter(kills=1, resumes=int(resumed))
        else:
            one.attempt(lambda: None)
        counts["rounds"]["number"] += 1
        counts["rounds"]["same"] += one.outcome() == expected
        counts["rounds"] += one.damage()
    return counts


def count_lines(folder: Path, split: Any) -> int:
    """Return how many lines of ours bring the snapshots of a whole run to the disk."""
    one = Round(folder / "lines", split)

    def run() -> None:
        passed = victim.die_at_line(-1)
        victim.train(one.folder, split, one.journal)
        (folder / "number").write_text(str(passed()))

    ended(forked(run, one.log))
    return int((folder / "number").read_text())


def render(counts: dict[str, Counter[str]]) -> Table:
    """Return the counts as a table, with their sums."""
    rounds = counts["rounds"]
    table = Table(title=f"Kills of {rounds['number']} runs; {rounds['same']} ended like the undisturbed one")
    for heading in ("killed at", *COUNTED):
        table.add_column(heading, justify="left" if heading == "killed at" else "right")
    for kind in KINDS:
        table.add_row(kind, *(str(counts[kind][name]) for name in COUNTED))
    table.add_section()
    total = sum(counts.values(), Counter())
    table.add_row("all", *(str(total[name]) for name in COUNTED))
    return table


def main() -> None:
    """Kill as often as was asked for; leave with 1 if anything was lost, doubled or damaged."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tests.kill")
    parser.add_argument("--kills", type=int, default=50, help="how often to kill (50)")
    parser.add_argument("--seed", type=int, default=0, help="of the points where a run is killed (0)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the counts to a file too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory(prefix="lis-kill-") as folder:
        os.environ["LIS_CACHE"] = f"{folder}/cache"
        began = time.perf_counter()
        counts = kill(options.kills, options.seed, Path(folder))
    Console().print(render(counts))
    Console().print(f"seed {options.seed}, {time.perf_counter() - began:.0f} s")
    total = sum(counts.values(), Counter())
    if options.json:
        options.json.write_text(json.dumps(counts, indent=1))
    bad = total["lost"] + total["duplicated"] + total["corrupt"] + total["number"] - total["same"]
    raise SystemExit(bool(bad))


if __name__ == "__main__":
    main()
