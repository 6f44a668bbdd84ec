from .features import place as place
from .intervals import (
    Estimate as Estimate,
    cluster_interval as cluster_interval,
    fieller_ratio as fieller_ratio,
    paired_difference as paired_difference,
)
from .item_vectors import (
    ItemVectors as ItemVectors,
    complete_vectors as complete_vectors,
    id_vectors as id_vectors,
    pair_vectors as pair_vectors,
)
