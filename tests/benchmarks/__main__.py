"""Measure everything that has a bar, and print one table: ``python -m tests.benchmarks [--only auc] [--json FILE]``.

Every other module of this folder but ``row`` offers ``rows()``. All times of a row are taken in one
process, in turns, on two threads: the ratios carry over to other machines, the seconds do not.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from tests.benchmarks.row import Row

THREADS = 2
MODULES = sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py") if path.stem not in {"conftest", "row"})


def measure(names: Iterable[str]) -> Iterator[Row]:
    """Yield the rows of some modules."""
    for name in names:
        yield from importlib.import_module(f"tests.benchmarks.{name}").rows()


def render(rows: Iterable[Row]) -> Table:
    """Return the rows as a table; a bar that is missed stands out."""
    table = Table(title=f"Benchmarks, {THREADS} threads")
    for heading in ("what", "ours", "other", "ratio", "bar", "met"):
        table.add_column(heading, justify="left" if heading in {"what", "met"} else "right")
    for row in rows:
        other = "" if row.other is None else f"{_amount(row.other)} {row.unit} ({row.against})"
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        sign = "≥" if row.kind == "peer" else "≤"
        bar = "" if row.bar is None else f"{sign} {row.bar:g}{f' {row.unit}' if row.kind == 'limit' else ''}"
        met = {None: "", True: "[green]yes[/]", False: "[bold red]NO[/]"}[row.met]
        table.add_row(row.what, f"{_amount(row.ours)} {row.unit}", other, ratio, bar, met)
    return table


def _amount(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def main() -> None:
    """Run what was asked for; leave with 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tests.benchmarks")
    parser.add_argument("--only", action="append", choices=MODULES, help="run this module only; may be repeated")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to a file too")
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    os.environ["LIS_CACHE"] = "off"  # what lies on disk takes no time
    rows = list(measure(options.only or MODULES))
    Console().print(render(rows))
    if options.json:
        described = [dataclasses.asdict(row) | {"ratio": row.ratio, "met": row.met} for row in rows]
        options.json.write_text(json.dumps(described, indent=1))
    raise SystemExit(any(row.met is False for row in rows))


if __name__ == "__main__":
    main()
