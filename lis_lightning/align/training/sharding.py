"""FSDP2: the layers of a model spread over several processes (Zhao et al. 2023, arXiv:2304.11277).

Each layer that an encoder names is sharded by itself. So its weights are gathered for its own forward and backward pass
only, whatever method of the model calls it. All other parts (embeddings, head, objectives) are small and are held by
every process, which average their gradients as DistributedDataParallel does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from lis_lightning.errors import ConfigError


def shard_layers(layers: Sequence[nn.Module], mesh: DeviceMesh) -> None:
    """Spread the weights of each layer over the processes.

    Args:
        layers: None of them contains another.
        mesh: As Lightning's ModelParallelStrategy makes it.

    Raises:
        ConfigError: If the strategy splits tensors too, or weights have 4 bits.
    """
    from torch.distributed.fsdp import fully_shard

    if mesh["tensor_parallel"].size() > 1:
        raise ConfigError(
            f"Layers are spread over processes that have batches of their own, but tensor_parallel_size is "
            f"{mesh['tensor_parallel'].size()}; set data_parallel_size of the strategy to the number of devices, and "
            "tensor_parallel_size to 1."
        )
    for layer in layers:
        if not all(weight.is_floating_point() for weight in layer.parameters()):
            raise ConfigError("Weights of 4 bits cannot be spread over processes; set model.quantization=null, or ddp.")
        fully_shard(layer, mesh=mesh["data_parallel"], reshard_after_forward=True)


@torch.no_grad()
def average_replicated(module: nn.Module) -> None:
    """Average, over the processes, the gradients and the statistics that each of them holds.

    Args:
        module: After a backward pass.
    """
    averaged = [buffer for buffer in module.buffers() if buffer.is_floating_point()]
    for weight in module.parameters():
        if weight.requires_grad and not isinstance(weight, DTensor):
            if weight.grad is None:  # every process takes part, also one whose batch does not reach the weight
                weight.grad = torch.zeros_like(weight)
            averaged.append(weight.grad)
    for tensor in averaged:
        torch.distributed.all_reduce(tensor)
        tensor /= torch.distributed.get_world_size()


@torch.no_grad()
def clip_sharded(module: nn.Module, max_norm: float) -> None:
    """Scale the gradients down to a total norm; the function of torch mixes no sharded tensors with others.

    Args:
        module: After :func:`average_replicated`.
        max_norm: Highest norm.
    """
    gradients = [weight.grad for weight in module.parameters() if weight.grad is not None]
    local: list[Tensor] = [gradient.to_local() for gradient in gradients if isinstance(gradient, DTensor)]
    replicated = [gradient for gradient in gradients if not isinstance(gradient, DTensor)]
    total = _sum_of_squares(local, gradients[0].device)
    torch.distributed.all_reduce(total)
    norm = math.sqrt(float(total + _sum_of_squares(replicated, total.device)))
    for gradient in [*local, *replicated]:
        gradient *= min(1.0, max_norm / (norm + 1e-6))


def is_sharded(weight: Any) -> bool:
    """Return whether a weight is spread over processes."""
    return isinstance(weight, DTensor)


def _sum_of_squares(tensors: Sequence[Tensor], device: torch.device) -> Tensor:
    squares = [tensor.float().square().sum() for tensor in tensors]
    return torch.stack(squares).sum() if squares else torch.zeros((), device=device)
