"""Tiny text, image and dual encoders with random weights, on disk as any other: what `model=tiny` trains there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from lis_lightning.align.data.folders import build_once
from lis_lightning.align.models.tiny import hugging_face, quiet_transformers, train_tokenizer

_FORMAT = 1  # raise it when the same arguments give another model
_VOCABULARY = 2048
_TOKENS = 64
_IMAGE = {"image_size": 48, "patch_size": 12}
_SHAPE = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
_NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}  # it would be most of the signal


def make_tiny_text(folder: Path | str, texts: Sequence[str], *, seed: int = 0) -> Path:
    """Return a folder with a tiny BERT and its tokenizer, made now or found as made before.

    Args:
        folder: Where such models are kept; each lies in a folder of its own, named after its content.
        texts: What the tokenizer is trained on.
        seed: Of the weights. The global generators are left as they were.
    """

    def parts() -> tuple[Any, Any]:
        hf = hugging_face()
        tokenizer = _sequence_tokenizer(texts)
        config = hf.BertConfig(
            **_SHAPE,
            **_NO_DROPOUT,
            vocab_size=len(tokenizer),
            max_position_embeddings=4 * _TOKENS,
            pad_token_id=tokenizer.pad_token_id,
        )
        return lambda: hf.BertModel(config, add_pooling_layer=False), tokenizer

    return _make(folder, "bert", parts, seed, texts)


def make_tiny_dual(folder: Path | str, texts: Sequence[str], *, seed: int = 0) -> Path:
    """Return a folder with a tiny CLIP and its processor, made now or found as made before.

    Args:
        folder: Where such models are kept; each lies in a folder of its own, named after its content.
        texts: What the tokenizer is trained on.
        seed: Of the weights. The global generators are left as they were.
    """

    def parts() -> tuple[Any, Any]:
        hf = hugging_face()
        tokenizer = _sequence_tokenizer(texts)
        special = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
        config = hf.CLIPConfig(
            text_config={**_SHAPE, **special, "vocab_size": len(tokenizer), "max_position_embeddings": _TOKENS},
            vision_config={**_SHAPE, **_IMAGE},
            projection_dim=_SHAPE["hidden_size"],
        )
        return lambda: hf.CLIPModel(config), hf.CLIPProcessor(_image_processor("CLIP"), tokenizer)

    return _make(folder, "clip", parts, seed, texts)


def make_tiny_vision(folder: Path | str, *, seed: int = 0) -> Path:
    """Return a folder with a tiny ViT and its image processor, made now or found as made before.

    Args:
        folder: Where such models are kept; each lies in a folder of its own, named after its content.
        seed: Of the weights. The global generators are left as they were.
    """

    def parts() -> tuple[Any, Any]:
        hf = hugging_face()
        config = hf.ViTConfig(**_SHAPE, **_NO_DROPOUT, **_IMAGE)
        return lambda: hf.ViTModel(config, add_pooling_layer=False), _image_processor("ViT")

    return _make(folder, "vit", parts, seed, ())


def _make(
    folder: Path | str, family: str, parts: Callable[[], tuple[Any, Any]], seed: int, texts: Sequence[str]
) -> Path:
    content = json.dumps([_FORMAT, seed, list(texts)])
    name = f"tiny-{family}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"

    def build(draft: Path) -> None:
        model, processor = parts()
        with quiet_transformers(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model().save_pretrained(draft)
            processor.save_pretrained(draft)

    return build_once(Path(folder).expanduser() / name, build)


def _sequence_tokenizer(texts: Sequence[str]) -> Any:
    """Return a tokenizer that begins and ends every text with a token of its own."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = train_tokenizer(texts, _VOCABULARY)
    begin, end = tokenizer.bos_token, tokenizer.eos_token
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{begin} $A {end}",
        special_tokens=[(begin, tokenizer.bos_token_id), (end, tokenizer.eos_token_id)],
    )
    tokenizer.model_max_length = _TOKENS
    return tokenizer


def _image_processor(family: str) -> Any:
    """Return an image processor that needs no torchvision and cuts nothing away."""
    side = _IMAGE["image_size"]
    square = {"height": side, "width": side}
    options: dict[str, Any] = {"size": square, "image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    if family == "CLIP":
        options |= {"crop_size": square, "do_center_crop": False}
    return getattr(hugging_face(), f"{family}ImageProcessorPil")(**options)
