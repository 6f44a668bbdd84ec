from .data.split import PreferenceSplit as PreferenceSplit
from .monitor.callback import LISMonitor as LISMonitor
from .monitor.early_stopping import LISEarlyStopping as LISEarlyStopping
from .monitor.encoding import Encode as Encode
from .results.result import LISResult as LISResult
from .scoring.metric import LeakageImpactScore as LeakageImpactScore
from .scoring.preference import Completed as Completed, IdEmbeddings as IdEmbeddings, PairTable as PairTable
