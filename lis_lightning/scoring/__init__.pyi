from .audit import Audit as Audit
from .base_ranker import (
    prepare as prepare,
    probe_inputs as probe_inputs,
    read_items as read_items,
    user_folds as user_folds,
)
from .ceiling import leak_arm as leak_arm
from .companions import successive_pairs as successive_pairs
from .cross_fit import build_pairs as build_pairs, source as source
from .gain import Arm as Arm, evaluate as evaluate
from .metric import LeakageImpactScore as LeakageImpactScore
from .power import smallest_detectable_gain as smallest_detectable_gain
from .preference import Completed as Completed, IdEmbeddings as IdEmbeddings, PairTable as PairTable
