from .base import Objective as Objective, Regulariser as Regulariser, Temperature as Temperature
from .histories import (
    ClickPreference as ClickPreference,
    ClickRanking as ClickRanking,
    NextItemContrastive as NextItemContrastive,
)
from .pairs import CoEngagement as CoEngagement, PairAttraction as PairAttraction, PairContrastive as PairContrastive
from .spread import Uniformity as Uniformity, VarianceCovariance as VarianceCovariance
from .taxonomy import TaxonomyContrastive as TaxonomyContrastive
from .teachers import Distillation as Distillation
