from .auditing import Audit as Audit, audit as audit
from .base_ranker import probe_inputs as probe_inputs, read_items as read_items, user_folds as user_folds
from .companions import successive_pairs as successive_pairs
from .cross_fit import Leak as Leak, build_pairs as build_pairs, source as source
from .gain import Arm as Arm, evaluate as evaluate
from .metric import LeakageImpactScore as LeakageImpactScore
from .options import ScoreOptions as ScoreOptions
from .preference import Completed as Completed, IdEmbeddings as IdEmbeddings, PairTable as PairTable
from .scorer import Scorer as Scorer, score as score
