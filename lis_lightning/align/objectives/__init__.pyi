from .distillation import Distillation as Distillation
from .histories import (
    ClickPreference as ClickPreference,
    ClickRanking as ClickRanking,
    NextItemContrastive as NextItemContrastive,
)
from .objective import Objective as Objective, Temperature as Temperature
from .pairs import PairAttraction as PairAttraction, PairContrastive as PairContrastive
from .regularisers import (
    Regulariser as Regulariser,
    Uniformity as Uniformity,
    VarianceCovariance as VarianceCovariance,
)
from .taxonomy import TaxonomyContrastive as TaxonomyContrastive
