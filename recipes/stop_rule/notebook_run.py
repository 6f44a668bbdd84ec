"""The run of the first notebook, scored every 2, 4, 8 and 25 steps: `python notebook_run.py`, from a checkout."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import polars as pl

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "1-add-to-your-trainer.ipynb"
INTERVAL = 25  # steps between the snapshots of the notebook
LAST_CELL = "def make_trainer"


def setup_code() -> str:
    """Return the notebook's code up to its trainer, module and loader."""
    code = []
    for cell in json.loads(NOTEBOOK.read_text())["cells"]:
        if cell["cell_type"] == "code":
            code.append("".join(cell["source"]))
            if LAST_CELL in code[-1]:
                break
    return "\n".join(code)


def scored_every(interval: int, max_steps: int) -> dict[str, Any]:
    """Train as the notebook does, with a snapshot every so many steps, until the rule stops the run.

    Args:
        interval: Optimizer steps between snapshots.
        max_steps: Planned steps.

    Returns:
        A row of the table.
    """
    code = setup_code().replace(f"every_n_steps={INTERVAL}", f"every_n_steps={interval}")
    code = code.replace(f"every_n_train_steps={INTERVAL}", f"every_n_train_steps={interval}")
    scope: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()):
        exec(code, scope)  # noqa: S102  # the code of the notebook in this checkout
        trainer, monitor, stopping = scope["make_trainer"](max_steps)
        trainer.fit(scope["make_module"](), scope["loader"])
    best = monitor.best
    return {
        "every": interval, "snapshots": len(monitor.results), "stopped at": monitor.results[-1].step,
        "best step": best.step, "best AIS": round(best.ais, 4), "verdict": stopping.verdict,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, nargs="+", default=(2, 4, 8, 25))
    parser.add_argument("--max-steps", type=int, default=600)
    args = parser.parse_args()
    os.environ.setdefault("MPLBACKEND", "agg")
    rows = [scored_every(interval, args.max_steps) for interval in args.every]
    plain = {"tbl_formatting": "MARKDOWN", "tbl_hide_column_data_types": True, "tbl_hide_dataframe_shape": True}
    with pl.Config(tbl_cols=-1, **plain):
        print(pl.DataFrame(rows))


if __name__ == "__main__":
    main()
