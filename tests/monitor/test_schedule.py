"""When a snapshot is due: schedules by themselves, and several of them with a clock."""

from __future__ import annotations

import copy
import json
import os
import pickle
import signal
import threading
from pathlib import Path

import hydra
import pytest

from lis_lightning.errors import ConfigError
from lis_lightning.monitor import scheduler as scheduler_module
from lis_lightning.monitor.on_demand import OnFile, OnSignal
from lis_lightning.monitor.schedule import (
    AtSteps,
    Budget,
    EveryEpochs,
    EveryMinutes,
    EverySteps,
    EveryValidation,
    LogSpaced,
    Moment,
    Schedule,
)
from lis_lightning.monitor.scheduler import Scheduler, make_scheduler


def taken(schedule, moments):
    """Steps of the snapshots, if the raw one is the first moment."""
    last, *later = moments
    steps = []
    for now in later:
        if schedule.due(now, last):
            steps.append(now.step)
            last = now
    return steps


def steps_to(end, stride=1):
    return [Moment(step=step) for step in range(0, end + 1, stride)]


# --- schedules by themselves ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "moments", "expected"),
    [
        pytest.param(EverySteps(3), steps_to(10), [3, 6, 9], id="steps"),
        pytest.param(EverySteps(3), steps_to(10, 2), [4, 6, 10], id="two-steps-a-batch"),
        pytest.param(AtSteps([5, 2, 9]), steps_to(12), [2, 5, 9], id="at"),
        pytest.param(AtSteps([5, 6]), steps_to(12, 2), [6], id="at-two-steps-a-batch"),
        pytest.param(LogSpaced(1, per_decade=3), steps_to(120), [1, 2, 5, 10, 22, 46, 100], id="log-from-1"),
        pytest.param(LogSpaced(10, per_decade=1), steps_to(1000), [10, 100, 1000], id="decades"),
        pytest.param(
            EveryEpochs(2), [Moment(step=step, epoch=step // 3) for step in range(14)], [6, 12], id="epochs"
        ),
        pytest.param(
            EveryValidation(), [Moment(step=step, validations=step // 5) for step in range(12)], [5, 10],
            id="validation",
        ),
        pytest.param(
            EveryMinutes(0.5), [Moment(step=step, seconds=12.0 * step) for step in range(11)], [3, 6, 9], id="minutes"
        ),
    ],
)  # fmt: skip
def test_due_steps(schedule, moments, expected):
    assert taken(schedule, moments) == expected


@pytest.mark.parametrize(("first", "per_decade"), [(1, 1), (1, 10), (3, 7), (10, 4), (50, 20)])
def test_log_spaced_points_are_the_rounded_powers(first, per_decade):
    points = {round(first * 10 ** (index / per_decade)) for index in range(4 * per_decade)}
    assert taken(LogSpaced(first, per_decade), steps_to(4000)) == sorted(step for step in points if step <= 4000)


def test_budget_holds_its_share_when_the_cost_changes():
    """A clock of its own: a step takes 0.1 s, a snapshot 2 s, and 6 s later on."""
    share, last, spent, seconds, cost = 0.05, Moment(cost=2.0), 0.0, 0.0, 2.0
    shares, gaps = [], []
    for step in range(1, 20_001):
        seconds += 0.1
        now = Moment(step=step, seconds=seconds, spent=spent, cost=cost)
        if Budget(share).due(now, last):
            gaps.append(step - last.step)
            cost = 2.0 if step < 8000 else 6.0
            seconds, spent, last = seconds + cost, spent + cost, now
            shares.append(spent / seconds)
    assert shares[0] == pytest.approx(0.05, abs=0.003)
    assert max(shares) < 0.06
    assert shares[-1] == pytest.approx(0.05, abs=0.001)
    assert gaps[1] == pytest.approx(380, abs=2)  # 38 s of training for 2 s
    assert gaps[-1] == pytest.approx(1140, abs=2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EverySteps(0), r"`EverySteps\(n\)` must be at least 1 optimizer step, a whole number, got 0"),
        (lambda: EverySteps(2.5), r"a whole number, got 2\.5"),
        (lambda: EverySteps(True), r"a whole number, got True"),
        (lambda: EveryEpochs(-1), r"`EveryEpochs\(n\)` must be at least 1 epoch, a whole number, got -1"),
        (lambda: EveryValidation(0), r"at least 1 validation run, a whole number, got 0"),
        (lambda: LogSpaced(0), r"`LogSpaced\(first\)` must be at least 1 optimizer step, a whole number, got 0"),
        (lambda: LogSpaced(10, per_decade=0), r"`LogSpaced\(per_decade\)` must be at least 1 snapshot"),
        (lambda: AtSteps([]), r"`AtSteps\(steps\)` needs at least one optimizer step, got none"),
        (lambda: AtSteps([3, 0]), r"`AtSteps\(steps\)` must be at least 1 optimizer step, a whole number, got 0"),
        (lambda: EveryMinutes(0), r"`EveryMinutes\(minutes\)` must be above 0, got 0"),
        (lambda: EveryMinutes(float("nan")), r"must be above 0, got nan"),
        (lambda: Budget(5), r"`Budget\(share\)` must be between 0 and 1 \(0\.05 for 5 %\), got 5"),
        (lambda: OnFile(poll_seconds=-1), r"`OnFile\(poll_seconds\)` must be at least 0, got -1"),
        (lambda: OnSignal("SIGNONE"), r"a signal such as 'SIGUSR1', got 'SIGNONE'"),
        (lambda: make_scheduler(0, None), r"`every_n_steps` must be at least 1 optimizer step, got 0"),
        (
            lambda: make_scheduler(None, [200]),
            r"of `lis_lightning.monitor` or a list of them, got 200",
        ),
        (lambda: make_scheduler(None, [EverySteps]), r"or a list of them, got <class"),
        (
            lambda: make_scheduler(None, 200),
            r"of `lis_lightning.monitor` or a list of them, got 200",
        ),
    ],
)
def test_bad_input_is_refused_with_its_value(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_hydra_makes_them():
    configs = [
        {"_target_": "lis_lightning.monitor.LogSpaced", "first": 10, "per_decade": 4},
        {"_target_": "lis_lightning.monitor.AtSteps", "steps": [1, 5]},
        {"_target_": "lis_lightning.monitor.OnFile", "path": "now"},
    ]
    assert hydra.utils.instantiate(configs) == [LogSpaced(10, 4), AtSteps([1, 5]), OnFile("now")]


# --- on demand ------------------------------------------------------------------------------------------------------


def test_a_file_asks_once_and_is_removed(tmp_path):
    schedule, raw = OnFile(), Moment()
    schedule.start(tmp_path)
    assert not schedule.due(Moment(step=1, seconds=0.0), raw)
    (tmp_path / "snapshot").touch()
    assert not schedule.due(Moment(step=2, seconds=0.9), raw), "it looks once a second"
    assert schedule.due(Moment(step=3, seconds=1.0), raw)
    schedule.taken()
    assert not (tmp_path / "snapshot").exists()
    assert not schedule.due(Moment(step=4, seconds=5.0), raw)
    schedule.stop()
    (tmp_path / "snapshot").touch()
    assert not schedule.due(Moment(step=5, seconds=9.0), raw)


def test_a_file_that_cannot_be_removed_asks_once_until_it_is_touched_again(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: (_ for _ in ()).throw(PermissionError("read-only")))
    schedule = OnFile(str(tmp_path / "now"), poll_seconds=0)
    schedule.start(Path("elsewhere"))
    (tmp_path / "now").touch()
    assert schedule.due(Moment(step=1), Moment())
    schedule.taken()
    assert not schedule.due(Moment(step=2), Moment(step=1))
    os.utime(tmp_path / "now", (1, 1))
    assert schedule.due(Moment(step=3), Moment(step=1))


def test_a_signal_asks_once_and_its_handler_goes(tmp_path):
    before = signal.getsignal(signal.SIGUSR1)
    first, second = OnSignal(), OnSignal()
    for schedule in (first, second):
        schedule.start(tmp_path)
    assert not first.due(Moment(step=1), Moment())
    os.kill(os.getpid(), signal.SIGUSR1)
    assert first.due(Moment(step=2), Moment())
    assert second.due(Moment(step=2), Moment()), "two monitors may wait for one signal"
    first.taken()
    assert not first.due(Moment(step=3), Moment())
    first.stop()
    assert signal.getsignal(signal.SIGUSR1) != before
    second.stop()
    second.stop()
    assert signal.getsignal(signal.SIGUSR1) == before


def test_a_signal_that_has_a_handler_is_refused(tmp_path):
    before = signal.signal(signal.SIGUSR2, lambda *_: None)
    try:
        with pytest.raises(ConfigError, match=r"OnSignal\('SIGUSR2'\): the signal already has a handler, <function"):
            OnSignal("SIGUSR2").start(tmp_path)
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_a_signal_outside_the_main_thread_is_refused(tmp_path):
    said = []

    def start():
        try:
            OnSignal().start(tmp_path)
        except ConfigError as error:
            said.append(str(error))

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert said == ["OnSignal('SIGUSR1') needs a fit in the main thread; use OnFile() elsewhere."]


# --- several, with a clock ------------------------------------------------------------------------------------------


class Always(Schedule):
    def due(self, now, last):
        return True


def alone(due):
    return due


def started(*schedules, shared=False, step=0):
    plan = Scheduler(schedules)
    plan.start(Path(), step=step, epoch=0, shared=shared)
    with plan.taking(step):
        pass
    return plan


def test_any_of_several_makes_a_snapshot_due():
    plan = started(EverySteps(4), AtSteps([3]), EveryEpochs())
    steps = []
    for step in range(1, 10):
        if plan.due(step, epoch=step // 7, decide=alone):
            steps.append(step)
            with plan.taking(step):
                pass
    assert steps == [3, 4, 7, 8]


def test_a_step_is_tried_once():
    plan = started(Always())
    assert not plan.due(0, 0, alone)
    assert plan.due(1, 0, alone)
    with pytest.raises(OSError), plan.taking(1):  # noqa: PT011  # raised here
        raise OSError
    assert not plan.due(1, 0, alone)


def test_a_snapshot_serves_the_validation_at_its_step_too():
    plan = started(EverySteps(5), EveryValidation())
    assert plan.due(5, 0, alone)
    with plan.taking(5):
        pass
    assert not plan.due(5, 0, alone, validation=True)
    assert not plan.due(6, 0, alone)
    assert plan.due(8, 0, alone, validation=True)


def test_the_raw_snapshot_is_on_top_of_the_budget(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(scheduler_module.time, "perf_counter", lambda: clock[0])
    plan = Scheduler([Budget(0.1)])
    plan.start(Path(), step=0, epoch=0, shared=False)
    with plan.taking(0):
        clock[0] += 50.0
    clock[0] += 499.0
    assert not plan.due(1, 0, alone)
    clock[0] += 1.0
    assert plan.due(2, 0, alone)
    with plan.taking(2):
        clock[0] += 2.0
    clock[0] += 1.0
    assert plan.due(3, 0, alone), "4 of 503 seconds"
    with plan.waiting():
        clock[0] += 60.0
    assert not plan.due(4, 0, alone), "what is waited for later counts"


def test_several_processes_ask_the_first_one_rarely_and_only_where_it_matters():
    asked = []

    def first_says(due):
        asked.append(due)
        return True

    steady = started(EverySteps(1000), shared=True)
    assert not any(steady.due(step, 0, first_says) for step in range(1, 500))
    assert asked == []
    local = started(EverySteps(25), EveryMinutes(100), shared=True)
    due = [step for step in range(1, 30) if local.due(step, 0, first_says)]
    assert due == [10, 20, 25, 26, 27, 28, 29]
    assert asked == [False, False], "at steps 10 and 20; at 25 every process knows by itself"


def test_state_goes_on_where_it_was(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(scheduler_module.time, "perf_counter", lambda: clock[0])
    plan = started(EveryMinutes(1), EveryValidation(2))
    clock[0] = 40.0
    assert not plan.due(7, 3, alone, validation=True)
    state = json.loads(json.dumps(plan.state_dict()))
    clock[0] = 9000.0  # the time between two processes is no training
    other = Scheduler([EveryMinutes(1), EveryValidation(2)])
    other.load_state_dict(state)
    other.start(Path(), step=7, epoch=3, shared=False)
    clock[0] += 19.0
    assert not other.due(8, 3, alone)
    assert other.due(9, 3, alone, validation=True)
    clock[0] += 1.0
    assert other.due(10, 3, alone)
    other.stop()
    clock[0] += 500.0
    assert other.state_dict()["now"]["seconds"] == 60.0


def test_schedules_travel_with_a_trainer(tmp_path):
    schedules = [EverySteps(3), LogSpaced(), AtSteps([4]), Budget(0.1), OnFile(), OnSignal(), EveryMinutes(3)]
    assert pickle.loads(pickle.dumps(schedules)) == copy.deepcopy(schedules) == schedules
    assert make_scheduler(5, schedules).describe()[:2] == ["EverySteps(n=5)", "EverySteps(n=3)"]
    assert make_scheduler(None, None).describe() == ["EverySteps(n=200)"]
