"""Folders of sentence-transformers: what `modules.json` puts around a text model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from typing_extensions import override

from lis_lightning.errors import ConfigError

_POOLINGS = {"cls": "cls", "mean": "mean", "lasttoken": "last"}  # their names -> ours
POOLING_KEYS = {  # keys of a pooling's configuration -> their names
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "lasttoken",
    "pooling_mode_max_tokens": "max",
}


class UnitLength(nn.Module):
    """Scales vectors to unit length."""

    @override
    def forward(self, vectors: Tensor) -> Tensor:
        return normalize(vectors, dim=-1)


@dataclass(frozen=True)
class SentenceModules:
    """What a model of sentence-transformers does besides running its transformer.

    Attributes:
        pooling: How it pools, in its own words: "mean", "cls", "lasttoken", "max", ...; empty if nothing is pooled.
        prompts_pooled: Whether the tokens of the prompt take part.
        layers: Dense layers and scaling to unit length, in order.
        output_dim: Of the last dense layer; None if there is none.
        prompt: Its default prompt; empty if there is none.
        max_tokens: Longest text with prompt and special tokens; None for the limit of the transformer.
        lower_case: Whether texts are put into lower case.
    """

    pooling: str = "mean"
    prompts_pooled: bool = True
    layers: Sequence[nn.Module] = ()
    output_dim: int | None = None
    prompt: str = ""
    max_tokens: int | None = None
    lower_case: bool = False

    def pooling_of(self, given: str | None, prompt: str) -> str:
        """Return the pooling that is used: the given one, else that of the model.

        Raises:
            ConfigError: If the model pools in a way that is not offered here.
        """
        if not self.prompts_pooled and prompt != "{text}":
            raise ConfigError(
                "modules.json leaves the tokens of the prompt out of the pooling, which is not offered here; set "
                f"prompt='{{text}}', but got {prompt!r}."
            )
        if given is None and self.pooling not in _POOLINGS:
            raise ConfigError(
                f"modules.json pools by {self.pooling!r}, which is not offered here. Set `pooling` to mean, cls or "
                "last to pool otherwise than the model was trained."
            )
        return given or _POOLINGS[self.pooling]


def transformer_folder(folder: Path) -> Path:
    """Return the sub-folder of the transformer, such as ``0_Transformer``; the folder itself if it has no modules."""
    modules = folder / "modules.json"
    if not modules.is_file():
        return folder
    entries = json.loads(modules.read_text())
    paths = [entry["path"] for entry in entries if _type_of(entry) == "Transformer"]
    return folder / paths[0] if paths else folder


def read_sentence_modules(model: str | Path) -> SentenceModules:
    """Return what `modules.json` and its companions say; mean pooling and no layers where there is no such file.

    Args:
        model: A folder, or an id on the Hugging Face hub whose configuration could be loaded.

    Raises:
        ConfigError: If there is a module of another type than Transformer, Pooling, Dense and Normalize.
    """
    entries = _read_json(model, "modules.json")
    if entries is None:
        return SentenceModules()
    pooling: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    layers: list[Any] = []
    dim = None
    for number, entry in enumerate(entries):
        kind, path = _type_of(entry), entry["path"]
        if kind == "Transformer" and number == 0:
            settings = _read_json(model, _join(path, "sentence_bert_config.json")) or {}
        elif kind == "Pooling":
            pooling = _read_json(model, _join(path, "config.json")) or {}
        elif kind == "Dense":
            layers.append(_dense(model, path))
            dim = layers[-1][0].out_features
        elif kind == "Normalize":
            layers.append(UnitLength())
        else:
            raise ConfigError(
                f"modules.json of {model} has a module {kind}, which is not offered here; there are one Transformer, "
                "Pooling, Dense and Normalize. Give the folder of the transformer alone to leave the others out."
            )
    options = _read_json(model, "config_sentence_transformers.json") or {}
    return SentenceModules(
        pooling=_pooling_mode(pooling),
        prompts_pooled=pooling.get("include_prompt", True),
        layers=layers,
        output_dim=dim,
        prompt=(options.get("prompts") or {}).get(options.get("default_prompt_name"), ""),
        max_tokens=settings.get("max_seq_length"),
        lower_case=settings.get("do_lower_case", False),
    )


def _type_of(entry: dict[str, str]) -> str:
    return entry["type"].rpartition(".")[2]


def _join(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name


def _pooling_mode(config: dict[str, Any]) -> str:
    """Return the name of the pooling; several at once are joined by a plus."""
    if isinstance(config.get("pooling_mode"), str):
        return str(config["pooling_mode"])
    names = [name for name, used in config.items() if name.startswith("pooling_mode_") and used is True]
    return "+".join(POOLING_KEYS.get(name, name.removeprefix("pooling_mode_")) for name in names)


def _dense(model: str | Path, path: str) -> nn.Sequential:
    """Return a linear layer with its weights, and its activation."""
    config = _read_json(model, _join(path, "config.json")) or {}
    linear = nn.Linear(config["in_features"], config["out_features"], bias=config.get("bias", True))
    weights = _find(model, _join(path, "model.safetensors"))
    if weights is not None:
        from safetensors.torch import load_file

        state = load_file(weights)
    else:
        state = torch.load(_find(model, _join(path, "pytorch_model.bin")) or "", weights_only=True)
    linear.load_state_dict({name.removeprefix("linear."): value for name, value in state.items()})
    module, _, activation = config.get("activation_function", "torch.nn.modules.activation.Tanh").rpartition(".")
    if not module.startswith("torch.nn"):
        raise ConfigError(
            f"The dense layer {path} has the activation {module}.{activation}; it must be one of torch.nn."
        )
    return nn.Sequential(linear, getattr(nn, activation)())


def _read_json(model: str | Path, name: str) -> Any:
    path = _find(model, name)
    return None if path is None else json.loads(path.read_text())


def _find(model: str | Path, name: str) -> Path | None:
    """Return a file of a folder, or of a repository on the hub; None if there is none."""
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder / name if (folder / name).is_file() else None
    from transformers.utils.hub import cached_file

    cached = cached_file(
        model,
        name,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return None if cached is None else Path(cached)
