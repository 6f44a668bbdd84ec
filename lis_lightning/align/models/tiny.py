"""A tiny LLaVA with random weights, on disk as any other: what `model=tiny` trains where no real one can be had."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from lis_lightning.align.data.folders import build_once

_FORMAT = 2  # raise it when the same arguments give another model
_IMAGE_TOKEN = "<image>"  # noqa: S105
_SPECIAL_TOKENS = ("<pad>", "<s>", "</s>", _IMAGE_TOKEN)


def make_tiny_vlm(
    folder: Path | str,
    texts: Sequence[str],
    *,
    seed: int = 0,
    image_size: int = 48,
    patch_size: int = 12,
    width: int = 64,
    num_layers: int = 2,
    num_heads: int = 4,
    vocabulary: int = 2048,
) -> Path:
    """Return a folder with a tiny LLaVA and its processor, made now or found as made before.

    It is read by `AutoModelForImageTextToText.from_pretrained` and `AutoProcessor.from_pretrained` like a model of
    seven billion parameters: a CLIP vision tower, a projector, a Llama, and a byte-level BPE tokenizer trained on the
    texts. The weights are random; only the architecture is real.

    Args:
        folder: Where such models are kept; each lies in a folder of its own, named after its content.
        texts: What the tokenizer is trained on.
        seed: Of the weights. The global generators are left as they were.
        image_size: Side of the square that images are scaled to, in pixels.
        patch_size: Side of a patch, in pixels; `(image_size / patch_size) ** 2` image tokens.
        width: Of both transformers.
        num_layers: Of each transformer.
        num_heads: Of each transformer; divides `width`.
        vocabulary: Most tokens that the tokenizer may have, from 260.

    Returns:
        The folder of this model.
    """
    sizes = {
        "seed": seed,
        "image_size": image_size,
        "patch_size": patch_size,
        "width": width,
        "num_layers": num_layers,
        "num_heads": num_heads,
        "vocabulary": vocabulary,
    }
    content = json.dumps([_FORMAT, sizes, list(texts)], sort_keys=True)
    name = f"tiny-llava-{hashlib.sha256(content.encode()).hexdigest()[:12]}"

    def build(draft: Path) -> None:
        processor = _processor(train_tokenizer(texts, vocabulary), image_size, patch_size)
        config = _config(processor.tokenizer, image_size, patch_size, width, num_layers, num_heads)
        with quiet_transformers():
            _model(config, seed).save_pretrained(draft)
            processor.save_pretrained(draft)

    return build_once(Path(folder).expanduser() / name, build)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Hide transformers' progress bars, which a model of a megabyte does not need."""
    logging = hugging_face().utils.logging
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def hugging_face() -> Any:
    """Return the module transformers, imported late (seconds), and as Any: much of it has no annotations."""
    import transformers

    return transformers


def train_tokenizer(texts: Sequence[str], vocabulary: int) -> Any:
    """Return a byte-level BPE tokenizer trained on the texts, which has a token for every byte."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
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


def _processor(tokenizer: Any, image_size: int, patch_size: int) -> Any:
    square = {"height": image_size, "width": image_size}
    images = hugging_face().CLIPImageProcessorPil(  # the one that needs no torchvision
        size=square, crop_size=square, do_center_crop=False, image_mean=[0.5] * 3, image_std=[0.25] * 3
    )
    return hugging_face().LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=patch_size,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token=_IMAGE_TOKEN,
    )


def _config(tokenizer: Any, image_size: int, patch_size: int, width: int, num_layers: int, num_heads: int) -> Any:
    hf = hugging_face()
    shape = {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": num_layers,
        "num_attention_heads": num_heads,
    }
    return hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(**shape, image_size=image_size, patch_size=patch_size),
        text_config=hf.LlamaConfig(
            **shape,
            vocab_size=len(tokenizer),
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        ),
        image_token_index=tokenizer.convert_tokens_to_ids(_IMAGE_TOKEN),
        image_seq_length=(image_size // patch_size) ** 2,
        vision_feature_layer=-1,
        tie_word_embeddings=True,
    )


def _model(config: Any, seed: int) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return hugging_face().LlavaForConditionalGeneration(config)
