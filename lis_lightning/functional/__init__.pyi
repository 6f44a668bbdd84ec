from .alternating_least_squares import id_vectors as id_vectors
from .attribution import auroc_shares as auroc_shares, group_totals as group_totals
from .auc import auroc as auroc, auroc_influence as auroc_influence
from .contrastive import info_nce as info_nce, multi_positive_contrastive as multi_positive_contrastive
from .distillation import (
    contrastive_distillation as contrastive_distillation,
    cosine_distillation as cosine_distillation,
    gram_distillation as gram_distillation,
)
from .grouped_auc import grouped_auroc_influence as grouped_auroc_influence
from .intervals import (
    Estimate as Estimate,
    cluster_interval as cluster_interval,
    critical_value as critical_value,
    effective_users as effective_users,
    fieller_ratio as fieller_ratio,
    paired_difference as paired_difference,
    user_sums as user_sums,
)
from .item_coordinates import ItemCoordinates as ItemCoordinates, principal_coordinates as principal_coordinates
from .item_vectors import (
    ItemVectors as ItemVectors,
    complete_vectors as complete_vectors,
    rotate_onto as rotate_onto,
)
from .logistic_regression import fit_logistic as fit_logistic
from .matryoshka import matryoshka_loss as matryoshka_loss
from .multiple_comparisons import Comparison as Comparison, compare_all_pairs as compare_all_pairs
from .pairwise_losses import bpr as bpr, dpo as dpo
from .pointwise_mutual_information import cooccurrence_vectors as cooccurrence_vectors, pair_vectors as pair_vectors
from .pooling import pool as pool, pool_history as pool_history
from .probe import ProbeFit as ProbeFit, ProbeInputs as ProbeInputs, fit_probe as fit_probe
from .regularizers import uniformity as uniformity, variance_covariance as variance_covariance
from .representation_metrics import linear_cka as linear_cka, pair_auc as pair_auc, rankme as rankme
from .simultaneous import (
    cross_fitted_maximum as cross_fitted_maximum,
    largest_fall_critical_value as largest_fall_critical_value,
    simultaneous_critical_value as simultaneous_critical_value,
)
