from .callback import LISMonitor as LISMonitor
from .early_stopping import LISEarlyStopping as LISEarlyStopping
from .encoding import Encode as Encode
from .schedule import (
    AtSteps as AtSteps,
    Budget as Budget,
    EveryEpochs as EveryEpochs,
    EverySteps as EverySteps,
    EveryValidation as EveryValidation,
    LogSpaced as LogSpaced,
    OnFile as OnFile,
    OnSignal as OnSignal,
    Schedule as Schedule,
)
