"""What the stop rule loses and saves, and how often verdicts are wrong, on simulated runs: `python stop_rule.py`."""

from __future__ import annotations

import argparse
import itertools
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import polars as pl
from simulated_runs import CURVES, NUM_STEPS, simulated_run, snapshot_steps

from lis_lightning.results import Snapshot, StopRule, judge, stop_reason

NUMBERS = {"even": (10, 20, 50, 100, 200), "geometric": (10, 20, 50)}
NOISE = tuple(itertools.product((0.0005, 0.001), (0.0, 0.1)))  # error of a paired difference, and its memory


def stopped_at(results: Sequence[Snapshot], rule: StopRule | None = None, max_steps: int | None = NUM_STEPS) -> int:
    """Return the index of the snapshot that a rule stops at; the last if it does not."""
    for last in range(len(results) - 1):
        if stop_reason(results[: last + 1], rule, max_steps):
            return last
    return len(results) - 1


def lost_and_saved(
    curve: str, number: int, spacing: str, seeds: Iterable[int], rule: StopRule | None = None
) -> tuple[float, float]:
    """Return the mean share of the best true gain that is lost, and the mean share of the steps that is saved.

    Args:
        curve: Name of the learning curve.
        number: Snapshots after the raw one.
        spacing: ``even`` or ``geometric``.
        seeds: Of the noise; every seed is run at every noise level.
        rule: The stop rule; None takes the defaults.
    """
    steps = snapshot_steps(number, spacing)
    truth = CURVES[curve](steps / NUM_STEPS)
    span = np.ptp(truth) or 1.0
    outcomes = []
    for seed, (paired_se, memory) in itertools.product(seeds, NOISE):
        results = simulated_run(steps, truth, seed=seed, paired_se=paired_se, memory=memory)
        last = stopped_at(results, rule)
        best = max(range(last + 1), key=lambda index: results[index].ais)
        outcomes.append(((truth.max() - truth[best]) / span, 1 - steps[last] / NUM_STEPS))
    lost, saved = np.mean(outcomes, axis=0)
    return float(lost), float(saved)


def table(seeds: Sequence[int], rule: StopRule | None = None) -> pl.DataFrame:
    """Return a row for each learning curve and spacing, with lost / saved in per cent for each number of snapshots."""
    rows = []
    for curve, spacing in itertools.product(CURVES, NUMBERS):
        row = {"curve": curve, "snapshots": spacing}
        for number in NUMBERS["even"]:
            row[str(number)] = "-"
            if number in NUMBERS[spacing]:
                lost, saved = lost_and_saved(curve, number, spacing, seeds, rule)
                row[str(number)] = f"{100 * lost:.1f} / {100 * saved:.0f}"
        rows.append(row)
    return pl.DataFrame(rows)


def verdict_counts(curve: str, number: int, seeds: Iterable[int], *, every: int = 1) -> dict[str, float]:
    """Return the share of evenly spaced runs in which each verdict is given at some look, and at the end.

    Args:
        curve: Name of the learning curve.
        number: Snapshots after the raw one.
        seeds: Of the noise; every seed is run at every noise level.
        every: Looks are at every so many snapshots, and at the last.

    Returns:
        Shares by verdict, those at the end as ``end: <verdict>``.
    """
    steps = snapshot_steps(number, "even")
    truth = CURVES[curve](steps / NUM_STEPS)
    claims: Counter[str] = Counter()
    num_runs = 0
    for seed, (paired_se, memory) in itertools.product(seeds, NOISE):
        results = simulated_run(steps, truth, seed=seed, paired_se=paired_se, memory=memory)
        looks = {*range(1, len(results), every), len(results)}
        verdicts = [judge(results[:look], max_steps=NUM_STEPS).verdict for look in sorted(looks)]
        claims.update({*verdicts, f"end: {verdicts[-1]}"})
        num_runs += 1
    return {verdict: count / num_runs for verdict, count in claims.items()}


def verdict_table(seeds: Sequence[int]) -> pl.DataFrame:
    """Return the share of runs in which a verdict is given wrongly at some look, or rightly at the end, in per cent."""
    rows = []
    for number in NUMBERS["even"][:4]:
        flat = verdict_counts("flat", number, seeds)
        fall = verdict_counts("falls after .4", number, seeds, every=number)
        shares = {
            "flat: improving at some look": flat.get("improving", 0.0),
            "flat: past-its-best at some look": flat.get("past-its-best", 0.0),
            "falls by 20 %: past-its-best at the end": fall.get("end: past-its-best", 0.0),
        }
        rows.append({"snapshots": number, **{name: f"{100 * share:.1f}" for name, share in shares.items()}})
    return pl.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs=2, default=(1000, 1010), help="first seed and end")
    args = parser.parse_args()
    plain = {"tbl_formatting": "MARKDOWN", "tbl_hide_column_data_types": True, "tbl_hide_dataframe_shape": True}
    with pl.Config(tbl_rows=-1, tbl_cols=-1, tbl_width_chars=200, fmt_str_lengths=99, **plain):
        print(table(range(*args.seeds)))
        print(verdict_table(range(*args.seeds)))


if __name__ == "__main__":
    main()
