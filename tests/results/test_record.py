"""The record: exact, strict JSON, and whole after a kill at any byte."""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import os
import zlib

import numpy as np
import pytest
from hypothesis import given, strategies as st

from lis_lightning.errors import RecordError
from lis_lightning.functional.intervals import Estimate
from lis_lightning.results.record import Record
from lis_lightning.results.record_contents import as_recorded, pack, unpack
from lis_lightning.results.result import Ceiling, LISResult, Placebo, SliceEstimate
from lis_lightning.results.snapshot import Snapshot

NUM_USERS = 50


def make_result(step=0, **fields):
    influence = np.random.default_rng(step or 0).normal(size=NUM_USERS) * 1e-4
    part = SliceEstimate(value=0.1, se=0.2, low=-0.3, high=math.nan, num_events=12)
    null = Estimate(value=0.0, se=math.inf, low=-math.inf, high=math.inf)
    ceiling = Ceiling(value=0.02, low=0.01, high=0.03, past=0.005, influence=np.linspace(-1e-3, 1e-3, NUM_USERS))
    claimed = dataclasses.replace(ceiling, past=math.nan, cross_fitted=False)
    values = {
        "ais": 0.1 + 0.2, "ais_low": -1e-300, "ais_high": 5e-324, "ais_geometry": -0.0, "auc_base": 2 / 3,
        "auc": 0.75, "realised": math.nan, "realised_high": math.inf, "realised_low": -math.inf, "verdict": "improving",
        "message": "zwölf · 12 %", "ceilings": {"pairs": ceiling, "mine": claimed}, "slices": {"seen items": part},
        "companions": {"rankme": 3.3, "cka": math.nan}, "placebo": Placebo(permuted=null, random=null),
        "split_hash": "c0ffee", "num_events": 7, "influence": influence, "step": step,
    }  # fmt: skip
    return Snapshot(**values | fields)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "record.jsonl"


@pytest.fixture
def record(path):
    return Record.create(path, run_id="r1", split_hash="c0ffee", split={"users": 50}, config={"every_n_steps": 5})


def lines_of(path):
    return path.read_bytes().decode().splitlines()


def same(first, second):
    """Whether two results hold the same bits; NaN equals NaN, -0.0 does not equal 0.0."""
    if dataclasses.is_dataclass(first):
        return type(first) is type(second) and all(
            same(getattr(first, field.name), getattr(second, field.name)) for field in dataclasses.fields(first)
        )
    if isinstance(first, np.ndarray):
        return first.dtype == second.dtype and first.tobytes() == second.tobytes()
    if isinstance(first, tuple):
        return len(first) == len(second) and all(same(*both) for both in zip(first, second, strict=True))
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    return repr(first) == repr(second)


def test_round_trip_is_exact(record, path):
    results = [as_recorded(make_result(step)) for step in (0, 5, 10)]
    for result in results:
        record.append(result)
    _, read = Record.read(path)
    assert len(read) == 3
    assert all(same(one, other) for one, other in zip(results, read, strict=True))


def test_results_of_other_tasks_and_periods_come_back_with_their_ceilings():
    other = Ceiling(value=0.5, low=0.25, high=0.75, influence=np.linspace(0, 1e-3, NUM_USERS))
    of_results = [field.name for field in dataclasses.fields(LISResult)]
    later = make_result(ceilings={"ids": other})
    later = LISResult(**{name: getattr(later, name) for name in of_results})
    whole = as_recorded(make_result(tasks={"like": make_result(task="like")}, periods=(later, later)))
    (read,) = unpack(pack([whole]))
    assert same(read, whole)
    assert read.periods[1].ceilings["ids"].value == 0.5
    written = "".join(pack([whole, dataclasses.replace(whole, step=5)]))
    assert written.count('"kind":"ceilings"') == 2  # one line for each set of ceilings, whoever refers to it


@given(st.floats(), st.floats(), st.text(), st.integers(0, 2**53))
def test_any_number_and_text_comes_back(ais, companion, message, step):
    result = as_recorded(make_result(ais=ais, companions={"x": companion}, message=message, step=step))
    assert same(unpack(pack([result]))[0], result)
    assert (repr(result.ais), repr(result.companions["x"])) == (repr(ais), repr(companion))


def test_as_recorded_rounds_arrays_to_float32_and_nothing_else():
    result = make_result()
    rounded = as_recorded(result)
    assert rounded.influence == pytest.approx(result.influence, rel=1e-7)
    assert rounded.influence.tolist() == result.influence.astype(np.float32).tolist()
    assert same(dataclasses.replace(rounded, influence=result.influence, ceilings=result.ceilings), result)


def test_runs_can_be_compared_from_their_records(tmp_path):
    ours, theirs = make_result(5), make_result(9, ais=0.25)
    for name, result in (("ours", ours), ("theirs", theirs)):
        Record.create(tmp_path / name, run_id=name, split_hash="c0ffee").append(result)
    (mine,), (other,) = (Record.read(tmp_path / name)[1] for name in ("ours", "theirs"))
    assert mine.compare(other).z == pytest.approx(ours.compare(theirs).z, rel=1e-6)


def test_header_says_what_was_run(record, path):
    header, results = Record.read(path)
    assert results == []
    assert {key: header[key] for key in ("format", "run_id", "split_hash", "split", "config")} == {
        "format": 2, "run_id": "r1", "split_hash": "c0ffee", "split": {"users": 50}, "config": {"every_n_steps": 5},
    }  # fmt: skip
    assert {"torch", "numpy", "pytorch-lightning", "lis-lightning"} <= set(header["versions"])


def test_header_may_hold_what_json_does_not_know(tmp_path):
    Record.create(tmp_path / "r", run_id="r", split_hash="x", split={"rate": math.nan, "path": tmp_path, "w": (1, 2)})
    header, _ = Record.read(tmp_path / "r")
    assert header["split"] == {"rate": None, "path": str(tmp_path), "w": [1, 2]}


def test_lines_are_strict_json_with_the_crc_of_their_payload(record, path):
    record.append(make_result())
    record.status("end", best_step=0, verdict="plateau")
    for line in lines_of(path):
        parsed = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
        assert list(parsed) == ["crc32", "payload"]
        payload = line[len('{"crc32":"00000000","payload":') : -1]
        assert json.loads(payload) == parsed["payload"]
        assert parsed["crc32"] == f"{zlib.crc32(payload.encode()):08x}"


def test_ceilings_are_written_once(record, path):
    for step in range(4):
        record.append(make_result(step))
    Record.open(path).append(make_result(4))
    kinds = [json.loads(line)["payload"]["kind"] for line in lines_of(path)]
    assert kinds == ["header", "ceilings", "result", "result", "result", "result", "result"]
    assert len(lines_of(path)[-1]) < 1400 + NUM_USERS * 4 * 4 / 3


def test_a_kill_at_any_byte_loses_only_the_line_in_progress(record, path):
    record.append(make_result(0))
    whole = path.read_bytes()
    record.append(make_result(5))
    after = path.read_bytes()
    for size in range(len(whole), len(after)):
        path.write_bytes(after[:size])
        assert [result.step for result in Record.read(path)[1]] == [0]
        Record.open(path).append(make_result(5))
        assert [result.step for result in Record.read(path)[1]] == [0, 5]
        assert len(lines_of(path)) == len(after.splitlines())


def test_a_last_line_of_zeros_is_passed_over(record, path):
    """What some file systems leave behind after a power cut."""
    record.append(make_result(0))
    path.write_bytes(path.read_bytes() + b"\0" * 200 + b"\n")
    assert [result.step for result in Record.read(path)[1]] == [0]


@pytest.mark.parametrize("line", [1, 2, 3])
def test_damage_before_the_last_line_is_refused_by_its_number(record, path, line):
    for step in (0, 5):
        record.append(make_result(step))
    lines = path.read_bytes().splitlines(keepends=True)
    middle = len(lines[line - 1]) // 2
    lines[line - 1] = lines[line - 1][:middle] + b"#" + lines[line - 1][middle + 1 :]
    path.write_bytes(b"".join(lines))
    with pytest.raises(RecordError, match=rf"line {line} of 4 is damaged"):
        Record.read(path)
    with pytest.raises(RecordError, match=rf"line {line} of 4 is damaged"):
        Record.open(path)


def test_a_step_is_recorded_once(record, path):
    record.append(make_result(5))
    for again in (record, Record.open(path)):
        with pytest.raises(RecordError, match=r"Step 5 is in .*record\.jsonl already"):
            again.append(make_result(5))
    assert Record.open(path).steps == [5]


def test_rewind_leaves_out_what_a_resume_abandons(record, path):
    for step in (0, 5, 10):
        record.append(make_result(step))
    record.rewind(5)
    assert record.steps == [0, 5]
    record.append(make_result(10, ais=0.5))
    read = Record.read(path)[1]
    assert [(result.step, result.ais) for result in read] == [(0, 0.1 + 0.2), (5, 0.1 + 0.2), (10, 0.5)]
    assert [status["step"] for status in Record.statuses(path)] == [5]


def test_rewind_without_later_results_writes_nothing(record, path):
    record.append(make_result(5))
    before = path.read_bytes()
    record.rewind(5)
    assert path.read_bytes() == before


def test_statuses_are_kept_beside_the_results(record, path):
    record.status("failure", step=5, error="OSError: gone")
    record.append(make_result(10))
    record.status("end", best_step=10, verdict="plateau")
    failure, end = Record.statuses(path)
    assert (failure["step"], failure["error"], end["best_step"]) == (5, "OSError: gone", 10)
    assert failure["time"] <= end["time"]


def test_a_full_disk_is_an_error_and_the_next_line_repairs_it(record, path, monkeypatch):
    record.append(make_result(0))

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(RecordError, match=r"cannot be written: .*No space left"):
            record.append(make_result(5))
    path.write_bytes(path.read_bytes()[:-20])  # and half of it had reached the disk
    record.append(make_result(5))
    assert [result.step for result in Record.read(path)[1]] == [0, 5]


def test_a_short_line_after_a_long_torn_one_leaves_nothing_of_it(record, path):
    record.append(make_result(0))
    path.write_bytes(path.read_bytes() + b'{"crc32":"00000000","payload":{' + b"x" * 5000)
    again = Record.open(path)
    again.status("end", best_step=0)
    again.append(make_result(5))
    assert [result.step for result in Record.read(path)[1]] == [0, 5]
    assert b"xxx" not in path.read_bytes()


def test_two_writers_do_not_overwrite_each_other(record, path):
    """A run that was resumed twice from one checkpoint: the second to write is refused, and nothing is lost."""
    record.append(make_result(0))
    other = Record.open(path)
    record.append(make_result(5))
    for _ in range(2):
        with pytest.raises(RecordError, match=r"Another process writes to .*record\.jsonl too: a run was"):
            other.append(make_result(5, ais=0.5))
    record.append(make_result(10))
    assert [(result.step, result.ais) for result in Record.read(path)[1]] == [(step, 0.1 + 0.2) for step in (0, 5, 10)]


def test_open_refuses_another_split(record, path):
    with pytest.raises(RecordError, match="measured on split 'c0ffee', this run uses split 'decaf'"):
        Record.open(path, split_hash="decaf")


def test_create_refuses_an_existing_file(record, path):
    with pytest.raises(RecordError, match=r"record\.jsonl exists"):
        Record.create(path, run_id="r2", split_hash="c0ffee")


def test_create_refuses_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match=r"cannot be created.*writable `dirpath`"):
        Record.create(tmp_path / "file" / "record.jsonl", run_id="r", split_hash="x")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(RecordError, match=r"nothing\.jsonl cannot be read"):
        Record.read(tmp_path / "nothing.jsonl")


@pytest.mark.parametrize("content", [b"", b"torn", b'{"a":1}\n'], ids=["empty", "torn", "other-json"])
def test_what_is_no_record_is_refused(tmp_path, content):
    (tmp_path / "x.jsonl").write_bytes(content)
    with pytest.raises(RecordError, match=r"x\.jsonl is no record of lis-lightning"):
        Record.read(tmp_path / "x.jsonl")


def test_a_later_format_is_refused(record, path, monkeypatch):
    monkeypatch.setattr("lis_lightning.results.record_contents.FORMAT", 3)
    with pytest.raises(RecordError, match="has record format 2, this version reads 3"):
        Record.read(path)


def test_fields_of_a_later_version_are_refused():
    (ceilings, result) = pack([make_result()])
    with pytest.raises(RecordError, match=r"fields that Snapshot does not have: \['more'\]"):
        unpack([ceilings, result.replace('"ais":', '"more":1,"ais":')])


def test_find_knows_a_run_by_its_id(tmp_path):
    for name, run in (("record.jsonl", "a"), ("record-v1.jsonl", "b")):
        Record.create(tmp_path / name, run_id=run, split_hash="x")
    (tmp_path / "record-v0.jsonl").write_text("damaged")
    assert Record.find(tmp_path, "b") == tmp_path / "record-v1.jsonl"
    assert Record.find(tmp_path, "c") is None
    assert Record.find(tmp_path / "nowhere", "a") is None
