"""See during fine-tuning whether item representations will help the recommender."""

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
