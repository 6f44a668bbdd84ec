"""Does the exchange rate of a metric cover the truth, and find its break? `python exchange_rate.py [--curves 200]`."""

from __future__ import annotations

import argparse
import itertools

import numpy as np
from numpy.typing import NDArray

from lis_lightning.results import ExchangeRate, Snapshot, exchange_rates

RATE, NUM_USERS, SE = 0.0002, 200, 0.0005  # AIS for 1 % more, users, and the error of AIS by the sampling of users
SETTINGS = list(itertools.product((6, 10, 20), (0.0, 0.001), (0.0, 0.03)))  # snapshots, departures, noise of the metric


def curve(
    num: int, departures: float, metric_noise: float, rng: np.random.Generator, *, breaks: bool
) -> list[Snapshot]:
    """Return a run whose metric saturates, and whose AIS follows it, up to the middle of the run if the rate breaks."""
    log_metric = np.log(0.2) + 0.5 * (1 - np.exp(-3 * np.arange(num) / num))
    shared = rng.standard_normal(NUM_USERS)
    influence = SE / np.sqrt(NUM_USERS) * (0.9 * shared + 0.44 * rng.standard_normal((num, NUM_USERS)))
    followed: NDArray[np.float64] = np.minimum(log_metric, log_metric[num // 2]) if breaks else log_metric
    ais = RATE * followed / np.log(1.01) + influence.sum(axis=1) + departures * rng.standard_normal(num)
    seen = np.exp(log_metric + metric_noise * rng.standard_normal(num))
    return [
        Snapshot(
            ais=ais[at], ais_low=0, ais_high=0, ais_geometry=0, auc_base=0.7, auc=0.7, step=50 * at,
            influence=influence[at], watched={"recall": float(seen[at])},
        )
        for at in range(num)
    ]  # fmt: skip


def rates(setting: tuple[int, float, float], num_curves: int, *, breaks: bool) -> list[ExchangeRate]:
    """Return the exchange rate of each of some curves."""
    rng = np.random.default_rng([SETTINGS.index(setting), breaks])
    return [exchange_rates(curve(*setting, rng, breaks=breaks))[0] for _ in range(num_curves)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--curves", type=int, default=200, help="of each setting")
    args = parser.parse_args()
    print(
        "| snapshots | departures | noise of the metric | covered | false breaks | breaks found |\n"
        + "| --- " * 6
        + "|"
    )
    for setting in SETTINGS:
        straight, broken = (rates(setting, args.curves, breaks=breaks) for breaks in (False, True))
        covered = np.mean([found.rate.low <= RATE <= found.rate.high for found in straight])
        false = np.mean([found.broke_at is not None for found in straight])
        found = np.mean([one.broke_at is not None for one in broken])
        print(f"| {' | '.join(map(str, setting))} | {covered:.3f} | {false:.3f} | {found:.2f} |")


if __name__ == "__main__":
    main()
