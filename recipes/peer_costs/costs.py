"""What LIS, refitted rankers and a peer's evaluators cost on the same snapshots, and how each agrees with gold.

    python costs.py --runs outputs/evidence-full/runs/default--infonce--0 ... [--fuxictr-python PYTHON]
        [--stable-pretraining-python PYTHON] [--out DIR]

Runs are of recipes/evidence and must be finished. Each contender has a process of its own, on one thread.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from cost_tables import Answer, Gold, costs, features, ratios

HERE = Path(__file__).parent
FILES = ("snapshots.npz", "gold.json", "record.jsonl")
OURS = {
    "LIS": ("score_side.py", "scored"),
    "LIS, a ranker's events": ("score_side.py", "ranked"),
    "gold DIN": ("gold_side.py", "din"),
    "gold DCN": ("gold_side.py", "dcn"),
}
FUXICTR = {"FuxiCTR DIN": ("fuxictr_side.py", "din")}
PRETRAINING = {kind: ("pretraining_side.py", kind) for kind in ("OnlineProbe", "OnlineKNN", "RankMe")} | {
    "(10 epochs, no evaluator)": ("pretraining_side.py", "none")
}


def checked(runs: Sequence[Path]) -> list[Path]:
    """Return the folders of runs.

    Raises:
        SystemExit: If one is no finished run of the study, or two have one name.
    """
    for run in runs:
        if missing := [name for name in FILES if not (run / name).is_file()]:
            raise SystemExit(
                f"--runs: {run} is no finished run of recipes/evidence: it has no {', '.join(missing)}. "
                "Give folders OUT/runs/KIND--RECIPE--SEED, after evidence.py has ended them."
            )
    if len({run.name for run in runs}) < len(runs):
        raise SystemExit(f"--runs: each run once; got {[run.name for run in runs]}")
    return [run.resolve() for run in runs]


def call(python: str, script: str, *args: str) -> str:
    """Run a script of this folder on one thread; return its last words if it failed."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS"), "1")
    with tempfile.TemporaryFile("w+") as words:
        command = [python, str(HERE / script), *args]
        code = subprocess.run(command, env=os.environ | threads, stdout=words, stderr=words, check=False).returncode  # noqa: S603  # our own scripts
        words.seek(0)
        said = words.read().strip().splitlines() or ["nothing said"]
    return "" if code == 0 else f"ended with code {code}: {said[-1][:200]}"


def ask(contender: str, command: tuple[str, str, str], folders: dict[str, Path]) -> list[Answer]:
    """Return what a contender, an interpreter, script and argument, says of each run, by name."""
    python, script, what = command
    wrong = call(python, script, what, *map(str, folders.values()))
    answers = []
    for run, folder in folders.items():
        answer_file = folder / "answer.json"
        if answer_file.exists():
            answers.append(Answer(run, contender, **json.loads(answer_file.read_text())))
            answer_file.unlink()
        else:
            answers.append(Answer(run, contender, error=wrong or "said nothing"))
    return answers


def write(answers: Sequence[Answer], gold: dict[str, Gold], out: Path) -> str:
    """Write a CSV row a run and contender, and the tables; return these."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / "costs.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(
            ["run", "contender", "snapshots", "seconds", "once", "memory_mib", "spearman", "gold_moves", "error"]
        )
        for one in answers:
            numbers = (
                []
                if one.error
                else [len(one.values), one.typical, one.once, one.memory, gold[one.run].agrees(one.values)]
            )
            rows.writerow([one.run, one.contender, *(numbers or [""] * 5), gold[one.run].moves, one.error])
    names = list(dict.fromkeys(one.contender for one in answers))
    parts = {
        "costs and agreement": costs(answers, gold),
        "a score beside a fit": ratios(answers),
        "what each needs and tells": features(names),
    }
    text = "\n".join(f"### {title}\n\n{table}" for title, table in parts.items() if table)
    (out / "tables.md").write_text(text)
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--runs", type=Path, nargs="+", required=True, help="folders of finished runs of recipes/evidence"
    )
    parser.add_argument("--fuxictr-python", help="interpreter of an environment with fuxictr; left out without")
    parser.add_argument("--stable-pretraining-python", help="that of one with stable-pretraining; left out without")
    parser.add_argument(
        "--out", type=Path, default=Path("outputs/peer_costs"), help="folder of tables.md and costs.csv"
    )
    everyone = [*OURS, *FUXICTR, *PRETRAINING]
    parser.add_argument("--only", nargs="+", choices=everyone, default=everyone, help="some of the contenders")
    args = parser.parse_args()
    runs = checked(args.runs)
    contenders = {name: (sys.executable, *what) for name, what in OURS.items()}
    for option, python, theirs in (
        ("--fuxictr-python", args.fuxictr_python, FUXICTR),
        ("--stable-pretraining-python", args.stable_pretraining_python, PRETRAINING),
    ):
        contenders |= {name: (python, *what) for name, what in theirs.items() if python}
        if not python:
            print(f"Left out without {option}: {', '.join(theirs)}", flush=True)
    gold = {run.name: Gold.of(json.loads((run / "gold.json").read_text())["gold"]) for run in runs}
    answers: list[Answer] = []
    with tempfile.TemporaryDirectory() as name:
        folders = {run.name: Path(name, run.name) for run in runs}
        for run in runs:
            folders[run.name].mkdir()
            if wrong := call(sys.executable, "prepare.py", str(run), str(folders[run.name])):
                raise SystemExit(f"--runs: {run}: {wrong}")
        for contender in filter(contenders.get, args.only):
            began = time.monotonic()
            answers += ask(contender, contenders[contender], folders)
            print(f"{contender}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
            text = write(answers, gold, args.out)  # what was measured by now, should it be ended
    print(text)


if __name__ == "__main__":
    main()
