"""Trainings in bf16-mixed with and without monitors: the same bits."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from dataclasses import replace

import torch

from tests.gpu.row import Row
from tests.identity.cases import CASES, Case, run

NAMES = (
    "all three", "trainable BatchNorm", "accumulation", "gradient clipping", "LoRA", "EMA of the weights",
    "manual optimisation", "two monitors", "scores in the background", "snapshots that fail",
    "buffers written by the encode", "generators of the module", "a generator of the data",
    "metrics and logs in the encode", "lazy, initialised before", "unwrapped optimizer",
)  # fmt: skip
LAST = ("compiled, aot_eager", "compiled, inductor")  # slow: if time runs out, these are missing


def rows(device: str, *, tiny: bool) -> Iterator[Row]:
    """Yield for each kind of training the number of compared states that differ with the monitors: 0."""
    options = {"precision": "bf16-mixed", "deterministic": True}
    names = NAMES[:2] if tiny else NAMES + LAST
    cases = {case.name: case for case in CASES}
    deterministic = torch.are_deterministic_algorithms_enabled()
    try:
        for name in names:
            yield _row(replace(cases[name], options=cases[name].options | options), device)
    finally:
        torch.use_deterministic_algorithms(deterministic)


def _row(case: Case, device: str) -> Row:
    """Return the row of a kind of training; NaN if it raises, so that the others run."""
    what = f"bf16-mixed, {case.name}"
    try:
        outcome = run(case, "gpu" if device == "cuda" else "cpu")
    except Exception as error:
        traceback.print_exc(file=sys.stdout)
        return Row(section="identity", what=what, value=float("nan"), bar=0, note=f"{type(error).__name__}: {error}")
    note = f"differs: {', '.join(outcome.watched) or 'nothing'}; naive callback changes: {', '.join(outcome.naive)}"
    return Row(section="identity", what=what, value=len(outcome.watched), bar=0, note=note)
