"""Tiny models with random weights for each kind of encoder, as used by ``model=tiny``; nothing is downloaded.

Each is a folder written by `save_pretrained`, and is loaded like any other model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from lis_lightning.align.data.folders import build_once
from lis_lightning.align.models.hugging_face import hugging_face, quiet_transformers

_FORMAT = 1  # increase it when the same arguments give another model
_IMAGE_TOKEN = "<image>"  # noqa: S105
_SPECIAL_TOKENS = ("<pad>", "<s>", "</s>", _IMAGE_TOKEN)
_VOCABULARY = 2048
_TOKENS = 64
_IMAGE = {"image_size": 48, "patch_size": 12}
_SHAPE = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
_NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}  # noise would exceed the signal

Parts = tuple[Callable[[], Any], Any]
"""A function that makes the model, and the processor."""


def make_tiny_vlm(folder: Path | str, texts: Sequence[str], *, seed: int = 0) -> Path:
    """Return a folder with a tiny LLaVA and its processor; make it unless it exists.

    A CLIP vision tower, a projector, a Llama, and a byte-level BPE tokenizer trained on the texts. 48 x 48 pixels are
    16 image tokens.

    Args:
        folder: Folder of all tiny models; see :func:`make_tiny`.
        texts: Texts to train the tokenizer on.
        seed: Seed of the weights.
    """

    def parts() -> Parts:
        hf = hugging_face()
        tokenizer = train_tokenizer(texts)
        config = hf.LlavaConfig(
            vision_config=hf.CLIPVisionConfig(**_SHAPE, **_IMAGE),
            text_config=hf.LlamaConfig(**_SHAPE, **_special_ids(tokenizer), vocab_size=len(tokenizer)),
            image_token_index=tokenizer.convert_tokens_to_ids(_IMAGE_TOKEN),
            image_seq_length=(_IMAGE["image_size"] // _IMAGE["patch_size"]) ** 2,
            vision_feature_layer=-1,
            tie_word_embeddings=True,
        )
        processor = hf.LlavaProcessor(
            image_processor=_image_processor("CLIP"),
            tokenizer=tokenizer,
            patch_size=_IMAGE["patch_size"],
            vision_feature_select_strategy="default",
            num_additional_image_tokens=1,
            image_token=_IMAGE_TOKEN,
        )
        return lambda: hf.LlavaForConditionalGeneration(config), processor

    return make_tiny(folder, "llava", parts, texts, seed=seed)


def make_tiny_text(folder: Path | str, texts: Sequence[str], *, seed: int = 0) -> Path:
    """Return a folder with a tiny BERT and its tokenizer; make it unless it exists.

    Args:
        folder: Folder of all tiny models; see :func:`make_tiny`.
        texts: Texts to train the tokenizer on.
        seed: Seed of the weights.
    """

    def parts() -> Parts:
        hf = hugging_face()
        tokenizer = sequence_tokenizer(texts)
        config = hf.BertConfig(
            **_SHAPE,
            **_NO_DROPOUT,
            vocab_size=len(tokenizer),
            max_position_embeddings=4 * _TOKENS,
            pad_token_id=tokenizer.pad_token_id,
        )
        return lambda: hf.BertModel(config, add_pooling_layer=False), tokenizer

    return make_tiny(folder, "bert", parts, texts, seed=seed)


def make_tiny_dual(folder: Path | str, texts: Sequence[str], *, seed: int = 0) -> Path:
    """Return a folder with a tiny CLIP and its processor; make it unless it exists.

    Args:
        folder: Folder of all tiny models; see :func:`make_tiny`.
        texts: Texts to train the tokenizer on.
        seed: Seed of the weights.
    """

    def parts() -> Parts:
        hf = hugging_face()
        tokenizer = sequence_tokenizer(texts)
        text_config = {**_SHAPE, **_special_ids(tokenizer), "max_position_embeddings": _TOKENS}
        config = hf.CLIPConfig(
            text_config={**text_config, "vocab_size": len(tokenizer)},
            vision_config={**_SHAPE, **_IMAGE},
            projection_dim=_SHAPE["hidden_size"],
        )
        return lambda: hf.CLIPModel(config), hf.CLIPProcessor(_image_processor("CLIP"), tokenizer)

    return make_tiny(folder, "clip", parts, texts, seed=seed)


def make_tiny_vision(folder: Path | str, *, seed: int = 0) -> Path:
    """Return a folder with a tiny ViT and its image processor; make it unless it exists.

    Args:
        folder: Folder of all tiny models; see :func:`make_tiny`.
        seed: Seed of the weights.
    """

    def parts() -> Parts:
        hf = hugging_face()
        config = hf.ViTConfig(**_SHAPE, **_NO_DROPOUT, **_IMAGE)
        return lambda: hf.ViTModel(config, add_pooling_layer=False), _image_processor("ViT")

    return make_tiny(folder, "vit", parts, (), seed=seed)


def make_tiny(
    folder: Path | str, family: str, parts: Callable[[], Parts], texts: Sequence[str], *, seed: int = 0
) -> Path:
    """Return a folder with a model and its processor; make it unless it exists.

    Args:
        folder: Folder of all tiny models; each is in a sub-folder named after its content.
        family: Name of the architecture, for the name of the sub-folder.
        parts: Returns a function that makes the model, and the processor.
        texts: Texts that the model depends on.
        seed: Seed of the weights. The global random generators are not changed.
    """
    content = json.dumps([_FORMAT, seed, list(texts)])
    name = f"tiny-{family}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"

    def build(draft: Path) -> None:
        make_model, processor = parts()
        with quiet_transformers(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            make_model().save_pretrained(draft)
            processor.save_pretrained(draft)

    return build_once(Path(folder).expanduser() / name, build)


def train_tokenizer(texts: Sequence[str]) -> Any:
    """Return a byte-level BPE tokenizer trained on the texts; it has a token for every byte."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=list(_SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    pad, begin, end, image = _SPECIAL_TOKENS
    return hugging_face().PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=pad,
        bos_token=begin,
        eos_token=end,
        extra_special_tokens={"image_token": image},
    )


def sequence_tokenizer(texts: Sequence[str]) -> Any:
    """Return a tokenizer as :func:`train_tokenizer` that also marks the beginning and the end of every text."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = train_tokenizer(texts)
    begin, end = tokenizer.bos_token, tokenizer.eos_token
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{begin} $A {end}",
        special_tokens=[(begin, tokenizer.bos_token_id), (end, tokenizer.eos_token_id)],
    )
    tokenizer.model_max_length = _TOKENS
    return tokenizer


def _special_ids(tokenizer: Any) -> dict[str, int]:
    return {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}


def _image_processor(family: str) -> Any:
    """Return an image processor that needs no torchvision and crops nothing."""
    side = _IMAGE["image_size"]
    square = {"height": side, "width": side}
    options: dict[str, Any] = {"size": square, "image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    if family == "CLIP":
        options |= {"crop_size": square, "do_center_crop": False}
    return getattr(hugging_face(), f"{family}ImageProcessorPil")(**options)
