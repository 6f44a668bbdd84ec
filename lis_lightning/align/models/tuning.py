"""What of a pretrained model is trained: its head alone, low-rank adapters, its last layers, or all of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from torch import nn

from lis_lightning.errors import ConfigError

Mode = Literal["full", "head", "lora", "last"]
Towers = Literal["language", "vision", "all"]

# Projections of queries and values by the names that families give them; a fused one where there is no other.
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
        mode: ``"full"`` all weights; ``"head"`` none of the model's; ``"lora"`` low-rank adapters, which begin as no
            change at all; ``"last"`` the last layers and what follows them.
        towers: Which part of the model: its ``"language"`` tower, its ``"vision"`` tower, or ``"all"``. None: all of
            it for "full", else the language tower where there is one.
        layers: For "last": how many.
        rank: Of the adapters.
        alpha: Their changes are scaled by ``alpha / rank``.
        dropout: Of what enters an adapter, in training.
        targets: Names of the linear layers that get adapters, as ``["q_proj", "k_proj"]``. None: those of queries
            and values, as the model's family names them.

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
    targets: Sequence[str] | None = None

    def __post_init__(self) -> None:
        for name, value, choices in (("mode", self.mode, get_args(Mode)), ("towers", self.towers, get_args(Towers))):
            if value not in choices and (name, value) != ("towers", None):
                raise ConfigError(f"`{name}` of the tuning must be one of {', '.join(choices)}, but got {value!r}.")
        for name, number in (("layers", self.layers), ("rank", self.rank), ("alpha", self.alpha)):
            if number < 1:
                raise ConfigError(f"`{name}` must be 1 or more, but got {number}.")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"`dropout` must be from 0 to below 1, but got {self.dropout}.")


def tune(model: Any, towers: Mapping[str, nn.Module], tuning: Tuning) -> None:
    """Leave those parameters of a model trainable that its tuning trains; adds adapters for "lora".

    Args:
        model: Of transformers.
        towers: Its towers by name, "language" and "vision".
        tuning: What is trained.

    Raises:
        ConfigError: If the model has no such tower, too few layers, or none of the target layers.
    """
    if tuning.mode == "full" and tuning.towers in {None, "all"}:
        return
    chosen = _chosen(towers, tuning)
    model.requires_grad_(False)
    if tuning.mode == "lora":
        _add_adapters(model, chosen, tuning)
    for name, tower in chosen.items():
        if tuning.mode == "full":
            tower.requires_grad_(True)
        elif tuning.mode == "last":
            for part in _last(name, tower, tuning.layers):
                part.requires_grad_(True)


def rest(model: nn.Module, towers: Mapping[str, nn.Module]) -> None:
    """Put what is not trained into evaluation mode where training mode would change or blur it.

    Towers without a trained weight lose their dropout, to which nothing could adapt, and frozen batch norms keep their
    statistics.

    Args:
        model: In training mode.
        towers: Its towers.
    """
    idle = [
        model,
        *towers.values(),
        *(part for part in model.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)),
    ]
    for part in idle:
        if not any(weight.requires_grad for weight in part.parameters()):
            part.eval()


def _chosen(towers: Mapping[str, nn.Module], tuning: Tuning) -> dict[str, nn.Module]:
    if tuning.towers == "all":
        return dict(towers)
    name = tuning.towers or ("language" if "language" in towers else "vision")
    if name not in towers:
        raise ConfigError(
            f"The model has no {name} tower to tune; set towers={next(iter(towers))}, or leave `towers` unset."
        )
    return {name: towers[name]}


def _last(name: str, tower: nn.Module, count: int) -> Iterator[nn.Module]:
    """Yield the last layers of a tower, and the modules that come after them."""
    lists = [(path, part) for path, part in tower.named_modules() if isinstance(part, nn.ModuleList)]
    if not lists:
        raise ConfigError(f"The {name} tower ({type(tower).__name__}) keeps no list of layers; use another mode.")
    path, layers = max(lists, key=lambda one: sum(weight.numel() for weight in one[1].parameters()))
    if count > len(layers):
        raise ConfigError(f"The {name} tower has {len(layers)} layers; `layers` must be at most that, but got {count}.")
    yield from layers[-count:]
    holder = tower
    for step in path.split("."):
        children = list(holder.named_children())
        yield from (child for _, child in children[[child_name for child_name, _ in children].index(step) + 1 :])
        holder = getattr(holder, step)


def _add_adapters(model: Any, towers: Mapping[str, nn.Module], tuning: Tuning) -> None:
    try:
        from peft import LoraConfig
        from peft.tuners.tuners_utils import cast_adapter_dtype
    except ImportError as error:
        raise ConfigError("Mode lora needs peft: pip install 'lis-lightning[align]'.") from error
    names = {part: path for path, part in model.named_modules()}
    targets = [names[part] for name, tower in towers.items() for part in _targets(name, tower, tuning.targets)]
    model.add_adapter(
        LoraConfig(r=tuning.rank, lora_alpha=tuning.alpha, lora_dropout=tuning.dropout, target_modules=targets)
    )
    cast_adapter_dtype(model, "default")  # to float32: steps of bfloat16 adapters would be rounded away


def _targets(name: str, tower: nn.Module, wanted: Sequence[str] | None) -> list[nn.Module]:
    """Return the linear layers that get adapters."""
    found: dict[str, list[nn.Module]] = {}
    for path, part in tower.named_modules():
        if isinstance(part, nn.Linear) or type(part).__name__ == "Conv1D":  # GPT-2's linear layer
            found.setdefault(path.rpartition(".")[2], []).append(part)
    if wanted is None:
        wanted = next((names for names in _QUERY_VALUE if all(one in found for one in names)), None)
    absent = [] if wanted is None else [one for one in wanted if one not in found]
    if wanted is None or absent:
        said = f"no linear layer {absent[0]!r}" if absent else "no layers of a known name for queries and values"
        raise ConfigError(
            f"The {name} tower ({type(tower).__name__}) has {said}; set `targets` of the tuning to some of "
            f"{', '.join(sorted(found)) or 'none: it has no linear layers'}."
        )
    return [part for one in wanted for part in found[one]]
