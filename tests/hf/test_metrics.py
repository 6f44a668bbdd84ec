"""The keys of Hugging Face's trainers: those of the loggers, without slashes."""

from __future__ import annotations

from lis_lightning.hf.metrics import evaluation_metrics, evaluator_metrics
from tests._helpers.small_results import FROZEN_KEYS, MORE_KEYS, RESULTS


def test_keys_are_those_of_the_loggers_without_slashes():
    default = {key.replace("/", "_") for key in FROZEN_KEYS} | {"lis_step"}
    more = default | {key.replace("/", "_") for key in MORE_KEYS}
    assert set(evaluator_metrics(RESULTS[1])) == default
    assert set(evaluator_metrics(RESULTS[1], more=True)) == more
    assert set(evaluation_metrics(RESULTS[1], more=True)) == {f"eval_{key}" for key in more}
    assert evaluation_metrics(RESULTS[1])["eval_lis_best_ais"] == 0.006
