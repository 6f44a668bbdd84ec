"""Folders that other libraries read: PEFT adapters, merged models, and the layout of sentence-transformers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lis_lightning.align.models.checkpoints import DESCRIPTION, WEIGHTS, describe_encoder, leave_out_base
from lis_lightning.align.models.hugging_face import quiet_transformers
from lis_lightning.align.models.sentence_modules import POOLING_KEYS, UnitLength
from lis_lightning.align.models.tuning import has_adapters
from lis_lightning.errors import ConfigError

if TYPE_CHECKING:
    from lis_lightning.align.models.pretrained import PretrainedEncoder
    from lis_lightning.align.models.text import TextEncoder

_POOLINGS = {"mean": "mean", "cls": "cls", "last": "lasttoken"}  # our names -> those of sentence-transformers


def save_encoder(encoder: PretrainedEncoder, folder: Path, *, merge: bool) -> None:
    """Write the files that :meth:`ItemEncoder.from_checkpoint` reads; see :meth:`PretrainedEncoder.save_pretrained`.

    Args:
        encoder: The encoder.
        folder: Made if it does not exist.
        merge: Whether adapters are added to the weights of the model.

    Raises:
        ConfigError: If the weights of the model have 4 bits and would be merged.
    """
    from safetensors.torch import save_file

    save_model(encoder, folder, merge=merge)
    description = describe_encoder(encoder, precision=encoder.precision)
    state = encoder.state_dict()
    if has_adapters(encoder.model) and not merge:
        # Weights that the base model lacks and that were drawn at random are in none of the files of transformers.
        leave_out_base(state, description)
        beside = {name: value for name, value in state.items() if ".lora_" not in name}
    else:
        beside = {name: value for name, value in state.items() if not name.startswith("model.")}
    save_file({name: value.detach().cpu().contiguous() for name, value in beside.items()}, folder / WEIGHTS)
    _write_json(folder / DESCRIPTION, {**description, "base_weights": {}})


def save_model(encoder: PretrainedEncoder, folder: Path, *, merge: bool) -> None:
    """Write model and processor alone, as transformers does; arguments as for :func:`save_encoder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with quiet_transformers():
        if merge and has_adapters(encoder.model):
            state = merged_state(encoder.model)
            with _as_without_adapters(encoder.model):
                encoder.model.save_pretrained(folder, state_dict=state)
        else:
            encoder.model.save_pretrained(folder)
        encoder.processor.save_pretrained(folder)


def merged_state(model: nn.Module) -> dict[str, Tensor]:
    """Return the state of a model without adapters that computes what the model computes with them.

    Args:
        model: With adapters; not changed.

    Raises:
        ConfigError: If its weights have 4 bits.
    """
    from peft.tuners.lora import LoraLayer

    state = dict(model.state_dict())
    layers: Any = [(path, layer) for path, layer in model.named_modules() if isinstance(layer, LoraLayer)]
    for path, layer in layers:
        name = f"{path}.base_layer.weight"
        weight = state[name]
        if not weight.is_floating_point():
            raise ConfigError(
                "Adapters cannot be merged into weights of 4 bits: load the checkpoint with quantization=null first."
            )
        for adapter in layer.active_adapters:
            weight = weight + layer.get_delta_weight(adapter).to(weight.dtype)
        state[name] = weight
    return {name.replace(".base_layer.", "."): value for name, value in state.items() if ".lora_" not in name}


def save_sentence_modules(encoder: TextEncoder, folder: Path, *, whole: bool) -> None:
    """Write the files that make a folder of transformers one of sentence-transformers: pooling, dense layers, prompt.

    Args:
        encoder: Its model is in the folder already.
        folder: The folder.
        whole: Whether the head and the prompt are included. The head becomes a dense layer: in evaluation its batch
            norm is a linear map.

    Raises:
        ConfigError: If the layout cannot express what the encoder does.
    """
    hidden = int(encoder.model.config.hidden_size)
    layers = [*encoder.sentence_layers, *(_dense_of_head(encoder.head) if whole else [])]
    entries = [("", "Transformer"), ("1_Pooling", "Pooling")]
    for number, layer in enumerate(layers, start=2):
        kind = "Normalize" if isinstance(layer, UnitLength) else "Dense"
        entries.append((f"{number}_{kind}", kind))
        if kind == "Dense":
            _write_dense(layer, folder / f"{number}_{kind}")
    modes = {key: name == _POOLINGS[encoder.pooling] for key, name in POOLING_KEYS.items()}
    _write_json(folder / "1_Pooling/config.json", {"word_embedding_dimension": hidden, **modes, "include_prompt": True})
    prefix, length = _prefix_and_length(encoder) if whole else ("", encoder.max_tokens)
    _write_json(folder / "sentence_bert_config.json", {"max_seq_length": length, "do_lower_case": encoder.lower_case})
    prompts = {"prompts": {"document": prefix}, "default_prompt_name": "document"} if prefix else {"prompts": {}}
    _write_json(folder / "config_sentence_transformers.json", {**prompts, "similarity_fn_name": "cosine"})
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (path, kind) in enumerate(entries)
    ]
    _write_json(folder / "modules.json", modules)


def _prefix_and_length(encoder: TextEncoder) -> tuple[str, int]:
    """Return the text before an item's text, and the number of tokens of the longest item with it."""
    prefix, _, suffix = encoder.prompt.partition("{text}")
    if suffix or encoder.joined is not None:
        problem = f"a prompt that goes on after the text ({suffix!r})" if suffix else "precomputed features"
        raise ConfigError(
            f"The layout of sentence-transformers cannot express {problem}; leave sentence_transformers out."
        )
    # Texts are cut before the prompt is put around them here, and after that there.
    longest = encoder.max_text_tokens + len(encoder.processor(prefix)["input_ids"])
    return prefix, min(longest, encoder.max_tokens or longest)


@contextmanager
def _as_without_adapters(model: Any) -> Iterator[None]:
    """Let transformers save the state that it is given, and not the adapters alone."""
    model._hf_peft_config_loaded = False
    try:
        yield
    finally:
        model._hf_peft_config_loaded = True


@torch.no_grad()
def _dense_of_head(head: nn.Module) -> list[nn.Module]:
    """Return the head in evaluation as one dense layer with a bias; none if there is no head."""
    if isinstance(head, nn.Identity):
        return []
    parts: Any = list(head.children())
    linear, norm = parts
    scale = (norm.running_var + norm.eps).rsqrt()
    dense = nn.Linear(linear.in_features, linear.out_features)
    dense.weight.copy_(scale[:, None] * linear.weight)
    dense.bias.copy_(-scale * norm.running_mean)
    return [nn.Sequential(dense, nn.Identity())]


def _write_dense(layer: nn.Module, folder: Path) -> None:
    """Write a linear layer and its activation."""
    from safetensors.torch import save_file

    parts: Any = list(layer.children())
    linear, activation = parts
    folder.mkdir(exist_ok=True)
    kind = type(activation)
    _write_json(
        folder / "config.json",
        {
            "in_features": linear.in_features,
            "out_features": linear.out_features,
            "bias": linear.bias is not None,
            "activation_function": f"{kind.__module__}.{kind.__qualname__}",
        },
    )
    state = {f"linear.{name}": value.detach().cpu().contiguous() for name, value in linear.state_dict().items()}
    save_file(state, folder / "model.safetensors")


def _write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=1))
