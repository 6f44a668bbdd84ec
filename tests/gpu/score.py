"""The score on CUDA against the score on the CPU, and its time and memory."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch

from lis_lightning.results.result import LISResult
from lis_lightning.scoring.options import ScoreOptions
from lis_lightning.scoring.scorer import Scorer
from tests.benchmarks.score import made
from tests.gpu.row import Row

NUMBERS = ("ais", "ais_geometry", "auc", "auc_base", "gauc_gain", "ais_seen", "ais_unseen", "ais_low", "ais_high")
TOLERANCE = 1e-5


def rows(device: str, *, tiny: bool) -> Iterator[Row]:
    """Yield the largest difference of any number of a result by precision, then time and memory at two sizes."""
    small, large = ((2_000, 300), (4_000, 500)) if tiny else ((50_000, 20_000), (1_000_000, 100_000))
    scorer, vectors = _scorer(*small)
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        reference, other = (_score(scorer, vectors.to(dtype).to(where)) for where in ("cpu", device))
        yield _difference(f"CUDA - CPU, {dtype}", reference, other)
    yield from _reduced_precision(scorer, vectors, device)
    yield from _cost(scorer, vectors, device, small)
    scorer, vectors = _scorer(*large)
    yield _difference(f"CUDA - CPU, {_size(large)}", _score(scorer, vectors), _score(scorer, vectors.to(device)))
    yield from _cost(scorer, vectors, device, large)


def _scorer(num_events: int, num_items: int) -> tuple[Scorer, torch.Tensor]:
    split, vectors = made(num_events, num_items)
    scorer = Scorer(split)
    _ = scorer.base_ranker  # computed once a split, not part of a score
    return scorer, vectors


def _score(scorer: Scorer, vectors: torch.Tensor) -> LISResult:
    return scorer.score(vectors, ScoreOptions(ceilings=(), placebo=False))


def _difference(what: str, reference: LISResult, other: LISResult) -> Row:
    """Return the largest difference of the numbers of two results."""
    differences = {name: abs(getattr(reference, name) - getattr(other, name)) for name in NUMBERS}
    worst = max(differences, key=lambda name: differences[name])
    note = f"largest in {worst}; AIS {reference.ais:.6f} on the CPU"
    return Row(section="score", what=what, value=differences[worst], bar=TOLERANCE, note=note)


def _reduced_precision(scorer: Scorer, vectors: torch.Tensor, device: str) -> Iterator[Row]:
    """Yield the difference under the matmul precision and the autocast that a training may have set."""
    reference = _score(scorer, vectors)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        yield _difference("CUDA - CPU, matmul precision 'medium'", reference, _score(scorer, vectors.to(device)))
    finally:
        torch.set_float32_matmul_precision(before)
    with torch.autocast(device, torch.bfloat16):
        yield _difference("CUDA - CPU, under bf16 autocast", reference, _score(scorer, vectors.to(device)))


def _cost(scorer: Scorer, vectors: torch.Tensor, device: str, size: tuple[int, int]) -> Iterator[Row]:
    """Yield seconds of a score on the CPU and on the device, and the device memory that it adds."""
    for where in ("cpu", device):
        moved = vectors.to(where)
        _start_memory(where)
        # Twice: the first score on a device loads kernels and moves the split.
        best = min(_seconds(scorer, moved) for _ in range(2))
        note = (
            f"{torch.get_num_threads()} threads" if where == "cpu" else f"peak memory + {_added_memory(where):.2f} GiB"
        )
        yield Row(section="score", what=f"score, {_size(size)}, {where}", value=best, unit="s", note=note)


def _seconds(scorer: Scorer, vectors: torch.Tensor) -> float:
    began = time.perf_counter()
    _score(scorer, vectors)  # its result is on the CPU, so everything before it is finished
    return time.perf_counter() - began


def _start_memory(device: str) -> None:
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()


def _added_memory(device: str) -> float:
    if device != "cuda":
        return float("nan")
    return (torch.cuda.max_memory_allocated() - torch.cuda.memory_allocated()) / 2**30


def _size(size: tuple[int, int]) -> str:
    events, items = size
    return f"{events:,} events x {items:,} items x 1024"
