"""Uncertainty of AUC gains when the events of one user depend on each other.

An AUC is a U-statistic: every event has an influence on it (DeLong, DeLong and Clarke-Pearson 1988), and the influence
values of one user's events may be added up before their variance is taken (Obuchowski 1997, clustered ROC data). The
same per-user sums pair two gains, a gain and a ceiling, or give the interval of their ratio (Fieller 1954).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.stats import norm

from lis_lightning.errors import ShapeError

Z95 = float(norm.ppf(0.975))


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number with its standard error and 95 % interval, in the units of the number."""

    value: float
    se: float
    low: float
    high: float

    @property
    def z(self) -> float:
        """The value in standard errors; 0 for an exact zero, infinite for another value without error, else NaN."""
        if self.value == 0.0:
            return 0.0
        return math.copysign(math.inf, self.value) if self.se == 0.0 else self.value / self.se


def cluster_interval(value: float, influence: Float[ndarray, " users"]) -> Estimate:
    """Return the user-clustered interval of an AUC or an AUC gain.

    ``Var = U / (U - 1) * sum_u I_u^2`` with ``I_u`` the sum of the influence values of user ``u``'s events
    (Obuchowski 1997); equals the variance of a bootstrap over users to first order.

    Args:
        value: The estimate the influence values belong to.
        influence: One sum a user. Users without events hold 0 and count as users.

    Returns:
        The estimate with its standard error and 95 % interval; infinite ends with fewer than two users.

    Example:
        >>> import numpy as np
        >>> cluster_interval(0.01, np.array([0.003, -0.003, 0.001, -0.001])).se.__round__(5)
        0.00516
    """
    num_users = influence.size
    if num_users < 2:
        return Estimate(value=value, se=math.inf, low=-math.inf, high=math.inf)
    se = math.sqrt(num_users / (num_users - 1) * float(influence @ influence))
    return Estimate(value=value, se=se, low=value - Z95 * se, high=value + Z95 * se)


def paired_difference(
    value: float, influence: Float[ndarray, " users"], other: float, other_influence: Float[ndarray, " users"]
) -> Estimate:
    """Return ``value - other`` with its interval, paired by user.

    Snapshots are compared this way, never by overlapping intervals: most of the spread of each is the same users.

    Args:
        value: The first estimate.
        influence: Its per-user sums of influence values.
        other: The estimate to subtract.
        other_influence: Its per-user sums, of the same users in the same order.

    Raises:
        ShapeError: If the two belong to different numbers of users.

    Example:
        >>> import numpy as np
        >>> a = np.array([0.01, -0.01, 0.02, -0.02])
        >>> paired_difference(0.03, a, 0.02, a).se
        0.0
    """
    if influence.shape != other_influence.shape:
        raise ShapeError(
            f"Expected two influence arrays of the same users, got shapes {influence.shape} and "
            f"{other_influence.shape}; score both on the same split."
        )
    return cluster_interval(value - other, influence - other_influence)


def fieller_ratio(
    value: float, influence: Float[ndarray, " users"], other: float, other_influence: Float[ndarray, " users"]
) -> Estimate:
    """Return ``value / other`` with Fieller's 95 % interval, paired by user.

    The interval holds every ratio r for which ``value - r * other`` is not significantly different from zero (Fieller
    1954). It is asymmetric, and unbounded where ``other`` is not significantly different from zero.

    Args:
        value: The numerator (AIS).
        influence: Its per-user sums of influence values.
        other: The denominator (LIS).
        other_influence: Its per-user sums, of the same users in the same order.

    Returns:
        The ratio; ``se`` is the delta-method standard error. NaN throughout where ``other`` is exactly 0.
    """
    if other == 0.0:
        return Estimate(value=math.nan, se=math.nan, low=math.nan, high=math.nan)
    num_users = influence.size
    scale = num_users / (num_users - 1) if num_users > 1 else math.inf
    v11 = scale * float(influence @ influence)
    v22 = scale * float(other_influence @ other_influence)
    v12 = scale * float(influence @ other_influence)
    ratio = value / other
    se = math.sqrt(max(v11 - 2 * ratio * v12 + ratio**2 * v22, 0.0)) / abs(other)
    a = other**2 - Z95**2 * v22
    b = value * other - Z95**2 * v12
    c = value**2 - Z95**2 * v11
    discriminant = b * b - a * c
    if a <= 0 or discriminant < 0:
        return Estimate(value=ratio, se=se, low=-math.inf, high=math.inf)
    root = math.sqrt(discriminant)
    return Estimate(value=ratio, se=se, low=(b - root) / a, high=(b + root) / a)


def user_sums(influence: Float[ndarray, " events"], users: Int[ndarray, " events"], num_users: int) -> ndarray:
    """Return the sum of each user's influence values, [num_users] float64.

    Args:
        influence: One value an event.
        users: User index of each event, in ``[0, num_users)``.
        num_users: Length of the result.
    """
    return np.bincount(users, weights=influence, minlength=num_users)
