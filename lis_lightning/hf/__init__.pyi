from .early_stopping import LISEarlyStoppingCallback as LISEarlyStoppingCallback
from .evaluator import LISEvaluator as LISEvaluator
from .trainer_callback import LISTrainerCallback as LISTrainerCallback
