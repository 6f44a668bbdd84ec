"""Item vectors of preference data, some of which may be absent: Procrustes rotation, and completion from content."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

COMPLETION_STRENGTH = 30.0
_RIDGES = tuple(10.0 ** (step / 2) for step in range(-12, 3))  # in units of the strongest direction of the content
_HALF_WEIGHT_EVENTS = 3.0  # an item with this many events has half the largest weight in the regression


@dataclass(frozen=True)
class ItemVectors:
    """Vectors of items, and which items have one.

    Attributes:
        vectors: [num_items, dim] float64; zeros where absent.
        present: Whether the item has a vector, [num_items].

    Example:
        >>> import numpy as np
        >>> ItemVectors(np.array([[1.0, 2.0], [0.0, 0.0]]), np.array([True, False])).vectors.shape
        (2, 2)
    """

    vectors: Float[ndarray, "N D"]
    present: Bool[ndarray, " N"]


def rotate_onto(source: ItemVectors, reference: ItemVectors) -> ItemVectors:
    """Return `source` rotated onto `reference` over the items of both (orthogonal Procrustes, Schoenemann 1966).

    The spaces of two folds differ by an arbitrary rotation; the probe fits one set of weights for all folds.

    Args:
        source: Vectors to rotate.
        reference: Vectors of the same items, of the same dimension.

    Example:
        >>> import numpy as np
        >>> reference = ItemVectors(np.eye(2), np.ones(2, bool))
        >>> swapped = ItemVectors(np.array([[0.0, 1.0], [1.0, 0.0]]), np.ones(2, bool))
        >>> rotate_onto(swapped, reference).vectors.tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    both = source.present & reference.present
    left, _, right = np.linalg.svd(source.vectors[both].T @ reference.vectors[both])
    return ItemVectors(source.vectors @ (left @ right), source.present)


def complete_vectors(
    preference: ItemVectors, counts: Int[ndarray, " N"], content: ItemVectors, *, strength: float = COMPLETION_STRENGTH
) -> ItemVectors:
    """Return item vectors in which content fills in those that are missing or rest on few events.

    A ridge regression of the vectors on the content, its penalty chosen by the leave-one-out error, predicts each item
    from all others. An item with n events keeps ``n / (n + strength)`` of its deviation from the prediction, the
    posterior mean of a normal model (James and Stein 1961). Content without predictive power changes items with few
    events only.

    Args:
        preference: Vectors of preference data.
        counts: Number of events behind each item's vector.
        content: Content vectors of the same items.
        strength: Number of events at which data and prediction weigh the same, at least 0.

    Returns:
        The vectors. All items with content are present; items without content are unchanged.

    Example:
        >>> import numpy as np
        >>> content = ItemVectors(np.array([[-1.0], [0.0], [1.0], [2.0]]), np.ones(4, bool))
        >>> pairs = ItemVectors(np.array([[-2.0], [0.0], [2.0], [0.0]]), np.array([True, True, True, False]))
        >>> complete_vectors(pairs, np.array([90, 90, 90, 0]), content).vectors.round(2).tolist()
        [[-2.0], [0.0], [2.0], [4.0]]
    """
    weight = np.where(preference.present & content.present, counts / (counts + _HALF_WEIGHT_EVENTS), 0.0)[:, None]
    total = max(float(weight.sum()), 1e-12)
    # Centre both sides by their weighted means: the intercept of the regression.
    shift = (weight * preference.vectors).sum(0) / total
    features = content.vectors - (weight * content.vectors).sum(0) / total
    response = preference.vectors - shift
    predicted = _leave_one_out_ridge(features, response, weight)
    # Shrink each item toward its prediction, the more the fewer events it has.
    trust = np.where(preference.present, counts / np.maximum(counts + strength, 1e-12), 0.0)[:, None]
    filled = shift + predicted + trust * (response - predicted)
    vectors = np.where(content.present[:, None], filled, preference.vectors)
    return ItemVectors(vectors, preference.present | content.present)


def _leave_one_out_ridge(
    features: Float[ndarray, "N F"], response: Float[ndarray, "N D"], weight: Float[ndarray, "N 1"]
) -> Float[ndarray, "N D"]:
    """Return the prediction of each row by a weighted ridge regression on the other rows.

    The penalty is the one of least weighted leave-one-out error; rows of weight 0 have no part in the fit.
    """
    # In the eigenbasis of the Gram matrix every penalty is one rescaling.
    spread, axes = np.linalg.eigh(features.T @ (weight * features))
    features = features @ axes
    moments = features.T @ (weight * response)
    smallest, predicted = np.inf, np.zeros_like(response)
    for ridge in _RIDGES:
        inverse = 1.0 / (np.maximum(spread, 0.0) + max(ridge * spread[-1], 1e-12))
        fitted = features @ (inverse[:, None] * moments)
        # Closed form of leaving a row out: the leverage is the weight of a row in its own prediction.
        leverage = weight * (features**2 @ inverse)[:, None]
        left_out = (response - fitted) / np.maximum(1.0 - leverage, 1e-3)
        error = float((weight * left_out**2).sum())
        if error < smallest:
            smallest, predicted = error, np.where(weight > 0, response - left_out, fitted)
    return predicted
