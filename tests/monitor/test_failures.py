"""Whatever fails in a snapshot, the training goes on as if it were alone, and the failure is kept; or strict raises.

Each fault sets in after the snapshot of step 0 and before that of step 2, by real means where there are any.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import resource
import shutil
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import CSVLogger

from lis_lightning.errors import ConfigError, ItemError, LisWarning, NonFiniteError, RecordError, ShapeError
from lis_lightning.monitor import run_history as history_module, storage
from lis_lightning.results.record import Record
from lis_lightning.scoring.scorer import Scorer
from tests._helpers import small_run

STEPS, FROM = 6, 2

pytestmark = pytest.mark.filterwarnings("ignore:Found 1 module.s. in eval mode")  # the frozen part, on purpose


@pytest.fixture(scope="module")
def split():
    return small_run.make_split()


def bits(trainer, module):
    moments = [value for state in trainer.optimizers[0].state.values() for value in state.values()]
    return [value.clone() for value in (*module.state_dict().values(), *moments)]


def random_states():
    numpy = np.random.get_state()
    return torch.get_rng_state().tolist(), numpy[1].tolist(), numpy[2], random.getstate()


class Witness(Callback):
    """Stands before the monitor: lets the fault set in, and writes down what the monitor must leave as it is."""

    def __init__(self, set_in, end=lambda: None):
        self.set_in = set_in
        self.end = end

    def on_fit_start(self, trainer, pl_module):
        pl_module.net[1].eval()  # a frozen part, which a plain `train()` would wake up

    def on_train_batch_end(self, trainer, pl_module, *_):
        if trainer.global_step == FROM:
            self.set_in()
        if trainer.global_step == STEPS - 1:
            self.end()
        self.states = random_states()
        self.modes = [child.training for child in pl_module.modules()]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Weights and optimizer of the training without a monitor."""
    return bits(*small_run.fit(tmp_path_factory.mktemp("alone"), Witness(lambda: None), steps=STEPS))


@dataclass
class Fault:
    """How something fails, what it is called, and how it looks."""

    what: str
    error: type[BaseException]
    said: str
    set_in: object = staticmethod(lambda: None)
    end: object = staticmethod(lambda: None)
    monitor: dict = field(default_factory=dict)
    trainer: dict = field(default_factory=dict)
    steps: tuple = (0,)  # of the results that are left
    late: bool = False  # whether one more line may fit


class Stage:
    """What a fault may need."""

    def __init__(self, folder, patch, undo):
        self.folder = folder
        self.patch = patch
        self.undo = undo
        self.on = False

    def switch(self):
        self.on = True

    def failing(self, error, after=lambda module, batch: module.encode_items(batch)):
        """Return an encoder that draws random numbers and then fails, once the fault has set in."""

        def encode(module, batch):
            if self.on:
                torch.rand(3), random.random(), np.random.rand()
                module.train()
                raise error
            return after(module, batch)

        return encode

    def mounted(self, size):
        """Return a small file system of its own; None where this user may not make one."""
        if os.geteuid() or not shutil.which("mount"):
            return None
        folder = self.folder / "mounted"
        folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        if subprocess.run(mount, capture_output=True).returncode:
            return None
        self.undo.callback(subprocess.run, ["umount", str(folder)], check=True)
        return folder


def out_of_memory(stage):
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")
    said = "OutOfMemoryError: CUDA out of memory"
    return Fault("snapshot", torch.OutOfMemoryError, said, stage.switch, monitor={"encode": stage.failing(error)})


def not_finite(value):
    def fault(stage):
        def encode(module, batch):
            spoiled = torch.where(batch["item_id"] == 11, value, 1.0)[:, None] if stage.on else 1.0
            return module.encode_items(batch) * spoiled

        said = r"NonFiniteError: .*NaN or infinity.*\[11\]"
        return Fault("snapshot", NonFiniteError, said, stage.switch, monitor={"encode": encode})

    return fault


class Images(torch.utils.data.Dataset):
    """Items that are read from a file each, when they are asked for."""

    def __init__(self, folder, items):
        self.paths = [folder / f"{item['item_id']}.npy" for item in items]
        for path, item in zip(self.paths, items, strict=True):
            np.save(path, item["x"].numpy())

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, row):
        return {"item_id": row, "x": torch.from_numpy(np.load(self.paths[row]))}


def image_vanished(stage):
    images = Images(stage.folder, small_run.ITEMS)
    said = r"FileNotFoundError: .*7\.npy"
    return Fault("snapshot", FileNotFoundError, said, images.paths[7].unlink, monitor={"items": images})


def score_broken(stage):
    real = Scorer.score

    def score(*args, **kwargs):
        if stage.on:
            torch.rand(3)
            raise np.linalg.LinAlgError("singular matrix")
        return real(*args, **kwargs)

    stage.patch.setattr(Scorer, "score", score)
    return Fault("snapshot", np.linalg.LinAlgError, "LinAlgError: singular matrix", stage.switch)


def verdict_broken(stage):
    real = history_module.judge

    def judge(*args, **options):
        if stage.on:
            raise ZeroDivisionError("of the rule")
        return real(*args, **options)

    stage.patch.setattr(history_module, "judge", judge)
    said = "ZeroDivisionError: of the rule"
    return Fault("verdict", ZeroDivisionError, said, stage.switch, steps=(0, 2, 4, 6))


def logger_broken(stage):
    class Down(CSVLogger):
        def log_metrics(self, metrics, step=None):
            if stage.on:
                raise ConnectionError("tracker is down")

    said = "Down raised ConnectionError: tracker is down"
    loggers = {"logger": Down(stage.folder / "down")}
    return Fault("logger", RecordError, said, stage.switch, trainer=loggers, steps=(0, 2, 4, 6))


def file_broken(stage):
    def save_file(*_, **__):
        raise OSError(5, "Input/output error")

    def set_in():
        stage.patch.setattr(storage, "save_file", save_file)

    said = "OSError: .*Input/output error"
    return Fault("file", OSError, said, set_in, monitor={"save": "all"}, steps=(0, 2, 4, 6))


def disk_full(stage):
    """A file system without a free byte; where none can be mounted, a process that may not write longer files."""
    folder = stage.mounted("128k")
    if folder is None:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

        def fill():
            size = (stage.folder / "here" / "record.jsonl").stat().st_size
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + 50, hard))

        def free():
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

        stage.undo.callback(free)
        folder = stage.folder / "here"
    else:

        def fill():
            with contextlib.suppress(OSError), (folder / "filler").open("wb", buffering=0) as file:
                while file.write(b"x"):
                    pass

        def free():
            (folder / "filler").unlink()

    said = "RecordError: .*cannot be written: .*(No space left|File too large)"
    return Fault("record", RecordError, said, fill, free, {"dirpath": folder}, steps=(0, 2, 4, 6), late=True)


def file_size_limit(stage):
    stage.mounted = lambda size: None
    return disk_full(stage)


def read_only(stage):
    folder = stage.mounted("1m")
    if folder is None:
        folder = stage.folder / "here"

        def switch(writable):
            (folder / "record.jsonl").chmod(0o644 if writable else 0o444)
    else:

        def switch(writable):
            subprocess.run(["mount", "-o", f"remount,{'rw' if writable else 'ro'}", str(folder)], check=True)

    said = "RecordError: .*cannot be written: .*(Read-only file system|Permission denied)"
    options = {"dirpath": folder}
    return Fault("record", RecordError, said, lambda: switch(False), lambda: switch(True), options, steps=(0, 2, 4, 6))


FAULTS = {
    "out-of-memory": out_of_memory,
    "nan": not_finite(torch.nan),
    "infinity": not_finite(torch.inf),
    "image-vanished": image_vanished,
    "score-broken": score_broken,
    "verdict-broken": verdict_broken,
    "logger-broken": logger_broken,
    "snapshot-file-broken": file_broken,
    "disk-full": disk_full,
    "file-size-limit": file_size_limit,
    "read-only": read_only,
}


@pytest.fixture(params=FAULTS.values(), ids=FAULTS)
def fault(request, tmp_path, monkeypatch):
    with contextlib.ExitStack() as undo:
        yield request.param(Stage(tmp_path, monkeypatch, undo))
        monkeypatch.undo()


def test_the_training_goes_on_and_the_failure_is_kept(split, tmp_path, alone, fault):
    monitor = small_run.monitor_of(split, **{"dirpath": tmp_path} | fault.monitor)
    with pytest.warns(LisWarning) as caught:
        trained = small_run.fit(tmp_path, Witness(fault.set_in, fault.end), monitor, steps=STEPS, **fault.trainer)
    warned = [str(warning.message) for warning in caught if "failed." in str(warning.message)]
    assert len(warned) == 1, warned
    first = FROM + 2 if fault.late and "step 4" in warned[0] else FROM
    assert warned[0].startswith(f"LISMonitor: the {fault.what} of step {first} failed.")
    assert re.search(fault.said, warned[0])
    assert all(torch.equal(one, other) for one, other in zip(alone, bits(*trained), strict=True))
    assert tuple(result.step for result in monitor.results) == fault.steps
    assert tuple(result.step for result in Record.read(monitor.record_path)[1]) == fault.steps
    kept = [status for status in Record.statuses(monitor.record_path) if status["kind"] == "failure"]
    if fault.what != "record":  # the record cannot tell of itself
        assert [(one["what"], one["step"]) for one in kept[:2]] == [(fault.what, FROM), (fault.what, FROM + 2)]
        assert [one["error"] for one in kept if not re.search(fault.said, one["error"])] == []
    assert Record.statuses(monitor.record_path)[-1]["kind"] == "end"


@pytest.mark.filterwarnings("ignore:LISMonitor. the record of step")  # its end cannot be written either
@pytest.mark.filterwarnings("ignore:LISMonitor. 30 items did not fit into memory together")
def test_strict_raises_and_leaves_no_trace(split, tmp_path, fault):
    monitor = small_run.monitor_of(split, **{"dirpath": tmp_path, "strict": True} | fault.monitor)
    witness, module = Witness(fault.set_in), small_run.Tower()
    with pytest.raises(fault.error) as caught:
        small_run.fit(tmp_path, witness, monitor, module=module, steps=STEPS, **fault.trainer)
    assert module.trainer.global_step in ({FROM, FROM + 2} if fault.late else {FROM})
    assert re.search(fault.said.split(": ", 1)[-1], str(caught.value))
    assert random_states() == witness.states
    assert [child.training for child in module.modules()] == witness.modes
    assert module.training
    assert not module.net[1].training


def test_ctrl_c_in_an_encode_ends_the_run_and_leaves_no_trace(split, tmp_path, monkeypatch):
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # Lightning ignores every later Ctrl-C of this process
    stage = Stage(tmp_path, monkeypatch, None)
    monitor = small_run.monitor_of(split, encode=stage.failing(KeyboardInterrupt()))
    witness, module = Witness(stage.switch), small_run.Tower()
    with pytest.raises(SystemExit):
        small_run.fit(tmp_path, witness, monitor, module=module, steps=STEPS)
    assert random_states() == witness.states
    assert [child.training for child in module.modules()] == witness.modes
    assert [result.step for result in Record.read(monitor.record_path)[1]] == [0]
    end = Record.statuses(monitor.record_path)[-1]
    assert (end["kind"], end["cut_short_by"]) == ("end", "KeyboardInterrupt")


def test_a_collapsed_representation_is_a_point_of_the_curve(split, tmp_path):
    """It is scored and named, not refused: the curve shows when it happened."""
    stage = Stage(tmp_path, None, None)

    def encode(module, batch):
        return module.encode_items(batch) * (0.0 if stage.on else 1.0) + (1.0 if stage.on else 0.0)

    monitor = small_run.monitor_of(split, encode=encode)
    small_run.fit(tmp_path, Witness(stage.switch), monitor, steps=STEPS)
    assert [result.step for result in monitor.results] == [0, 2, 4, 6]
    assert [result.verdict for result in monitor.results[1:]] == ["collapsed"] * 3
    assert all(abs(result.ais) < 1e-9 for result in monitor.results[1:])
    assert monitor.last_error is None


def test_a_record_that_could_never_be_written_costs_nothing_but_the_record(split, tmp_path):
    (tmp_path / "taken").write_text("a file where the folder should be")
    monitor = small_run.monitor_of(split, dirpath=tmp_path / "taken", save="all")
    with pytest.warns(LisWarning, match="the record of step 0 failed") as caught:
        small_run.fit(tmp_path, monitor, steps=STEPS)
    assert len([warning for warning in caught if warning.category is LisWarning]) == 1
    assert [result.step for result in monitor.results] == [0, 2, 4, 6]
    assert monitor.record_path is None
    assert sorted(Path(tmp_path).iterdir()) == [tmp_path / "taken"]


# --- what cannot heal -------------------------------------------------------------------------------------------------


def padded(batch):
    """A collate function of a training."""
    return torch.utils.data.default_collate(batch)


class Output:
    """What a model of transformers returns."""


def ragged(item):
    return {"item_id": item["item_id"], "x": torch.ones(1 + item["item_id"] % 3)}


def renamed(item):
    return {"id": item["item_id"], "x": item["x"]}


def texts(item):
    return {"item_id": str(item["item_id"]), "x": item["x"]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"items": [renamed(item) for item in small_run.ITEMS]}, r"no key 'item_id'.*\['id', 'x'\].*item_key="),
        ({"items": [ragged(item) for item in small_run.ITEMS]}, r"default_collate cannot.*collate_fn=.*Your training"),
        ({"encode": lambda module, batch: Output()}, r"must return a tensor of shape \[30, D\], got Output"),
        ({"items": [texts(item) for item in small_run.ITEMS]}, r"ids are int such as 0, those .* str such as '0'"),
        ({"items": small_run.ITEMS[:20]}, r"10 of 30 items .*\[20, 21"),
        ({"encode": lambda module, batch: module.encoder(batch)}, r"every later one would: AttributeError: .*encoder"),
    ],
    ids=["key", "collate", "output object", "ids of another type", "items missing", "mistake in the code"],
)
def test_what_cannot_heal_is_raised_before_the_first_step(split, tmp_path, options, message):
    module = small_run.Tower()
    with pytest.raises((ConfigError, ItemError, ShapeError), match=message):
        small_run.fit(tmp_path, small_run.monitor_of(split, **options), module=module, collate_fn=padded)
    assert module.trainer.global_step == 0


def test_a_missing_image_is_raised_before_the_first_step(split, tmp_path):
    images = Images(tmp_path, small_run.ITEMS)
    images.paths[7].unlink()
    with pytest.raises(ConfigError, match=r"every later one would: FileNotFoundError: .*7\.npy.*Put the file there"):
        small_run.fit(tmp_path, small_run.monitor_of(split, items=images))


def test_a_collate_function_is_not_missed_where_the_training_has_none(split, tmp_path):
    items = [ragged(item) for item in small_run.ITEMS]
    with pytest.raises(ConfigError, match="default_collate cannot") as caught:
        small_run.fit(tmp_path, small_run.monitor_of(split, items=items))
    assert "training loader" not in str(caught.value)


def test_the_same_errors_are_survived_once_there_is_something_to_lose(split, tmp_path):
    stage = Stage(tmp_path, None, None)
    monitor = small_run.monitor_of(split, encode=stage.failing(KeyError("x")))
    with pytest.warns(LisWarning, match="the snapshot of step 2 failed. KeyError"):
        trainer, _ = small_run.fit(tmp_path, Witness(stage.switch), monitor, steps=STEPS)
    assert trainer.global_step == STEPS


@pytest.mark.parametrize("change", [renamed, texts])
def test_a_resumed_run_refuses_items_that_no_longer_fit(split, tmp_path, change):
    saver = small_run.saver(tmp_path / "saved")
    small_run.fit(tmp_path, small_run.monitor_of(split), saver, steps=3)
    monitor = small_run.monitor_of(split, items=[change(item) for item in small_run.ITEMS])
    with pytest.raises((ConfigError, ItemError), match=r"item_key=|ids are int"):
        small_run.fit(tmp_path, monitor, ckpt_path=tmp_path / "saved" / "step=3.ckpt")


def test_failures_are_counted_over_a_resume(split, tmp_path):
    monitor = small_run.monitor_of(split)
    monitor.load_state_dict(small_run.monitor_of(split).state_dict() | {"failures": COUNTED})
    assert monitor.last_error == "OSError: gone"
    assert monitor.state_dict()["failures"] == COUNTED


COUNTED = {"num_snapshots": 3, "last_snapshot": "OSError: gone", "last": "OSError: gone"}
