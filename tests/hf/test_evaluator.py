"""An evaluator in sentence-transformers' Trainer: the weights of a training without it, its curve, and its stop."""

import pytest
import torch

from lis_lightning.errors import LisWarning, SnapshotError
from lis_lightning.hf import LISEarlyStoppingCallback, LISTrainerCallback
from lis_lightning.results.record import Record
from lis_lightning.results.stopping import StopRule
from tests._helpers.sentence_run import TEXTS, evaluator_of, model_of, trainer_of
from tests._helpers.small_run import curve, make_split

BY_SCORE = {
    "metric_for_best_model": "eval_lis_ais", "save_strategy": "steps", "save_steps": 2, "load_best_model_at_end": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def split():
    return make_split()


def steps_of(monitor):
    return [result.step for result in monitor.results]


def logged(trainer, key="eval_lis_ais"):
    return {entry["step"]: entry[key] for entry in trainer.state.log_history if key in entry}


def test_weights_are_those_of_an_evaluator_that_does_nothing_and_the_scores_those_of_encode(split, tmp_path):
    alone = trainer_of(tmp_path / "alone", steps=4)
    alone.train()
    after = torch.rand(3)
    evaluator = evaluator_of(split)
    watched = trainer_of(tmp_path / "watched", evaluator, steps=4)
    watched.train()
    assert torch.equal(after, torch.rand(3))
    assert all(map(torch.equal, alone.model.state_dict().values(), watched.model.state_dict().values()))
    assert steps_of(evaluator) == [0, 2, 4]
    assert logged(watched) == {result.step: result.ais for result in evaluator.results}
    embeddings = watched.model.encode([TEXTS[item] for item in split.item_ids])
    assert split.score(embeddings, ceilings=()).ais == pytest.approx(evaluator.results[-1].ais, abs=1e-9)
    assert evaluator.record_path == tmp_path / "watched" / "eval" / "record.jsonl"


def test_checkpoints_are_ranked_by_the_score(split, tmp_path):
    evaluator = evaluator_of(split)
    trainer = trainer_of(tmp_path, evaluator, steps=4, **BY_SCORE)
    trainer.train()
    best = max(evaluator.results[1:], key=lambda result: result.ais)
    assert trainer.state.best_metric == best.ais
    assert trainer.state.best_model_checkpoint.endswith(f"-{best.step}")
    # After training the best weights are loaded, at the last step: they are scored, and the curve stays.
    assert trainer.evaluate()["eval_lis_ais"] == pytest.approx(best.ais, abs=1e-9)
    assert steps_of(evaluator) == [0, 2, 4]


def test_the_rule_stops_the_training_by_the_planned_steps_and_notes_the_loss(split, tmp_path):
    evaluator = evaluator_of(split, rule=StopRule(min_gain=1.0, min_progress=0))
    trainer = trainer_of(tmp_path, evaluator, [LISEarlyStoppingCallback(evaluator)], steps=40)
    trainer.train()
    assert trainer.state.global_step == steps_of(evaluator)[-1] < 40
    assert evaluator.reason
    losses = logged(trainer, "loss")
    assert evaluator.results[1].train_loss == pytest.approx((losses[1] + losses[2]) / 2, rel=1e-6)


def test_a_resumed_training_goes_on_with_its_curve_and_record(split, tmp_path):
    def train(steps, resume=False):
        evaluator = evaluator_of(split)
        callbacks = [LISEarlyStoppingCallback(evaluator)]
        trainer_of(tmp_path, evaluator, callbacks, steps=steps, save_strategy="steps", save_steps=3).train(resume)
        return evaluator

    first = train(steps=4)  # its last snapshot is of a later step than the checkpoint
    second = train(steps=6, resume=True)
    assert steps_of(first) == [0, 2, 4]
    assert steps_of(second) == [0, 2, 4, 6]
    assert curve(second.results[:2]) == curve(first.results[:2])
    assert second.record_path == first.record_path
    assert [result.step for result in Record.read(second.record_path)[1]] == [0, 2, 4, 6]


def test_a_failed_evaluation_ends_neither_the_training_nor_the_ranking(split, tmp_path, monkeypatch):
    evaluator = evaluator_of(split)
    trainer = trainer_of(tmp_path, evaluator, steps=6, **BY_SCORE)
    encode = trainer.model.encode

    def failing(*arguments, **options):
        if trainer.state.global_step == 4:
            raise OSError("disk")
        return encode(*arguments, **options)

    monkeypatch.setattr(trainer.model, "encode", failing)
    with pytest.warns(LisWarning, match="the snapshot of step 4 failed"):
        trainer.train()
    assert steps_of(evaluator) == [0, 2, 6]
    assert logged(trainer)[4] == logged(trainer)[2]


def test_a_second_training_starts_a_new_curve(split, tmp_path):
    evaluator = evaluator_of(split)
    for folder in ("first", "second"):
        trainer_of(tmp_path / folder, evaluator, steps=2).train()
    assert steps_of(evaluator) == [0, 2]
    assert evaluator.record_path.parent == tmp_path / "second" / "eval"


def test_outside_of_a_training_a_model_is_scored_without_a_curve(split):
    evaluator = evaluator_of(split, name="short", truncate_dim=4)
    values = evaluator(model_of())
    embeddings = model_of().encode([TEXTS[item] for item in split.item_ids])[:, :4]
    assert evaluator.primary_metric == "lis_short_ais"
    assert values["lis_short_ais"] == pytest.approx(split.score(embeddings, ceilings=()).ais, abs=1e-9)
    assert evaluator.results == []
    assert evaluator.record_path is None


def test_missing_inputs_are_named(split):
    inputs = {item: text for item, text in TEXTS.items() if item != 3}
    with pytest.raises(SnapshotError, match="3"):
        evaluator_of(split, inputs=inputs)(model_of())


def test_the_model_card_names_the_score(split, tmp_path):
    trainer = trainer_of(tmp_path, evaluator_of(split), steps=2)
    trainer.train()
    trainer.save_model(str(tmp_path / "model"))
    assert "lis_ais" in (tmp_path / "model" / "README.md").read_text()


def test_the_callback_of_the_trainer_works_in_this_trainer_too(split, tmp_path):
    items = [{"item_id": item, "text": text} for item, text in TEXTS.items()]
    monitor = LISTrainerCallback(
        split, items, encode=lambda model, batch: model.encode(batch["text"], convert_to_tensor=True),
        every_n_steps=2, placebo=False, ceilings=(), progress=False,
    )  # fmt: skip
    trainer = trainer_of(tmp_path, steps=2)
    monitor.attach(trainer)
    trainer.train()
    assert steps_of(monitor) == [0, 2]
    expected = evaluator_of(split)(trainer.model)["lis_ais"]
    assert monitor.results[-1].ais == pytest.approx(expected, abs=1e-9)
