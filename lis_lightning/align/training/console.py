"""What a fine-tuning run prints."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pytorch_lightning.utilities import rank_zero_only
from rich.console import Console

from lis_lightning.align.data.data_module import ExampleDataModule
from lis_lightning.align.models.item_encoder import ItemEncoder
from lis_lightning.results.format import format_gain, format_interval, format_path

if TYPE_CHECKING:
    from lis_lightning.align.training.run import Run


@rank_zero_only
def rank_zero_print(text: str) -> None:
    """Print on the first process, without wrapping, so that paths and tables survive a narrow or piped output."""
    Console().print(text, markup=False, highlight=False, soft_wrap=True)


def announcement(encoder: ItemEncoder, batches: ExampleDataModule) -> str:
    """Return what is about to be trained, and on how many examples."""
    trained = sum(parameter.numel() for parameter in encoder.parameters() if parameter.requires_grad)
    objectives = ", ".join(
        f"{name} ({int((~own.held_out).sum()):,} examples, {int(own.held_out.sum()):,} more held out)"
        for name, own in batches.examples.items()
    )
    frozen = ""
    if encoder.unreached:
        modules = list(dict.fromkeys(name.rpartition(".")[0] or name for name in encoder.unreached))
        more = f" and {len(modules) - 3} more" if len(modules) > 3 else ""
        frozen = f"\nfrozen, since no gradient reaches them: {', '.join(modules[:3])}{more}"
    return (
        f"aligning {type(encoder).__name__} ({trained:,} trained parameters, {encoder.output_dim} dimensions) by "
        f"{objectives}{frozen}"
    )


def summary(run: Run, encode: str | None = None) -> str:
    """Return the end of a run's output: where its files are, then what came out, and the report at last.

    Args:
        run: The run.
        encode: Command that encodes items with the best checkpoint; None if there is none.
    """
    best = run.best
    lines = [*_placebo(run), *_checkpoint(run, encode)]
    if run.paused:
        lines.append(f"paused at step {run.steps}")
    if run.pruned:
        lines.append(f"pruned at step {run.steps}: {run.pruned}")
    added = f"; headroom {format_gain(best.headroom)}" if math.isfinite(best.headroom) else ""
    verdict = ", ".join(filter(None, [run.results[-1].verdict, run.results[-1].message]))
    lines += [
        "",
        f"best step {best.step}: AIS {format_interval(best.ais, best.ais_low, best.ais_high)}{added}",
        f"verdict after {run.steps} steps in {run.seconds:.0f} s: {verdict}",
    ]
    if not math.isnan(run.revealed_gain) and run.revealed_gain > 0:
        lines.append(
            f"known truth: the latents that content reveals gain {run.revealed_gain:+.4f}; the best snapshot reaches "
            f"{best.ais / run.revealed_gain:.0%} of it (raw: {run.results[0].ais / run.revealed_gain:.0%})"
        )
    return "\n".join([*lines, f"report: {format_path(run.page)}"])


def _placebo(run: Run) -> list[str]:
    placebo = run.results[0].placebo
    if placebo is None:
        return []
    return [
        f"placebo {'passed' if placebo.passed else 'FAILED'}: rows permuted {placebo.permuted.value:+.4f} "
        f"(SE {placebo.permuted.se:.4f}), random vectors {placebo.random.value:+.4f} (SE {placebo.random.se:.4f})"
    ]


def _checkpoint(run: Run, encode: str | None) -> list[str]:
    if run.checkpoint is None:
        return [f"checkpoint: {_no_checkpoint(run)}"]
    if not encode:
        return [f"checkpoint: {format_path(run.checkpoint)}"]
    return [f"vectors of these items, or of a table of others: {encode}"]


def _no_checkpoint(run: Run) -> str:
    if run.best.step == 0:
        return "none, the model was best before it was trained"
    return "none of the best step, whose weights were gone when it was scored; lis.save=best keeps representations"
