"""Runs whose truth is known, without training: a learning curve, and per-user influence vectors with measured noise."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from lis_lightning.functional import cluster_interval
from lis_lightning.results import Snapshot

NUM_STEPS = 1000
NUM_USERS = 300
COMMON_SE = 0.003  # of AIS, from what the users do at all snapshots alike; it cancels in differences
GAIN = 0.03
Curve = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def _saturating(progress: NDArray[np.float64], pace: float) -> NDArray[np.float64]:
    return GAIN * (1 - np.exp(-progress / pace)) / (1 - np.exp(-1 / pace))


def _through(progress: NDArray[np.float64], shares: list[float], gains: list[float]) -> NDArray[np.float64]:
    return np.interp(progress, shares, gains)


CURVES: dict[str, Curve] = {  # the true AIS at a share of the planned steps
    "linear": partial(_through, shares=[0, 1], gains=[0, GAIN]),
    "tau .1": partial(_saturating, pace=0.1),
    "tau .2": partial(_saturating, pace=0.2),
    "tau .4": partial(_saturating, pace=0.4),
    "flat after .3": partial(_through, shares=[0, 0.3, 1], gains=[0, GAIN, GAIN]),
    "flat": partial(_through, shares=[0, 1], gains=[0.01, 0.01]),
    "dip, then rise": partial(_through, shares=[0, 0.1, 0.25, 1], gains=[0.01, 0, 0.01, GAIN]),
    "pause, then rise": partial(_through, shares=[0, 0.2, 0.4, 1], gains=[0, 0.01, 0.012, GAIN]),
    "falls after .4": partial(_through, shares=[0, 0.4, 1], gains=[0, GAIN, 0.8 * GAIN]),
}


def snapshot_steps(number: int, spacing: str) -> NDArray[np.int64]:
    """Return the steps of the raw snapshot and so many more, up to the last step.

    Args:
        number: Snapshots after the raw one.
        spacing: ``even`` or ``geometric``.
    """
    if spacing == "even":
        return np.rint(np.linspace(0, NUM_STEPS, number + 1)).astype(int)
    return np.unique(np.rint(np.r_[0, np.geomspace(1, NUM_STEPS, number)]).astype(int))


def _noise(steps: NDArray[np.int64], memory: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return standard normal noise per snapshot and user, correlated between steps that are close."""
    noise = rng.standard_normal((steps.size, NUM_USERS))
    if memory > 0:
        for index in range(1, steps.size):
            share = np.exp(-(steps[index] - steps[index - 1]) / (memory * NUM_STEPS))
            noise[index] = share * noise[index - 1] + np.sqrt(1 - share**2) * noise[index]
    return noise


def simulated_run(
    steps: NDArray[np.int64], truth: NDArray[np.float64], *, seed: int, paired_se: float = 0.001, memory: float = 0.0
) -> list[Snapshot]:
    """Return the snapshots of a run.

    Args:
        steps: Steps of the snapshots.
        truth: True AIS of each.
        seed: Of the noise.
        paired_se: Standard error of the difference of two snapshots far apart.
        memory: Share of the planned steps over which the noise of two snapshots stays correlated; 0 for none.
    """
    rng = np.random.default_rng([seed, steps.size, round(1e5 * paired_se), round(1e3 * memory)])
    own = _noise(steps, memory, rng) * paired_se / np.sqrt(2)
    influence = (own + COMMON_SE * rng.standard_normal(NUM_USERS)) / np.sqrt(NUM_USERS)
    values = truth + influence.sum(axis=1)
    influence -= influence.mean(axis=1, keepdims=True)
    return [_snapshot(int(step), float(ais), row) for step, ais, row in zip(steps, values, influence, strict=True)]


def _snapshot(step: int, ais: float, influence: NDArray[np.float64]) -> Snapshot:
    gain = cluster_interval(ais, influence)
    return Snapshot(
        step=step, ais=ais, ais_low=gain.low, ais_high=gain.high, ais_geometry=ais, auc_base=0.7, auc=0.7 + ais,
        influence=influence, num_events=10_000,
    )  # fmt: skip
