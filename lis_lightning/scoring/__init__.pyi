from .auditing import audit as audit
from .base_ranker import look_up_items as look_up_items, probe_inputs as probe_inputs, user_folds as user_folds
from .companions import successive_pairs as successive_pairs
from .gain import Arm as Arm, evaluate as evaluate
from .metric import LeakageImpactScore as LeakageImpactScore
from .options import ScoreOptions as ScoreOptions
from .preferences.completed import Completed as Completed
from .preferences.id_embeddings import IdEmbeddings as IdEmbeddings
from .preferences.naming import Preference as Preference
from .preferences.pair_table import PairTable as PairTable
from .preferences.preference_data import PreferenceData as PreferenceData
from .scorer import Scorer as Scorer, score as score
