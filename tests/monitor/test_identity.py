"""The training is not disturbed: the same bits with monitors and without, in each kind of training of the matrix."""

from __future__ import annotations

import contextlib
import copy

import pytest
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging, StochasticWeightAveraging

from lis_lightning.errors import ConfigError
from lis_lightning.monitor import isolation
from tests._helpers import run_module
from tests._helpers.training import NaiveCallback, differences, fingerprint, fit, monitor_of
from tests.identity.cases import CASES, run, split

pytestmark = [
    pytest.mark.filterwarnings("ignore:Found [0-9]+ module.s. in eval mode:UserWarning"),  # frozen, on purpose
    pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning"),
    pytest.mark.filterwarnings("ignore:The number of training batches:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning"),  # in what torch.compile imports
    pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:The ``compute`` method of metric"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]

PARAMETERS = [pytest.param(case, id=case.name, marks=[pytest.mark.slow] if case.slow else []) for case in CASES]


@pytest.mark.parametrize("case", PARAMETERS)
def test_monitors_change_no_bit_and_a_naive_callback_does(case):
    outcome = run(case)
    assert outcome.compared == ["weights", "optimizer", "modes", "torch", "numpy", "python", "data"]
    assert outcome.watched == []
    assert outcome.snapshots == -1 or outcome.snapshots >= 4
    assert {"weights", "optimizer", "torch", "numpy", "python", "data"} <= set(outcome.naive)


@pytest.mark.parametrize(
    ("restored", "case"),
    [
        ("_buffers_restored", "buffers written by the encode"),
        ("generators_restored", "generators of the module"),
        ("generators_restored", "a generator of the data"),
        ("_metrics_restored", "metrics and logs in the encode"),
    ],
)
def test_the_matrix_sees_what_is_not_restored(monkeypatch, restored, case):
    monkeypatch.setattr(isolation, restored, lambda *_: contextlib.nullcontext())
    outcome = run(next(of for of in CASES if of.name == case))
    assert "weights" in outcome.watched or "data" in outcome.watched


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("case", PARAMETERS)
def test_monitors_change_no_bit_on_a_gpu(case):
    assert run(case, "gpu").watched == []


def test_what_is_compared_can_differ_one_by_one(tmp_path):
    """The matrix would not see a difference that its fingerprint does not hold."""
    disturbances = {
        "torch": lambda trainer, module: torch.rand(1),
        "modes": lambda trainer, module: module.train(),
        "weights": lambda trainer, module: module.net[0].bias.data.add_(1e-7),
        "optimizer": lambda trainer, module: trainer.optimizers[0].state_dict()["state"][0]["exp_avg"].mul_(1 + 1e-6),
    }
    for name, disturb in disturbances.items():
        one = copy.deepcopy(fingerprint(*(trained := fit(tmp_path, steps=2))))
        disturb(*trained)
        assert differences(one, fingerprint(*trained)) == [name]


@pytest.mark.slow  # in another process; the cases that take long are tested one by one
def test_the_command_prints_a_table_and_succeeds():
    done = run_module("identity", "--fast")
    assert done.returncode == 0, done.stdout + done.stderr
    assert all((case.name in done.stdout) != case.slow for case in CASES)
    assert "≠" not in done.stdout


# --- averaged weights ------------------------------------------------------------------------------------------------


def test_the_weights_in_training_are_scored_beside_an_average_of_them(tmp_path):
    seen = {"training": [], "scored": []}

    def encode(module, batch):
        if len(batch["item_id"]) < 7:  # the last batch
            seen["scored"].append(module.net[0].weight.clone())
        return module.encode_items(batch)

    class Watch(NaiveCallback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            if trainer.global_step % 2 == 0:
                seen["training"].append(pl_module.net[0].weight.detach().clone())

    monitor = monitor_of(split(), encode=encode, every_n_steps=2, progress=False)
    _, module = fit(tmp_path, monitor, EMAWeightAveraging(decay=0.5), Watch(), steps=5)
    *before, last = seen["scored"][1:]
    assert all(torch.equal(one, other) for one, other in zip(before, seen["training"], strict=True))
    assert not torch.equal(last, module.net[0].weight), "Lightning has put the average there at the end"


@pytest.mark.parametrize("averaging", [EMAWeightAveraging(), StochasticWeightAveraging(1e-2)], ids=["ema", "swa"])
def test_averaging_before_the_monitor_is_refused(tmp_path, averaging):
    name = type(averaging).__name__
    with pytest.raises(ConfigError, match=f"Expected LISMonitor before {name} in the"):
        fit(tmp_path, averaging, monitor_of(split()))
