"""What is checked of a family of models: each check returns what its cell of the table says, or raises."""

from __future__ import annotations

from dataclasses import replace

import torch
from family import Family, process_group, two_steps
from torch import Tensor
from torch.nn import (
    functional as F,  # noqa: N812
)

from lis_lightning.align.data import ItemTable
from lis_lightning.align.models import Tuning

CLOSE, SAME = 5e-6, 1e-6  # largest difference between vectors of another batch, and of another process


def loads(family: Family) -> str:
    """Whether an encoder can be made, and of which class its model is."""
    return type(family.encoder(family.items).model).__name__


def batch_is_single(family: Family) -> str:
    """A batch of items, against each of them alone."""
    return _batch_is_single(family, family.items)


def any_images(family: Family) -> str:
    """The same for items with 0, 1 and 2 images."""
    if not family.kind.reads_images:
        return ""
    images = list(family.items.images)
    images[:3] = [None, (images[1], images[2]), None]
    return _batch_is_single(family, replace(family.items, images=tuple(images)))


def _batch_is_single(family: Family, items: ItemTable) -> str:
    encoder = family.encoder(items, output_dim=None).eval()
    rows = family.rows(encoder, items)
    with torch.no_grad():
        together = encoder(encoder.collate(rows))
        alone = torch.cat([encoder(encoder.collate([row])) for row in rows])
    if torch.pdist(alone).max() < 1e-4:
        raise ValueError("all items get the same vector")
    return _difference(together, alone, CLOSE)


def pooling(family: Family) -> str:
    """Against states of the model for a batch that its own processor made."""
    encoder = family.encoder(family.items, output_dim=None).eval()
    with torch.no_grad():
        own = encoder(encoder.collate(family.rows(encoder, family.items)))
        return _difference(own, family.reference(encoder, family.items), CLOSE)


def lora(family: Family) -> str:
    """Names and number of the layers that get adapters."""
    model = family.encoder(family.items, tuning=Tuning("lora")).model
    names = [name.rpartition(".")[2] for name, part in model.named_modules() if hasattr(part, "lora_A")]
    return f"{', '.join(dict.fromkeys(names))}: {len(names)} layers"


def ddp(family: Family) -> str:
    """Two steps of all weights; the second fails if a weight of the first got no gradient."""
    encoder = family.encoder(family.items).train()
    batch = encoder.collate(family.rows(encoder, family.items))
    with process_group():
        problem = two_steps(encoder, batch)
    if problem:
        raise ValueError(problem)
    return "yes"


def bf16_mixed(family: Family) -> str:
    """Vectors and gradients in bf16-mixed."""
    encoder = family.encoder(family.items, output_dim=None).eval()
    batch = encoder.collate(family.rows(encoder, family.items))
    exact = encoder(batch).detach()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = encoder(batch)
        mixed.pow(2).mean().backward()
    if not all(weight.grad.isfinite().all() for weight in encoder.parameters() if weight.grad is not None):
        raise ValueError("there are infinite gradients")
    cosine = float(F.cosine_similarity(mixed.detach().float(), exact).min())
    if cosine < 0.99:
        raise ValueError(f"the vectors have a cosine of {cosine:.3f} with those in float32")
    return f"cosine {cosine:.4f}"


def run(family: Family) -> str:
    """A few steps of `lis-align` with snapshots, with adapters where the model has layers for them."""
    finished, _ = family.whole_run
    return f"{family.tuning.mode}, {len(finished.results)} snapshots"


def resume(family: Family) -> str:
    """Paused half-way and continued, against the run in one go."""
    whole, _ = family.whole_run
    family.train("paused", stop_at=whole.steps // 2)
    family.train("paused")
    return _difference(family.saved("paused"), family.saved("whole"), SAME)


def export(family: Family) -> str:
    """The encoders in the last checkpoint, and in a folder of `save_pretrained`, against the last snapshot."""
    _, trainer = family.whole_run
    checkpoint, folder = family.scratch / "last.ckpt", family.scratch / "exported"
    trainer.save_checkpoint(checkpoint)
    encoder = family.kind.from_checkpoint(checkpoint)
    encoder.save_pretrained(folder)
    items, rows = family.data.items, family.data.items.rows(family.split.item_ids)
    both = [torch.as_tensor(exported.encode(items)) for exported in (encoder, family.kind.from_checkpoint(folder))]
    return _difference(torch.stack(both)[:, rows], family.saved("whole"), SAME)


def _difference(vectors: Tensor, expected: Tensor, largest: float) -> str:
    difference = float((vectors - expected).abs().max())
    if not difference <= largest:
        raise ValueError(f"vectors differ by {difference:.1e}")
    return f"{difference:.0e}" if difference else "0"


CHECKS = {
    "loads": loads,
    "batch = single": batch_is_single,
    "0 to 2 images": any_images,
    "pooling right": pooling,
    "LoRA where": lora,
    "DDP, full": ddp,
    "bf16-mixed": bf16_mixed,
    "run": run,
    "resume": resume,
    "export equal": export,
}
