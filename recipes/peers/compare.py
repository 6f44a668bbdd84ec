"""What evaluators beside a training do where a run is not the simple one, ours and a peer's, in one table.

    python compare.py --peer-python ENV/bin/python      # ENV holds stable-pretraining 0.1.8

Each training on two ranks has processes of its own, ended after `--limit` seconds if it hangs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
QUESTIONS = ("single", "padded", "uneven", "stop")  # what each side knows how to run
PEERS = ("OnlineProbe", "OnlineKNN", "RankMe")
Answer = Callable[[str, Path], dict[str, Any]]


def serve(side: dict[str, Answer]) -> None:
    """Answer one question in this process: ``side.py QUESTION EVALUATOR FOLDER``; each rank leaves a file there."""
    question, evaluator, folder = sys.argv[1:]
    try:
        seen = side[question](evaluator, Path(folder))
    except Exception as error:
        seen = {"error": f"{type(error).__name__}: {str(error).strip().splitlines()[0][:150]}"}
    rank = os.environ.get("LOCAL_RANK", "0")
    Path(folder, f"rank-{rank}.json").write_text(json.dumps(seen | {"rank": rank}))
    # An error on one rank alone: as without us, the process is gone at once.
    os._exit(bool(seen.get("error")))


def ending(words: set[str]) -> str:
    """Say what a resumed run warned of that it does not warn of otherwise."""
    if not words:
        return "no warning"
    first = sorted(words)[0]
    absent = first.startswith("Be aware that when using `ckpt_path`")
    return "Lightning warns that the callback is missing" if absent else f"warns: {first}"


def same_bits(alone: dict[str, Any], watched: dict[str, Any]) -> str:
    """Compare the tensors of two trainings."""
    return "same bits" if all(value.equal(watched[name]) for name, value in alone.items()) else "differ"


def ask(python: str, side: str, question: str, evaluator: str, limit: float) -> list[dict[str, Any]]:
    """Run one training and return what each rank saw; a last entry says if it had to be ended."""
    with tempfile.TemporaryDirectory() as folder:
        env = os.environ | {"OMP_NUM_THREADS": "1"}
        command = [python, str(HERE / side), question, evaluator, folder]
        with Path(folder, "log").open("w") as log:
            process = subprocess.Popen(  # noqa: S603  # our own scripts, and the interpreter that was asked for
                command, env=env, cwd=folder, stdout=log, stderr=log, start_new_session=True
            )
            try:
                process.wait(limit)
                ended = []
            except subprocess.TimeoutExpired:
                ended = [{"error": f"hangs (ended after {limit:.0f} s)"}]
            with contextlib.suppress(ProcessLookupError):  # whatever is left of the group
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        answers = [json.loads(path.read_text()) for path in sorted(Path(folder).glob("rank-*.json"))]
        if not answers and not ended:
            last = Path(folder, "log").read_text().strip().splitlines() or ["nothing said"]
            ended = [{"error": f"ended by itself with code {process.returncode}: {last[-1]}"}]
        return answers + ended


def said(ranks: list[dict[str, Any]]) -> str | None:
    """Return what went wrong, by rank, or None."""
    errors = {rank.get("rank"): rank["error"] for rank in ranks if rank.get("error")}
    if len(errors) == len(ranks) > 1 and len(set(errors.values())) == 1:
        return next(iter(errors.values()))
    return "; ".join(error if rank is None else f"rank {rank}: {error}" for rank, error in errors.items()) or None


def number(ranks: list[dict[str, Any]], alone: list[dict[str, Any]]) -> str:
    """Compare a number of two ranks with that of one."""
    if wrong := said(ranks) or said(alone):
        return wrong
    seen, true = [rank["value"] for rank in ranks], alone[0]["value"]
    known = [value for value in seen if value is not None]
    right = bool(known) and all(abs(value - true) < 1e-6 for value in known)
    where = "" if len(known) == len(seen) else ", on rank 0 alone"
    shown = " and ".join(dict.fromkeys(f"{value:.4f}" for value in known)) or "nothing"
    return f"ends, {'right' if right else 'off'}: {shown}{where} (one process: {true:.4f})"


def stop(ranks: list[dict[str, Any]]) -> str:
    """Say where the ranks stopped."""
    if wrong := said(ranks):
        return wrong
    steps = {rank["step"] for rank in ranks}
    return f"both at step {steps.pop()}" if len(steps) == 1 else f"at steps {sorted(steps)}"


def column(python: str, side: str, evaluator: str, limit: float) -> dict[str, str]:
    """Ask one evaluator everything."""
    seen = {}
    for question in QUESTIONS:
        began = time.monotonic()
        seen[question] = ask(python, side, question, evaluator, limit)
        print(f"{evaluator}, {question}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    alone = seen["single"]
    wrong = said(alone)
    return {
        "2 ranks, 31 samples, Lightning's sampler": number(seen["padded"], alone),
        "2 ranks, own shards of 16 and 15": number(seen["uneven"], alone),
        "2 ranks, early stopping": stop(seen["stop"]),
        "weights with and without, seeded before the fit": wrong or alone[0]["after"],
        "the same, seeded before all is built": wrong or alone[0]["before"],
        "resume, evaluator changed": wrong or alone[0]["changed"],
        "resume, evaluator added": wrong or alone[0]["added"],
        "resume, evaluator removed": wrong or alone[0]["removed"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", help="interpreter of the peer's environment; without it, ours alone")
    parser.add_argument("--only", nargs="+", default=["LISMonitor", *PEERS], help="evaluators, of both")
    parser.add_argument("--limit", type=float, default=120, help="seconds for a training of some 8 steps")
    args = parser.parse_args()
    table = {}
    for evaluator in args.only:
        if evaluator == "LISMonitor":
            table[evaluator] = column(sys.executable, "ours.py", evaluator, args.limit)
        elif args.peer_python:
            table[evaluator] = column(args.peer_python, "theirs.py", evaluator, args.limit)
    print("| question | " + " | ".join(table) + " |")
    print("| --- " * (len(table) + 1) + "|")
    for question in next(iter(table.values())):
        print(f"| {question} | " + " | ".join(cells[question] for cells in table.values()) + " |")


if __name__ == "__main__":
    main()
