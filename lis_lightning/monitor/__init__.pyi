from .callback import LISMonitor as LISMonitor
from .early_stopping import LISEarlyStopping as LISEarlyStopping
from .loop import LISLoopMonitor as LISLoopMonitor
from .on_demand import OnFile as OnFile, OnSignal as OnSignal
from .schedule import (
    AtSteps as AtSteps,
    Budget as Budget,
    EveryEpochs as EveryEpochs,
    EveryMinutes as EveryMinutes,
    EverySteps as EverySteps,
    EveryValidation as EveryValidation,
    LogSpaced as LogSpaced,
    Moment as Moment,
    Schedule as Schedule,
)
from .storage import load_embeddings as load_embeddings, read_manifest as read_manifest
from .submodule_encoder import Encode as Encode
