"""A pretrained text encoder with low-rank adapters on MovieLens: texts alone, and with image features joined."""

from __future__ import annotations

import argparse
import resource
import sys
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import CSVLogger

from lis_lightning.align.data import load_movielens
from lis_lightning.align.models import TextEncoder, Tuning
from lis_lightning.align.objectives import PairContrastive
from lis_lightning.align.training import Monitoring, Run, align
from lis_lightning.errors import LisError

IMAGES = "image_efficientnet_lite0"  # a .npy file in the folder, one row an item


def fine_tune(args: argparse.Namespace, *, fused: bool) -> Run:
    """Fine-tune on pairs of items that users liked one after the other, and score on the way."""
    run_dir = args.out / ("fused" if fused else "texts")
    run_dir.mkdir(parents=True, exist_ok=True)
    encoder = partial(
        TextEncoder.from_items, cache_dir=args.out / "cache", model=args.model, features=fused, max_text_tokens=48,
        tuning=Tuning("lora"),
    )  # fmt: skip
    trainer = partial(
        pl.Trainer, max_steps=args.steps, max_epochs=-1, accelerator=args.accelerator, gradient_clip_val=1.0,
        log_every_n_steps=10, enable_model_summary=False, enable_progress_bar=False,
    )  # fmt: skip
    return align(
        load_movielens(args.folder, features=[IMAGES] if fused else None, on_bad_image="blank"),
        encoder,
        trainer=trainer,
        loggers=lambda: [CSVLogger(run_dir)],
        objectives={"pairs": PairContrastive()},
        regularisers={},
        training={
            "batch_size": args.batch_size,
            "learning_rate": args.learning_rate,
            "backbone_learning_rate": args.learning_rate,
        },
        split_options={},
        monitoring=Monitoring(every_n_steps=args.every, encode_batch_size=64),
        run_dir=run_dir,
        cache_dir=args.out / "cache",
        seed=args.seed,
    )


def curve(run: Run) -> str:
    """Return a run's AIS by step, and what the best of it is worth."""
    lines = [f"{one.step:6} {one.ais:+.4f} [{one.ais_low:+.4f}, {one.ais_high:+.4f}]" for one in run.results]
    limit = run.best.ceiling
    share = f"{run.best.realised:.0%}" if run.best.realised == run.best.realised else "no clear share"
    return "\n".join(
        [
            *lines,
            f"headroom at step {run.best.step} {run.best.headroom:+.4f}; LIS, an estimate, {limit.value:+.4f}; "
            f"realised {share}",
            f"verdict {run.results[-1].verdict}",
        ]
    )


def peak_gigabytes() -> float:
    """Return the most memory that this process has held so far."""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="sentence-transformers/all-MiniLM-L6-v2", help="hub id, or a folder")
    parser.add_argument("--folder", type=Path, help="MovieLens with posters; default: $LIS_DATA/ml100k_mm")
    parser.add_argument("--out", type=Path, default=Path("outputs/minilm"), help="where the runs go")
    parser.add_argument("--steps", type=int, default=60, help="optimizer steps")
    parser.add_argument("--every", type=int, default=20, help="optimizer steps between snapshots")
    parser.add_argument("--batch-size", type=int, default=32, help="pairs")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="the highest, of head and adapters")
    parser.add_argument("--accelerator", default="auto", help="of the Trainer")
    parser.add_argument("--seed", type=int, default=0, help="of weights and batches")
    args = parser.parse_args(arguments)
    warnings.filterwarnings("ignore", message=".*does not have many workers")
    curves: dict[str, Any] = {}
    for name, fused in (("texts", False), ("texts and images", True)):
        began = time.perf_counter()
        try:
            run = fine_tune(args, fused=fused)
        except LisError as error:
            raise SystemExit(f"minilm.py: {type(error).__name__}: {error}") from None
        minutes = (time.perf_counter() - began) / 60
        curves[name] = f"{curve(run)}\n{minutes:.1f} minutes; peak memory so far {peak_gigabytes():.2f} GB"
    print("\n".join(f"\n{name}\n{text}" for name, text in curves.items()))


if __name__ == "__main__":
    main()
