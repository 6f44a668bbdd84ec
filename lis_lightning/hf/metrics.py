"""Names of the logged values of a result, as evaluations by Hugging Face's libraries name them: without slashes."""

from __future__ import annotations

from lis_lightning.results.snapshot import Snapshot
from lis_lightning.tracking.loggers import metrics


def evaluator_metrics(result: Snapshot, prefix: str = "lis", *, more: bool = False) -> dict[str, float]:
    """Return the logged values of a result by key, and its step.

    Args:
        result: The result.
        prefix: Prefix of the keys.
        more: Whether to return the keys ``more_...`` too.

    Example:
        >>> result = Snapshot(ais=0.003, ais_low=0.001, ais_high=0.005, ais_geometry=0.002, auc_base=0.7, auc=0.703,
        ...                   step=200)
        >>> values = evaluator_metrics(result)
        >>> values["lis_ais"], values["lis_step"]
        (0.003, 200.0)
    """
    values = {key.replace("/", "_"): value for key, value in metrics(result, prefix, more=more).items()}
    return values | {f"{prefix.replace('/', '_')}_step": float(result.step)}


def evaluation_metrics(result: Snapshot, prefix: str = "lis", *, more: bool = False) -> dict[str, float]:
    """Return the same values under the keys that the Trainer gives them, which begin with ``eval_``.

    Example:
        >>> result = Snapshot(ais=0.003, ais_low=0.001, ais_high=0.005, ais_geometry=0.002, auc_base=0.7, auc=0.703,
        ...                   step=200)
        >>> evaluation_metrics(result)["eval_lis_ais"]
        0.003
    """
    return {f"eval_{key}": value for key, value in evaluator_metrics(result, prefix, more=more).items()}
