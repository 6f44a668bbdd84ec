"""Train with and without a monitor, and print what is the same to the bit: ``python -m tests.identity [--fast]``.

Each row is a kind of training. ``=`` says that weights, optimizer states, modes of the submodules, and at every step
the random states and the batches are those of the training without a monitor. The last column says what a naive
callback (``eval()``, encode, ``train()``) changes in the same training.
"""

from __future__ import annotations

import argparse
import logging
import warnings

from rich.console import Console
from rich.table import Table

from tests.identity.cases import CASES, run


def main() -> None:
    """Print the table; leave with 1 if a monitor changed anything, or the naive callback nothing."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tests.identity")
    parser.add_argument("--fast", action="store_true", help="leave out what takes long, as the default tests do")
    parser.add_argument("--accelerator", default="cpu", choices=["cpu", "gpu"], help="where to train")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    for name in ("pytorch_lightning", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    table, good = None, True
    for case in CASES:
        if case.slow and options.fast:
            continue
        outcome = run(case, options.accelerator)
        if table is None:
            table = Table("training", *outcome.compared, "snapshots", "a naive callback changes", title="Identity")
        marks = ["[bold red]≠[/]" if name in outcome.watched else "=" for name in outcome.compared]
        naive = ", ".join(outcome.naive) or "[bold red]nothing[/]"
        table.add_row(case.name, *marks, "fail" if outcome.snapshots < 0 else str(outcome.snapshots), naive)
        good = good and bool(outcome.naive) and not outcome.watched and outcome.snapshots != 0
    Console(width=150).print(table)
    raise SystemExit(not good)


if __name__ == "__main__":
    main()
