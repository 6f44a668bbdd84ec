"""The command ``lis-report``: report runs as a page and in the terminal, or build the W&B workspace."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
import webbrowser
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import polars as pl
from polars import selectors as cs

from lis_lightning.cli.command import run_command
from lis_lightning.errors import ConfigError
from lis_lightning.report.comparison import choose_snapshot, comparison_text
from lis_lightning.report.page import write_report
from lis_lightning.report.runs import RecordedRun, find_runs
from lis_lightning.report.terminal import render_text
from lis_lightning.tracking.run_frame import runs_frame
from lis_lightning.tracking.wandb_offline import OFFLINE_READERS

_DESCRIPTION = """\
Shows how training changes the ranker's gain: what the preference data would still add, whether the score still
improves, whether to stop, and what the bottleneck is. Reads the records that LISMonitor and lis-align write
(record.jsonl), also those of runs in progress and of killed runs. Runs without a record are read from W&B's offline
files. Needs no network.

  lis-report outputs/infonce/2026-11-24_10-00-00     one run: a page beside its record, and a summary here
  lis-report outputs/sweeps/first                    a sweep: curves overlaid, paired differences, leaderboard
  lis-report runs/a runs/b --out compare.html        any runs on one split
  lis-report outputs/infonce/... --watch             during training: update page and terminal
  lis-report DIR --text                              no page, for use over ssh
  lis-report DIR --csv                               all numbers, one row a snapshot; --json; --out FILE
  lis-report compare runs/a runs/b@200               paired difference of two snapshots, with z and p
  lis-report workspace --entity me --project mine    a W&B workspace with the same panels
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``lis-report``.

    Args:
        arguments: The command line without the program; None takes ``sys.argv``.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    commands = {"workspace": _workspace, "compare": _compare}
    other = commands.get(words[0]) if words else None
    command = partial(_report, words) if other is None else partial(other, words[1:])
    try:
        run_command("lis-report", command)
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lis-report", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("paths", nargs="+", metavar="DIR", help="folder of a run or a sweep, a record, a run-*.wandb")
    parser.add_argument(
        "--out",
        type=Path,
        help="file of the page, default report.html in the first folder; with --csv or --json theirs",
    )
    parser.add_argument("--title", help="heading of the page; default: name of the run, or number of runs")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--text", action="store_true", help="print the summary and write no page")
    instead.add_argument("--csv", action="store_true", help="print run, step, verdict and all numbers as CSV instead")
    instead.add_argument("--json", action="store_true", help="the same as a JSON list of one object a snapshot")
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    parser.add_argument(
        "--watch", nargs="?", type=float, const=10.0, metavar="SECONDS",
        help="check for new results at this interval (default 10) until every run has ended, or Ctrl-C",
    )  # fmt: skip
    return parser


def _report(arguments: Sequence[str]) -> None:
    options = _parser().parse_args(arguments)
    if options.watch is not None and not 0 < options.watch < math.inf:
        raise ConfigError(f"--watch takes seconds above 0, got {options.watch:g}.")
    if options.out is not None and options.out.is_dir():
        raise ConfigError(f"--out names the page, but {options.out} is a folder; give {options.out / 'report.html'}.")
    if options.csv or options.json:
        if options.watch is not None or options.title or options.open:
            raise ConfigError("--csv and --json print numbers: --watch, --title and --open are of the page.")
        _write_numbers(options.paths, "csv" if options.csv else "json", options.out)
        return
    page = None if options.text else options.out or _default_page(Path(options.paths[0]))
    if options.watch is not None:
        _watch(options.paths, page, options.title, options.watch, open_it=options.open)
        return
    runs = find_runs(options.paths, OFFLINE_READERS)
    _print(render_text(runs))
    if page is not None:
        write_report(runs, page, title=options.title)
        _print(f"\npage: {page}")
        if options.open:
            webbrowser.open(page.absolute().as_uri())


def _write_numbers(paths: Sequence[str], form: str, out: Path | None) -> None:
    """Print the numbers of all snapshots, or write them to a file."""
    frame = runs_frame(find_runs(paths, OFFLINE_READERS))
    if form == "csv":
        text = frame.write_csv()
    else:
        finite = pl.when(cs.float().is_finite()).then(cs.float())  # JSON has no infinity
        text = json.dumps(frame.with_columns(finite).to_dicts(), indent=1, allow_nan=False) + "\n"
    if out is None:
        sys.stdout.write(text)
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")
    _print(f"numbers: {out}")


def _compare_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lis-report compare",
        description="Compares AIS of two recorded snapshots on one split, paired by user: A minus B, with z and p.",
    )
    for name in ("A", "B"):
        parser.add_argument(
            name,
            help="folder of a run or its record, for its best snapshot; with @200, @first or @last for another; or a "
            "file snapshots/step-*.safetensors beside its record",
        )
    return parser


def _compare(arguments: Sequence[str]) -> None:
    options = _compare_parser().parse_args(arguments)
    _print(comparison_text(choose_snapshot(options.A), choose_snapshot(options.B)))


def _default_page(first: Path) -> Path:
    folder = first if first.is_dir() else first.parent
    return folder / "report.html"


def _watch(paths: Sequence[str], page: Path | None, title: str | None, seconds: float, *, open_it: bool) -> None:
    """Render the runs whenever one of them has new results, until all have ended."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    shown: object = None
    with Live(Text("waiting for a first snapshot"), console=Console(), auto_refresh=False) as live:
        while True:
            runs = _runs_so_far(paths)
            ended = bool(runs) and all(run.ended for run in runs)
            state = (ended, [(run.path, len(run.results)) for run in runs])
            if runs and state != shown:
                live.update(Text(render_text(runs)), refresh=True)
                if page is not None:
                    write_report(runs, page, title=title, reload_seconds=None if ended else seconds)
                    if open_it and shown is None:
                        webbrowser.open(page.absolute().as_uri())
                shown = state
            if ended:
                break
            time.sleep(seconds)
    if page is not None:
        _print(f"page: {page}")


def _runs_so_far(paths: Sequence[str]) -> list[RecordedRun]:
    """Return the runs in existing folders; none before the first snapshot."""
    try:
        return find_runs(paths, OFFLINE_READERS)
    except ConfigError:
        if not all(Path(path).expanduser().exists() for path in paths):
            raise
        return []


def _workspace_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lis-report workspace",
        description="Creates a W&B workspace with the sections Curve, Verdict, Slices, Sweep and More.",
    )
    parser.add_argument("--entity", required=True, help="user or team that the project belongs to")
    parser.add_argument("--project", required=True)
    parser.add_argument(
        "--watch", action="append", default=[], metavar="KEY", help="a watched metric to show the worth of; repeatable"
    )
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="write the workspace to a file for manual import, without a network",
    )
    return parser


def _workspace(arguments: Sequence[str]) -> None:
    options = _workspace_parser().parse_args(arguments)
    from lis_lightning.tracking.workspace import workspace_command

    _print(workspace_command(options.entity, options.project, options.json, options.watch))


def _print(text: str) -> None:
    print(text)  # noqa: T201
