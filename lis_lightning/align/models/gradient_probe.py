"""Which weights of a model a backward pass reaches; the others are frozen, or the tuning is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lis_lightning.align.models.tuning import Tuning, tuned_towers
from lis_lightning.errors import ConfigError


def freeze_unreached(
    model: nn.Module, towers: Mapping[str, nn.Module], tuning: Tuning, vectors: Callable[[], Tensor]
) -> list[str]:
    """Freeze the trained weights that get no gradient, and return their names.

    DistributedDataParallel fails on such weights: a vision layer after the one that is read, a mask token. Experts of a
    mixture stay trained, since other items may be routed to them.

    Args:
        model: After :func:`~lis_lightning.align.models.tuning.tune`.
        towers: Its towers by name.
        tuning: What is trained.
        vectors: Runs the model on a few items, and returns their vectors.

    Raises:
        ConfigError: If a tower that is tuned would not learn at all.
    """
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    reached = _reached(trained, vectors)
    unreached = [name for name in trained if name not in reached and ".experts." not in name]
    paths = {part: path for path, part in model.named_modules()}
    for tower_name, tower in tuned_towers(towers, tuning).items():
        prefix = f"{paths[tower]}." if paths[tower] else ""
        own = [name for name in trained if name.startswith(prefix)]
        if not set(own) - set(unreached):
            raise ConfigError(
                f"Mode {tuning.mode} would train nothing of the {tower_name} tower ({type(tower).__name__}): no "
                f"gradient reaches any of its {len(own)} trained weights, since the vector of an item does not depend "
                "on them. Set `layers`, `targets` or `towers` of the tuning to a part of the model that is used."
            )
    for name in unreached:
        trained[name].requires_grad_(False)
    return unreached


def _reached(weights: Mapping[str, nn.Parameter], vectors: Callable[[], Tensor]) -> set[str]:
    """Return the names of the weights that a backward pass gives a gradient."""
    reached: set[str] = set()

    def record(name: str) -> Callable[[Tensor], None]:
        def hook(weight: Tensor) -> None:
            reached.add(name)
            weight.grad = None  # at once: all gradients together need as much memory as the model

        return hook

    parameters: Mapping[str, Any] = weights  # torch leaves the method untyped
    hooks = [weight.register_post_accumulate_grad_hook(record(name)) for name, weight in parameters.items()]
    try:
        with torch.enable_grad():
            total = vectors().float().sum()
            if total.requires_grad:
                torch.autograd.backward(total)
    finally:
        for handle in hooks:
            handle.remove()
    return reached
