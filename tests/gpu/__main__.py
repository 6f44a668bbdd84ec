"""Check and measure on one GPU: ``python -m tests.gpu [--only score|identity|vlm] [--json FILE]``.

Prints one table in less than 7 minutes on one 80 GB card. A section that fails prints its traceback, and the next one
runs. ``--device cpu --tiny`` runs the same code on small inputs without a GPU; its numbers mean nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import logging
import os
import sys
import time
import traceback
import warnings
from pathlib import Path

# cuBLAS is deterministic with it; read when CUDA starts. The cache is off so that everything is computed here.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
os.environ["LIS_CACHE"] = "off"

import pytorch_lightning
import torch
from rich.console import Console
from rich.table import Table

from tests.gpu.row import Row

SECTIONS = ("score", "identity", "vlm")


def main() -> None:
    """Run the sections; leave with 1 if one failed or a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tests.gpu")
    parser.add_argument("--only", action="append", choices=SECTIONS, help="run this section only; may be repeated")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"), help="where to run")
    parser.add_argument("--tiny", action="store_true", help="small inputs, to test the script itself")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to a file too")
    options = parser.parse_args()
    # After the import of Lightning, which sets its level.
    for name in (pytorch_lightning.__name__, "lightning.pytorch", "lightning_fabric", "transformers"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    machine = _machine(options.device)
    _progress(machine)
    rows: list[Row] = []
    failed = []
    for name in options.only or SECTIONS:
        began = time.perf_counter()
        try:
            for row in importlib.import_module(f"tests.gpu.{name}").rows(options.device, tiny=options.tiny):
                _progress(f"{name}: {row.what}: {_value(row)}{'' if row.met is not False else '  MISSED'}  {row.note}")
                rows.append(row)
                _write(options.json, rows)  # at once: a run that is cut short keeps what it has
        except Exception:
            traceback.print_exc(file=sys.stdout)
            failed.append(name)
        rows.append(Row(section=name, what="seconds of the section", value=time.perf_counter() - began, unit="s"))
    _write(options.json, rows)
    Console(width=160).print(_table(rows, machine))
    _progress(f"failed sections: {', '.join(failed) or 'none'}")
    raise SystemExit(bool(failed) or any(row.met is False for row in rows))


def _machine(device: str) -> str:
    """Return the versions and the device in one line."""
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    return f"torch {torch.__version__}, {name}, {torch.get_num_threads()} threads"


def _progress(text: str) -> None:
    print(text, flush=True)


def _value(row: Row) -> str:
    return f"{row.value:.3g} {row.unit}" if row.value < 1000 else f"{row.value:,.0f} {row.unit}"


def _table(rows: list[Row], title: str) -> Table:
    table = Table(title=title)
    for heading in ("section", "what", "value", "bar", "met", "note"):
        table.add_column(heading, justify="right" if heading in {"value", "bar"} else "left")
    for row in rows:
        bar = "" if row.bar is None else f"≤ {row.bar:g}"
        met = {None: "", True: "yes", False: "[bold red]NO[/]"}[row.met]
        table.add_row(row.section, row.what, _value(row), bar, met, row.note)
    return table


def _write(path: Path | None, rows: list[Row]) -> None:
    if path is not None:
        path.write_text(json.dumps([dataclasses.asdict(row) | {"met": row.met} for row in rows], indent=1))


if __name__ == "__main__":
    main()
