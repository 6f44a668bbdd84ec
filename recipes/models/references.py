"""Vectors that encoders should give: from batches that the model's own processor made, pooled by a few plain lines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from lis_lightning.align.data import ItemTable
from lis_lightning.align.models import PretrainedEncoder

Reference = Callable[[PretrainedEncoder, ItemTable], Tensor]


def _masked_mean(states: Tensor, mask: Tensor) -> Tensor:
    return (states * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)


def texts(encoder: PretrainedEncoder, items: ItemTable) -> Tensor:
    options = {"padding": True, "truncation": encoder.max_tokens is not None, "max_length": encoder.max_tokens}
    batch = encoder.processor(list(items.texts), **options, return_tensors="pt")
    return _masked_mean(encoder.model(**batch).last_hidden_state, batch["attention_mask"])


def sentences(encoder: PretrainedEncoder, items: ItemTable) -> Tensor:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(encoder.model.name_or_path), device="cpu")
    return model.encode(list(items.texts), convert_to_tensor=True)


def _images(items: ItemTable) -> list[Any]:
    return [Image.open(path).convert("RGB") for path in items.images]


def patches(not_patches: int) -> Reference:
    """The mean over all positions after the first ones, which are no patches."""

    def reference(encoder: PretrainedEncoder, items: ItemTable) -> Tensor:
        batch = encoder.processor(images=_images(items), return_tensors="pt")
        states = encoder.model(**batch).last_hidden_state
        if "pixel_attention_mask" in batch:
            return _masked_mean(states, batch["pixel_attention_mask"])
        return states.flatten(2).mean(dim=2) if states.ndim == 4 else states[:, not_patches:].mean(dim=1)

    return reference


def two_towers(encoder: PretrainedEncoder, items: ItemTable) -> Tensor:
    padding = "max_length" if "siglip" in encoder.model.config.model_type else True
    texts = encoder.processor.tokenizer(list(items.texts), padding=padding, truncation=True, return_tensors="pt")
    if padding == "max_length":
        del texts["attention_mask"]
    images = encoder.processor.image_processor(images=_images(items), return_tensors="pt")
    towers = encoder.model.get_image_features(**images), encoder.model.get_text_features(**texts)
    return torch.cat([F.normalize(tower.pooler_output, dim=-1) for tower in towers], dim=-1)


def multimodal(encoder: PretrainedEncoder, items: ItemTable) -> Tensor:
    processor = encoder.processor
    processor.tokenizer.padding_side = "right"
    prompts = [processor.image_token + text for text in items.texts]
    if processor.chat_template:
        contents = [[{"type": "image"}, {"type": "text", "text": text}] for text in items.texts]
        turns = [[{"role": "user", "content": content}] for content in contents]
        prompts = [processor.apply_chat_template(turn, tokenize=False).rstrip() for turn in turns]
    options = {"padding": True, "return_tensors": "pt", "add_special_tokens": not prompts[0].startswith("<s>")}
    batch = processor(images=[[image] for image in _images(items)], text=prompts, **options)
    return _masked_mean(encoder.model.base_model(**batch).last_hidden_state, batch["attention_mask"])
