"""A small training by sentence-transformers' Trainer: words of items, pulled together in pairs, through dropout."""

from __future__ import annotations

import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.base.evaluation import BaseEvaluator
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.modules import Dense, Dropout, StaticEmbedding
from tokenizers import Tokenizer, models

from lis_lightning.hf import LISEvaluator
from tests._helpers.small_run import NUM_ITEMS, contents

TEXTS = {item: f"item{item}" for item in range(NUM_ITEMS)}
NEAREST = (contents() @ contents().T).fill_diagonal_(-torch.inf).argmax(dim=1).tolist()
PAIRS = {"anchor": [TEXTS[item] for item in TEXTS], "positive": [TEXTS[NEAREST[item]] for item in TEXTS]}


def model_of():
    torch.manual_seed(7)
    words = Tokenizer(models.WordLevel({text: item for item, text in TEXTS.items()}, unk_token=TEXTS[0]))
    modules = [StaticEmbedding(words, embedding_dim=8), Dropout(0.2), Dense(8, 8)]
    return SentenceTransformer(modules=modules, device="cpu")


class Nothing(BaseEvaluator):
    """Evaluates nothing: an evaluation as such draws a random number."""

    def __call__(self, model, output_path=None, epoch=-1, steps=-1):
        return {}


def trainer_of(folder, evaluator=None, callbacks=(), steps=8, **options):
    options = {"eval_strategy": "steps", "eval_steps": 2, "eval_on_start": True, "save_strategy": "no"} | options
    arguments = SentenceTransformerTrainingArguments(
        str(folder), max_steps=steps, per_device_train_batch_size=8, learning_rate=3e-2, use_cpu=True,
        disable_tqdm=True, logging_steps=1, report_to="none", **options,
    )  # fmt: skip
    model = model_of()
    return SentenceTransformerTrainer(
        model, arguments, train_dataset=Dataset.from_dict(PAIRS), loss=MultipleNegativesRankingLoss(model),
        evaluator=evaluator or Nothing(), callbacks=list(callbacks),
    )  # fmt: skip


def evaluator_of(split, **options):
    quick = {"placebo": False, "ceilings": (), "progress": False, "batch_size": 7}
    return LISEvaluator(split, options.pop("inputs", TEXTS), **quick | options)
