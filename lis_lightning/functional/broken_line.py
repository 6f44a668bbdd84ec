"""Regression of correlated estimates on a covariate: the slope, and the point at which it breaks.

The estimates are those of one set of users, such as the AIS of the snapshots of a run. Their errors have two parts: the
sampling of users, known from the influence values and shared between the estimates, and departures of each estimate
from the line, whose variance is what the residuals show beyond the sampling of users (the method of moments of
DerSimonian and Laird 1986). The line is fitted by least squares, so the slope is linear in the estimates and has
influence values itself; a departure counts as one more user that only its own estimate has.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from lis_lightning.functional.intervals import Estimate, cluster_interval

NUM_DRAWS = 2000  # a p value of .05 is then known to .005
MIN_INTERVALS = 2  # between estimates, on either side of a break
MAX_CANDIDATES = 50  # break points tried; those of a longer curve are spread evenly


@dataclass(frozen=True, kw_only=True)
class SlopeBreak:
    """The most likely point at which a slope changes.

    Attributes:
        index: Index of the last estimate with the slope before.
        p: Probability that a single line shows a change as clear as this anywhere.
        before: The slope before, with its interval.
        since: The slope since.

    Example:
        >>> slope = Estimate(value=1.0, se=0.1, low=0.8, high=1.2)
        >>> SlopeBreak(index=5, p=0.01, before=slope, since=slope).index
        5
    """

    index: int
    p: float
    before: Estimate
    since: Estimate


def slope(
    x: Float[ndarray, " estimates"], values: Float[ndarray, " estimates"], influence: Float[ndarray, "estimates users"]
) -> Estimate:
    """Return the least-squares slope of estimates on a covariate, with its interval clustered by user.

    Args:
        x: The covariate; at least three values, not all equal.
        values: The estimates.
        influence: Per-user influence values of each estimate.

    Returns:
        The slope; its error covers the sampling of users and departures of the estimates from the line.

    Example:
        >>> x = np.arange(5.0)
        >>> noise = 0.01 * np.random.default_rng(0).standard_normal((5, 1000)) / 1000**0.5
        >>> found = slope(x, 0.002 * x, noise)
        >>> round(found.value, 4), bool(0.001 < found.se < 0.01)
        (0.002, True)
    """
    return _coefficients(np.stack([np.ones_like(x), x], axis=1), values, influence, [[0.0, 1.0]])[0]


def slope_break(
    x: Float[ndarray, " estimates"], values: Float[ndarray, " estimates"], influence: Float[ndarray, "estimates users"]
) -> SlopeBreak | None:
    """Return the point after which the slope of estimates on a covariate differs most clearly from that before.

    The line is continuous and has a kink at one of the estimates. Each is tried, and the largest studentised change of
    the slope is compared with the largest of curves drawn without a kink (a sup test, Andrews 1993), which corrects for
    the number of points tried.

    Args:
        x: The covariate, in the order of the estimates.
        values: The estimates.
        influence: Per-user influence values of each estimate.

    Returns:
        The most likely break with its p value, however large; None with fewer than five estimates, or if the covariate
        does not move on both sides of any point.

    Example:
        >>> x = np.arange(12.0)
        >>> noise = 0.0001 * np.random.default_rng(0).standard_normal((12, 1000)) / 1000**0.5
        >>> found = slope_break(x, 0.002 * np.minimum(x, 6) + noise.sum(axis=1), noise)
        >>> found.index, found.p < 0.01, round(found.before.value, 3), abs(found.since.value) < 0.001
        (6, True, 0.002, True)
    """
    line = np.stack([np.ones_like(x), x], axis=1)
    candidates, kinks = _candidates(x)
    residual_kinks = kinks - kinks @ line @ np.linalg.pinv(line)
    squares = np.square(residual_kinks).sum(axis=1)
    # A candidate without movement of the covariate after it has no kink.
    usable = squares > 1e-6 * np.square(x - x.mean()).sum()
    if not usable.any():
        return None
    rounding = (1e-9 * np.abs(values).max()) ** 2  # so that a line without any noise has no break
    covariance = _covariance(influence) + rounding * np.eye(x.size)
    changes = _Changes(line, residual_kinks[usable], squares[usable], covariance)
    clearest = changes.studentised(values[None])[0]
    best = int(clearest.argmax())
    departures = _departure_variance(line, values, covariance)
    drawn = changes.studentised(_draws(covariance + departures * np.eye(x.size)))
    p = (1 + int((drawn.max(axis=1) >= clearest[best]).sum())) / (1 + NUM_DRAWS)
    design = np.column_stack([line, kinks[usable][best]])
    before, since = _coefficients(design, values, influence, [[0.0, 1.0, 0.0], [0.0, 1.0, 1.0]])
    return SlopeBreak(index=int(candidates[usable][best]), p=p, before=before, since=since)


@dataclass(frozen=True)
class _Changes:
    """The change of slope at each candidate, as a function of the estimates.

    Attributes:
        line: Design of the line without a kink, [estimates, 2].
        kinks: What the kinks add to it, orthogonal to the line, [candidates, estimates].
        squares: Their sums of squares, [candidates].
        covariance: Of the estimates by the sampling of users.
    """

    line: ndarray
    kinks: ndarray
    squares: ndarray
    covariance: ndarray

    def studentised(self, values: ndarray) -> ndarray:
        """Return the absolute change of slope in standard errors, [curves, candidates], of [curves, estimates]."""
        residual = _residual(self.line)
        changes = values @ self.kinks.T / self.squares
        unexplained = np.square(values @ residual).sum(axis=1, keepdims=True) - changes**2 * self.squares
        sampled = np.einsum("ct,ts,cs->c", self.kinks, self.covariance, self.kinks) / self.squares
        expected = float((residual * self.covariance).sum()) - sampled
        degrees = self.line.shape[0] - self.line.shape[1] - 1
        departures = np.maximum(unexplained - expected, 0.0) / degrees
        errors = np.sqrt((sampled + departures) / self.squares)
        return np.asarray(np.abs(changes) / np.maximum(errors, 1e-300))


def _candidates(x: ndarray) -> tuple[ndarray, ndarray]:
    """Return the indices at which the slope may change, and the covariate beyond each of them."""
    last = x.size - 1 - MIN_INTERVALS
    number = min(max(last - MIN_INTERVALS + 1, 0), MAX_CANDIDATES)
    candidates = np.linspace(MIN_INTERVALS, last, number).round().astype(np.int64)
    later = np.arange(x.size) > candidates[:, None]
    return candidates, np.where(later, x - x[candidates, None], 0.0)


def _coefficients(design: ndarray, values: ndarray, influence: ndarray, contrasts: list[list[float]]) -> list[Estimate]:
    """Return linear combinations of the coefficients of a least-squares fit, with their intervals."""
    departures = _departure_variance(design, values, _covariance(influence))
    own = np.sqrt(departures) * np.eye(values.size)
    weights = np.asarray(contrasts) @ np.linalg.pinv(design)
    combined = weights @ np.concatenate([influence, own], axis=1)
    return [cluster_interval(float(weight @ values), row) for weight, row in zip(weights, combined, strict=True)]


def _departure_variance(design: ndarray, values: ndarray, covariance: ndarray) -> float:
    """Return the variance of the estimates about the fit, beyond that of the sampling of users."""
    residual = _residual(design)
    degrees = max(values.size - design.shape[1], 1)
    excess = float(np.square(residual @ values).sum() - (residual * covariance).sum())
    return float(max(excess, 0.0) / degrees)


def _residual(design: ndarray) -> ndarray:
    """Return the matrix that takes values to their residuals."""
    return np.asarray(np.eye(len(design)) - design @ np.linalg.pinv(design))


def _covariance(influence: ndarray) -> ndarray:
    """Return the covariance of the estimates by the sampling of users."""
    num_users = influence.shape[1]
    return np.asarray(influence @ influence.T * (num_users / max(num_users - 1, 1)))


def _draws(covariance: ndarray) -> ndarray:
    """Return normal draws with a covariance, [draws, estimates]."""
    values, vectors = np.linalg.eigh(covariance)
    draws = np.random.default_rng(0).standard_normal((NUM_DRAWS, len(covariance)))
    return np.asarray(draws @ (vectors * np.sqrt(values.clip(0))).T)
