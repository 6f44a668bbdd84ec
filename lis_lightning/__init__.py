"""See during fine-tuning whether item representations will help the recommender."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lis_lightning.data.split import PreferenceSplit
    from lis_lightning.monitor.callback import LISMonitor
    from lis_lightning.monitor.early_stopping import LISEarlyStopping
    from lis_lightning.monitor.encoding import Encode
    from lis_lightning.results.result import LISResult
    from lis_lightning.scoring.metric import LeakageImpactScore
    from lis_lightning.scoring.preference import Completed, IdEmbeddings, PairTable

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
    "Completed": "scoring.preference",
    "Encode": "monitor.encoding",
    "IdEmbeddings": "scoring.preference",
    "LISEarlyStopping": "monitor.early_stopping",
    "LISMonitor": "monitor.callback",
    "LISResult": "results.result",
    "LeakageImpactScore": "scoring.metric",
    "PairTable": "scoring.preference",
    "PreferenceSplit": "data.split",
}


def __getattr__(name: str) -> Any:
    # On first use: `lis-report` over ssh answers in a second where torch and Lightning would take ten.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
