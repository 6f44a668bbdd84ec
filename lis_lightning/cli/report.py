"""The command ``lis-report``: the page of runs, the same in a terminal, and the W&B workspace."""

from __future__ import annotations

import argparse
import math
import sys
import time
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from lis_lightning.errors import ConfigError, LisError
from lis_lightning.report.page import write_report
from lis_lightning.report.runs import RecordedRun, find_runs
from lis_lightning.report.terminal import render_text

_DESCRIPTION = """\
Shows what training did for the ranker: is it still improving, how far from the ceiling, stop or go on, and what is the
bottleneck. Reads the records that LISMonitor and lis-align leave (record.jsonl), also of runs that still train or were
killed; runs without a record are read from W&B's offline files. Needs no network, and no W&B.

  lis-report outputs/infonce/2026-11-24_10-00-00     one run: a page beside its record, and a summary here
  lis-report outputs/sweeps/first                    a sweep: curves overlaid, paired differences, leaderboard
  lis-report runs/a runs/b --out compare.html        any runs on one split
  lis-report outputs/infonce/... --watch             while training runs: page and terminal follow it
  lis-report DIR --text                              no page: over ssh
  lis-report workspace --entity me --project mine    a W&B workspace with the same panels
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """RecordedRun ``lis-report``; what is wrong with the input is a message and exit status 1."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        _workspace(given[1:]) if given[:1] == ["workspace"] else _report(given)
    except (LisError, OSError) as error:
        print(f"lis-report: {type(error).__name__}: {error}", file=sys.stderr)  # noqa: T201  # a command's last word
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lis-report", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("paths", nargs="+", metavar="DIR", help="folder of a run or a sweep, a record, a run-*.wandb")
    parser.add_argument("--out", type=Path, help="the page; default: report.html in the first folder")
    parser.add_argument("--title", help="heading of the page; default: the names of the runs")
    parser.add_argument("--text", action="store_true", help="print the summary and write no page")
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    parser.add_argument(
        "--watch", nargs="?", type=float, const=10.0, metavar="SECONDS",
        help="look so often (default 10) and show what is new, until every run has ended or Ctrl-C",
    )  # fmt: skip
    return parser


def _report(arguments: Sequence[str]) -> None:
    told = _parser().parse_args(arguments)
    if told.watch is not None and not 0 < told.watch < math.inf:
        raise ConfigError(f"--watch takes seconds above 0, got {told.watch:g}.")
    if told.out is not None and told.out.is_dir():
        raise ConfigError(f"--out names the page, but {told.out} is a folder; give {told.out / 'report.html'}.")
    page = None if told.text else told.out or _default_page(Path(told.paths[0]))
    if told.watch is not None:
        _watch(told.paths, page, told.title, told.watch, open_it=told.open)
        return
    runs = find_runs(told.paths)
    _say(render_text(runs))
    if page is not None:
        write_report(runs, page, title=told.title)
        _say(f"\npage: {page}")
        if told.open:
            webbrowser.open(page.absolute().as_uri())


def _default_page(first: Path) -> Path:
    return (first if first.is_dir() else first.parent) / "report.html"


def _watch(paths: Sequence[str], page: Path | None, title: str | None, seconds: float, *, open_it: bool) -> None:
    """Show the runs anew whenever one of them has changed, until all have ended."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    shown: object = None
    with Live(Text("waiting for a first snapshot"), console=Console(), auto_refresh=False) as live:
        while True:
            runs = _found(paths)
            over = bool(runs) and all(run.ended for run in runs)
            if runs and (state := (over, [(run.path, len(run.results)) for run in runs])) != shown:
                live.update(Text(render_text(runs)), refresh=True)
                if page is not None:
                    write_report(runs, page, title=title, reload_seconds=None if over else seconds)
                    if open_it and shown is None:
                        webbrowser.open(page.absolute().as_uri())
                shown = state
            if over:
                break
            time.sleep(seconds)
    if page is not None:
        _say(f"page: {page}")


def _found(paths: Sequence[str]) -> list[RecordedRun]:
    """Return the runs there are; none while the folder exists and no snapshot has been taken."""
    try:
        return find_runs(paths)
    except ConfigError:
        if not all(Path(path).expanduser().exists() for path in paths):
            raise
        return []


def _workspace_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lis-report workspace",
        description="Makes a W&B workspace with the sections Verdict, Curve, Slices, Companions, Cost and Sweep.",
    )
    parser.add_argument("--entity", required=True, help="user or team that the project belongs to")
    parser.add_argument("--project", required=True)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write it to a file, for import by hand; no network")
    return parser


def _workspace(arguments: Sequence[str]) -> None:
    told = _workspace_parser().parse_args(arguments)
    from lis_lightning.tracking.workspace import workspace_command

    _say(workspace_command(told.entity, told.project, told.json))


def _say(text: str) -> None:
    print(text)  # noqa: T201  # a command
