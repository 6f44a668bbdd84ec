"""Which part of a pretrained model is trained: none of it, low-rank adapters, its last layers, or all of it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import nn

from lis_lightning.errors import ConfigError

Mode = Literal["full", "head", "lora", "last"]
Towers = Literal["language", "vision", "all"]
Targets = str | Sequence[str] | None

ALL_LINEAR = "all-linear"

LEARNING_RATES: dict[Mode, float] = {"full": 2e-5, "last": 5e-5, "lora": 2e-4}
"""Highest learning rate of pretrained weights under AdamW by mode. Higher rates erase what full models have learned."""

# Query and value projections by the names that model families use; a fused projection if there are no separate ones.
_QUERY_VALUE = (
    ("q_proj", "v_proj"),
    ("query", "value"),
    ("q_lin", "v_lin"),
    ("query_proj", "value_proj"),
    ("q", "v"),
    ("Wqkv",),
    ("query_key_value",),
    ("qkv_proj",),
    ("in_proj",),
    ("c_attn",),
    ("qkv",),
)


@dataclass(frozen=True)
class Tuning:
    """How a pretrained model is fine-tuned. The head after it is trained in every mode.

    Args:
        mode: ``"full"``: all weights; ``"head"``: no weights of the model; ``"lora"``: low-rank adapters, which do not
            change the model initially; ``"last"``: the last layers and everything after them.
        towers: Which part of the model: its ``"language"`` tower, its ``"vision"`` tower, or ``"all"`` of it. None: all
            for "full", else the language tower if there is one.
        layers: For "last": number of layers.
        rank: Of the adapters.
        alpha: The output of an adapter is scaled by ``alpha / rank``.
        dropout: Of the input of an adapter, in training.
        targets: Names of the linear layers that get adapters, as ``["q_proj", "k_proj"]``, or ``"all-linear"``; or
            one of these for each tower, as ``{"language": "all-linear", "vision": ["qkv"]}``. None: all linear layers
            of a decoder (QLoRA, Dettmers et al. 2023, section 4), and of other towers the query and value projections,
            by their names in the model's family.

    Raises:
        ConfigError: If a value is unknown or out of range.

    Example:
        >>> Tuning("lora", rank=0)
        Traceback (most recent call last):
        ...
        lis_lightning.errors.ConfigError: `rank` must be 1 or more, but got 0.
    """

    mode: Mode = "full"
    towers: Towers | None = None
    layers: int = 2
    rank: int = 8
    alpha: int = 16
    dropout: float = 0.0
    targets: Targets | Mapping[str, Targets] = None

    def __post_init__(self) -> None:
        _check_choice("mode", self.mode, get_args(Mode))
        if self.towers is not None:
            _check_choice("towers", self.towers, get_args(Towers))
        for name, number in (("layers", self.layers), ("rank", self.rank), ("alpha", self.alpha)):
            if number < 1:
                raise ConfigError(f"`{name}` must be 1 or more, but got {number}.")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"`dropout` must be from 0 to below 1, but got {self.dropout}.")


def tune(model: Any, towers: Mapping[str, nn.Module], tuning: Tuning) -> None:
    """Leave the parameters of a model trainable that its tuning trains, freeze the others, and add adapters for "lora".

    A model that comes with adapters keeps those, and they are trained further.

    Args:
        model: Of transformers.
        towers: Its towers by name, "language" and "vision".
        tuning: What is trained.

    Raises:
        ConfigError: If the model has no such tower, too few layers, or none of the target layers; or if its weights are
            too coarse for the mode, or frozen below adapters.
    """
    _check_weights(model, tuning)
    if tuning.mode == "full" and tuning.towers in {None, "all"}:
        return
    chosen = tuned_towers(towers, tuning)
    model.requires_grad_(False)
    if tuning.mode == "lora" and has_adapters(model):
        _train_further(model)
    elif tuning.mode == "lora":
        _add_adapters(model, chosen, tuning)
    for name, tower in chosen.items():
        if tuning.mode == "full":
            tower.requires_grad_(True)
        elif tuning.mode == "last":
            for part in _last(name, tower, tuning.layers):
                part.requires_grad_(True)


def has_adapters(model: Any) -> bool:
    """Return whether a model of transformers has adapters of PEFT."""
    return bool(getattr(model, "_hf_peft_config_loaded", False))


def freeze_statistics(model: nn.Module, towers: Mapping[str, nn.Module]) -> None:
    """Put frozen parts into evaluation mode: towers lose their dropout, and batch norms keep their statistics.

    Args:
        model: In training mode.
        towers: Its towers.
    """
    batch_norms = [part for part in model.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    for part in (model, *towers.values(), *batch_norms):
        if not any(weight.requires_grad for weight in part.parameters()):
            part.eval()


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ConfigError(f"`{name}` of the tuning must be one of {', '.join(choices)}, but got {value!r}.")


def _check_weights(model: Any, tuning: Tuning) -> None:
    """Raise if the mode trains weights of the model that are too coarse for it, or frozen below adapters."""
    if tuning.mode in {"full", "last"} and getattr(model, "quantization_method", None) is not None:
        raise ConfigError(f"Weights of 4 bits cannot be trained: set mode lora or head, but got mode {tuning.mode}.")
    if tuning.mode in {"full", "last"} and model.dtype != torch.float32:
        dtype = str(model.dtype).removeprefix("torch.")
        raise ConfigError(
            f"Mode {tuning.mode} trains weights in {dtype}, which rounds most updates of a fine-tuning away. Set "
            "torch_dtype=float32, with trainer.precision=bf16-mixed to compute in bfloat16; or mode lora or head."
        )
    if tuning.mode in {"full", "last"} and has_adapters(model):
        raise ConfigError(
            "The model comes with adapters (adapter_config.json), and its weights are frozen. Set mode lora to train "
            "the adapters further, mode head, or merge them first (PEFT's merge_and_unload, then save_pretrained), but "
            f"got mode {tuning.mode}."
        )


def tuned_towers(towers: Mapping[str, nn.Module], tuning: Tuning) -> dict[str, nn.Module]:
    """Return the towers that are tuned, by name.

    Raises:
        ConfigError: If the model has no such tower.
    """
    if tuning.towers == "all" or (tuning.mode == "full" and tuning.towers is None):
        return dict(towers)
    default = "language" if "language" in towers else "vision"
    name = tuning.towers or default
    if name not in towers:
        raise ConfigError(
            f"The model has no {name} tower to tune; set towers={next(iter(towers))}, or leave `towers` unset."
        )
    return {name: towers[name]}


def _last(name: str, tower: nn.Module, count: int) -> Iterator[nn.Module]:
    """Yield the last layers of a tower, and the modules that come after them."""
    # The layers are the list of modules with the most weights.
    lists = [(path, part) for path, part in tower.named_modules() if isinstance(part, nn.ModuleList)]
    if not lists:
        raise ConfigError(f"The {name} tower ({type(tower).__name__}) keeps no list of layers; use another mode.")
    path, layers = max(lists, key=lambda entry: sum(weight.numel() for weight in entry[1].parameters()))
    if count > len(layers):
        raise ConfigError(f"The {name} tower has {len(layers)} layers; `layers` must be at most that, but got {count}.")
    yield from layers[-count:]
    # On the way down to that list, every sibling after the module that has it runs later.
    module = tower
    for step in path.split("."):
        names = [child for child, _ in module.named_children()]
        for sibling in names[names.index(step) + 1 :]:
            yield module.get_submodule(sibling)
        module = module.get_submodule(step)


def _add_adapters(model: Any, towers: Mapping[str, nn.Module], tuning: Tuning) -> None:
    try:
        from peft import LoraConfig
        from peft.tuners.tuners_utils import cast_adapter_dtype
    except ImportError as error:
        raise ConfigError("Mode lora needs peft: pip install 'lis-lightning[align]'.") from error
    paths = {part: path for path, part in model.named_modules()}
    per_tower = tuning.targets if isinstance(tuning.targets, Mapping) else dict.fromkeys(towers, tuning.targets)
    if untuned := per_tower.keys() - towers.keys():
        raise ConfigError(
            f"`targets` of the tuning names the tower {min(untuned)!r}, but {', '.join(towers)} is tuned; set `towers` "
            "of the tuning to all, or leave it out."
        )
    parts = [part for name, tower in towers.items() for part in _targets(name, tower, per_tower.get(name))]
    targets = [paths[part] for part in parts]
    model.add_adapter(
        LoraConfig(r=tuning.rank, lora_alpha=tuning.alpha, lora_dropout=tuning.dropout, target_modules=targets)
    )
    cast_adapter_dtype(model, "default")  # to float32: bfloat16 would round small updates to zero


def _train_further(model: Any) -> None:
    """Train the adapters that a model comes with."""
    from peft.tuners.tuners_utils import cast_adapter_dtype

    names = model.active_adapters()
    model.set_adapter(names)
    for name in names:
        cast_adapter_dtype(model, name)


def _targets(name: str, tower: nn.Module, wanted: Targets) -> list[nn.Module]:
    """Return the linear layers that get adapters."""
    linear: dict[str, list[nn.Module]] = {}
    for path, part in tower.named_modules():
        if isinstance(part, nn.Linear) or type(part).__name__ == "Conv1D":  # GPT-2's linear layer
            linear.setdefault(path.rpartition(".")[2], []).append(part)
    if not linear:
        raise ConfigError(
            f"The {name} tower ({type(tower).__name__}) has no linear layers, which mode lora needs; use another mode."
        )
    names = _target_names(linear.keys(), wanted, decodes=_decodes(tower))
    absent = [target for target in names if target not in linear]
    if absent or not names:
        problem = f"no linear layer {absent[0]!r}" if absent else "no layers of a known name for queries and values"
        raise ConfigError(
            f"The {name} tower ({type(tower).__name__}) has {problem}; set `targets` of the tuning to {ALL_LINEAR}, or "
            f"to some of {', '.join(sorted(linear))}."
        )
    return [part for target in names for part in linear[target]]


def _target_names(linear: Collection[str], wanted: Targets, *, decodes: bool) -> Sequence[str]:
    """Return the names of the layers that get adapters, among those of all linear layers of a tower."""
    if wanted == ALL_LINEAR or (wanted is None and decodes):
        return sorted(linear)
    if wanted is None:
        return next((names for names in _QUERY_VALUE if set(linear) >= set(names)), ())
    return [wanted] if isinstance(wanted, str) else list(wanted)


def _decodes(tower: nn.Module) -> bool:
    """Return whether a tower is a decoder: a token attends to the tokens before it only."""
    return any(getattr(part, "is_causal", False) is True for part in tower.modules())
