"""A pretrained text encoder, trained on MovieLens by sentence-transformers, with LISEvaluator and its stop rule."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import polars as pl
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

from lis_lightning.data import PreferenceSplit
from lis_lightning.hf import LISEarlyStoppingCallback, LISEvaluator


def consecutive_pairs(split: PreferenceSplit, texts: dict[int, str]) -> Dataset:
    """Return the texts of items that a user liked one after the other, from the alignment window alone."""
    liked = split.alignment.filter(pl.col("label") == 1).sort("timestamp", maintain_order=True)
    following = pl.col("item_id").shift(-1).over("user_id").alias("next_id")
    pairs = liked.select("item_id", following).drop_nulls().unique(maintain_order=True)
    anchors = [texts[item] for item in pairs["item_id"]]
    positives = [texts[item] for item in pairs["next_id"]]
    return Dataset.from_dict({"anchor": anchors, "positive": positives})


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="sentence-transformers/all-MiniLM-L6-v2", help="hub id, or a folder")
    parser.add_argument("--folder", type=Path, help="MovieLens with posters; default: $LIS_DATA/ml100k_mm")
    parser.add_argument("--out", type=Path, default=Path("outputs/minilm/evaluator"), help="where the run goes")
    parser.add_argument("--steps", type=int, default=200, help="planned optimizer steps")
    parser.add_argument("--every", type=int, default=20, help="optimizer steps between evaluations")
    parser.add_argument("--batch-size", type=int, default=32, help="pairs")
    parser.add_argument("--learning-rate", type=float, default=2e-5, help="the highest")
    parser.add_argument("--max-tokens", type=int, default=48, help="of a text")
    args = parser.parse_args(arguments)
    folder = args.folder or Path(os.environ["LIS_DATA"], "ml100k_mm")
    began = time.perf_counter()

    split = PreferenceSplit.from_log(folder / "interactions.parquet", label=("rating", 4))
    items = pl.read_parquet(folder / "items.parquet")
    texts = dict(zip(items["item_id"], items["text"], strict=True))
    pairs = consecutive_pairs(split, texts)
    # The weights of the file may be in half precision, in which small steps change nothing.
    model = SentenceTransformer(str(args.model), model_kwargs={"dtype": torch.float32})
    model.max_seq_length = args.max_tokens

    evaluator = LISEvaluator(split, texts, cache_dir=args.out / "cache")
    training_arguments = SentenceTransformerTrainingArguments(
        str(args.out), max_steps=args.steps, per_device_train_batch_size=args.batch_size,
        learning_rate=args.learning_rate, warmup_steps=0.1, eval_strategy="steps", eval_steps=args.every,
        eval_on_start=True, save_strategy="steps", save_steps=args.every, save_total_limit=1,
        metric_for_best_model="eval_lis_ais", load_best_model_at_end=True, report_to="none", disable_tqdm=True,
        logging_steps=args.every,
    )  # fmt: skip
    trainer = SentenceTransformerTrainer(
        model, training_arguments, train_dataset=pairs, loss=MultipleNegativesRankingLoss(model),
        evaluator=evaluator, callbacks=[LISEarlyStoppingCallback(evaluator)],
    )  # fmt: skip
    trainer.train()

    print(f"\n{len(pairs):,} pairs of {len(texts):,} texts")
    for result in evaluator.results:
        print(f"{result.step:6} {result.ais:+.4f} [{result.ais_low:+.4f}, {result.ais_high:+.4f}] {result.verdict}")
    best = evaluator.best
    if best is not None:
        print(f"headroom at step {best.step} {best.headroom:+.4f}")
    print(f"stopped at step {trainer.state.global_step} of {args.steps}: {evaluator.reason or 'the plan ended'}")
    print(f"best checkpoint {Path(trainer.state.best_model_checkpoint or '').name}, which is loaded")
    print(f"{(time.perf_counter() - began) / 60:.1f} minutes; record {evaluator.record_path}")


if __name__ == "__main__":
    main()
