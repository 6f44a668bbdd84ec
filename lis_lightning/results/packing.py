"""Results as strict JSON lines and back: NaN is null, arrays are base64 of little-endian float32."""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lis_lightning.errors import RecordError
from lis_lightning.functional.intervals import Estimate
from lis_lightning.results.reading import Reading
from lis_lightning.results.result import Ceiling, LISResult, Placebo, SliceEstimate
from lis_lightning.results.snapshot import Snapshot


def pack_snapshot(result: Snapshot, written: set[str]) -> tuple[list[str], set[str]]:
    """Return the payloads of a snapshot, and the ids of all ceilings that it refers to.

    Args:
        result: The snapshot.
        written: Ids of the ceilings that earlier payloads hold; they are not repeated.
    """
    ceilings: dict[str, dict[str, Any]] = {}
    payload = dumps({"kind": "result", "result": _packed(result, ceilings)})
    new = [
        dumps({"kind": "ceilings", "id": key, "ceilings": fields})
        for key, fields in ceilings.items()
        if key not in written
    ]
    return [*new, payload], set(ceilings)


def _packed(result: LISResult, ceilings: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the fields of a result and of those nested in it, with ids in place of ceilings.

    The ceilings themselves are added to `ceilings`, by id. The id is a checksum of the contents, so that equal ceilings
    are written once.
    """
    encoded = {name: _encode(ceiling) for name, ceiling in result.ceilings.items()}
    key = f"{zlib.crc32(json.dumps(encoded).encode()):08x}"
    ceilings[key] = encoded
    tasks = {name: _packed(task, ceilings) for name, task in result.tasks.items()}
    periods = [_packed(period, ceilings) for period in result.periods]
    return {**_shallow(result), "ceilings": key, "tasks": tasks, "periods": periods}


def snapshot_of(fields: dict[str, Any], ceilings: Mapping[str, dict[str, Ceiling]]) -> Snapshot:
    """Build a snapshot from its payload."""
    tasks = {name: snapshot_of(task, ceilings) for name, task in fields["tasks"].items()}
    return Snapshot(**_decode(Snapshot, fields) | _nested(fields, ceilings) | {"tasks": tasks})


def _result_of(fields: dict[str, Any], ceilings: Mapping[str, dict[str, Ceiling]]) -> LISResult:
    """Build the result of a later period from its payload; it has no tasks."""
    return LISResult(**_decode(LISResult, fields) | _nested(fields, ceilings) | {"tasks": {}})


def _nested(fields: dict[str, Any], ceilings: Mapping[str, dict[str, Ceiling]]) -> dict[str, Any]:
    """Return the fields of a result that hold objects of their own."""
    values: dict[str, Any] = {}
    values["ceilings"] = dict(ceilings[fields["ceilings"]])
    values["slices"] = {
        name: SliceEstimate(**_decode(SliceEstimate, slice_)) for name, slice_ in fields["slices"].items()
    }
    values["reads"] = {name: _reading_of(reading) for name, reading in fields.get("reads", {}).items()}
    values["periods"] = tuple(_result_of(period, ceilings) for period in fields["periods"])
    if fields["placebo"] is not None:
        arms = {name: Estimate(**_decode(Estimate, arm)) for name, arm in fields["placebo"].items()}
        values["placebo"] = Placebo(**arms)
    return values


def _reading_of(fields: dict[str, Any]) -> Reading:
    """Build a reading from its payload."""
    fields = dict(fields)
    levels, facts = fields.pop("codes"), fields.pop("facts")
    codes = [_array(level).astype(np.int32) for level in levels]
    stacked = np.stack(codes, axis=1) if codes else np.zeros((0, 0), np.int32)
    return Reading(
        **_decode(Reading, fields), facts={name: _float(value) for name, value in facts.items()}, codes=stacked
    )


def _shallow(value: Any) -> dict[str, Any]:
    """Return the fields of a dataclass instance without copying their values, unlike `asdict`."""
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def _encode(value: Any) -> Any:
    """Return a value as strict JSON: NaN as null, infinities as text, arrays as base64."""
    if isinstance(value, np.ndarray) and value.ndim > 1:  # codes: an array for each level
        return [_encode(column) for column in value.T]
    if isinstance(value, np.ndarray):
        return base64.b64encode(value.astype("<f4").tobytes()).decode()
    if isinstance(value, np.generic):
        return _encode(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else repr(value)
    if isinstance(value, Mapping):
        return {str(key): _encode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_encode(item) for item in value]
    if dataclasses.is_dataclass(value):
        return _encode(_shallow(value))
    return value


def _decode(cls: type, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a dataclass's fields: numbers and arrays restored, everything else as it is.

    The annotations are strings here (`from __future__ import annotations`), which is enough to tell them apart.
    """
    annotations = {field.name: str(field.type) for field in dataclasses.fields(cls)}
    unknown = sorted(set(fields) - set(annotations))
    if unknown:
        raise RecordError(
            f"The record holds fields that {cls.__name__} does not have: {unknown}. Update lis-lightning."
        )
    values = {}
    for name, value in fields.items():
        if annotations[name] == "float":
            value = _float(value)
        elif annotations[name].startswith("NDArray"):
            value = _array(value)
        elif annotations[name] == "Mapping[str, float]":
            value = {key: _float(number) for key, number in value.items()}
        values[name] = value
    return values


def _float(value: float | str | None) -> float:
    """Undo the encoding of a float."""
    return math.nan if value is None else float(value)


def _array(text: str) -> NDArray[np.float64]:
    """Undo the encoding of an array."""
    return np.frombuffer(base64.b64decode(text), dtype="<f4").astype(np.float64)


def dumps(payload: Mapping[str, Any]) -> str:
    """Serialise a payload, stamped with the time, on one line."""
    stamped = {**payload, "time": datetime.now(UTC).isoformat(timespec="milliseconds")}
    return json.dumps(_encode(stamped), allow_nan=False, separators=(",", ":"), default=str)


def ceilings_of(payload: Mapping[str, Any]) -> dict[str, Ceiling]:
    """Build the ceilings of a ``ceilings`` line."""
    return {name: Ceiling(**_decode(Ceiling, fields)) for name, fields in payload["ceilings"].items()}
