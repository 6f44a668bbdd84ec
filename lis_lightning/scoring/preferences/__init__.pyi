from .built_in import BUILT_IN as BUILT_IN, build_ids as build_ids, build_pairs as build_pairs
from .completed import Completed as Completed
from .cross_fit import leave_users_out as leave_users_out, tie_folds as tie_folds
from .id_embeddings import IdEmbeddings as IdEmbeddings
from .naming import Preference as Preference, as_preference as as_preference, by_name as by_name
from .pair_table import PairTable as PairTable
from .preference_data import (
    CrossFittedVectors as CrossFittedVectors,
    MatchedPreference as MatchedPreference,
    PreferenceData as PreferenceData,
)
