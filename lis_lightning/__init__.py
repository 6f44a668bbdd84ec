"""See during fine-tuning whether item representations will help the recommender."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lis_lightning.callback import LISMonitor
    from lis_lightning.early_stopping import LISEarlyStopping
    from lis_lightning.encoding import Encode
    from lis_lightning.metric import LeakageImpactScore
    from lis_lightning.preference import Completed, IdEmbeddings, PairTable
    from lis_lightning.result import LISResult
    from lis_lightning.split import PreferenceSplit

__all__ = [
    "Completed",
    "Encode",
    "IdEmbeddings",
    "LISEarlyStopping",
    "LISMonitor",
    "LISResult",
    "LeakageImpactScore",
    "PairTable",
    "PreferenceSplit",
]

_HOME = {
    "Completed": "preference",
    "Encode": "encoding",
    "IdEmbeddings": "preference",
    "LISEarlyStopping": "early_stopping",
    "LISMonitor": "callback",
    "LISResult": "result",
    "LeakageImpactScore": "metric",
    "PairTable": "preference",
    "PreferenceSplit": "split",
}


def __getattr__(name: str) -> Any:
    # On first use: `lis-report` over ssh answers in a second where torch and Lightning would take ten.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
