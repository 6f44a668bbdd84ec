"""Planned steps, against what Lightning makes of them, and the mean training loss."""

from types import SimpleNamespace

import pytest
import torch

from lis_lightning.monitor.progress import MeanLoss, planned_steps


@pytest.mark.parametrize(
    ("max_steps", "max_epochs", "batches", "accumulate", "planned"),
    [
        (100, -1, 7, 1, 100),
        (-1, 3, 7, 1, 21),
        (-1, 3, 7, 2, 12),
        (10, 3, 7, 1, 10),
        (-1, -1, 7, 1, None),
        (-1, 3, float("inf"), 1, None),
        (50, None, float("inf"), 1, 50),
    ],
)
def test_the_plan_is_the_first_of_steps_and_epochs_to_end(max_steps, max_epochs, batches, accumulate, planned):
    trainer = SimpleNamespace(
        max_steps=max_steps, max_epochs=max_epochs, num_training_batches=batches, accumulate_grad_batches=accumulate
    )
    assert planned_steps(trainer) == planned


def test_the_mean_is_over_the_losses_since_the_last_reading():
    loss = MeanLoss()
    for outputs in ({"loss": torch.tensor(1.0)}, torch.tensor([3.0]), None, {"other": 1}, torch.zeros(2)):
        loss.add(outputs)
    assert loss.read() == 2.0
    assert str(loss.read()) == "nan"


def test_a_mean_goes_on_from_a_checkpoint():
    loss, resumed = MeanLoss(), MeanLoss()
    loss.add(torch.tensor(1.0))
    resumed.load_state_dict(loss.state_dict())
    resumed.add(torch.tensor(2.0, requires_grad=True))
    assert resumed.read() == 1.5
