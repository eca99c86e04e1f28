"""`samples.json`, which may lie beside a model: requests that really occur, with the answers they should get.

    [{"about": "held-out image 12: a 7", "request": {"instance": RECORD}, "answer": {"prediction": RECORD}}, ...]

`request` is a body of `/predict`; `about`, `answer` and `tolerance` may be left out.
"""

import binascii
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from app.errors import ModelError
from app.tensors import Array

SAMPLES = "samples.json"

_MOST_BYTES = 64 * 2**20
_MOST_BITS = 1000


class Sample(BaseModel):
    """One request of `/predict`, and what it should be answered."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    request: dict[str, Any]
    answer: dict[str, Any] | None = None
    about: str = ""
    tolerance: float | None = Field(None, ge=0, allow_inf_nan=False)
    """How far numbers of the answer may be off, relative to their output's scale; None: as far as the model's may."""


_SAMPLES = TypeAdapter(list[Sample])


def read_samples(folder: Path | None) -> list[Sample]:
    """Read `folder`/samples.json, if it is there.

    Raises:
        ModelError: it has another form, or is larger than 64 MiB.
    """
    path = folder / SAMPLES if folder else None
    try:
        if path is None or not path.exists():
            return []
        if not path.is_file():
            raise ModelError("samples.json is no regular file")
        with path.open("rb") as stream:
            content = stream.read(_MOST_BYTES + 1)
    except OSError as error:
        raise ModelError(f"samples.json cannot be read: {error.strerror}") from error
    if len(content) > _MOST_BYTES:
        raise ModelError(f"samples.json is larger than {_MOST_BYTES >> 20} MiB: keep only some of the samples")
    try:
        return _SAMPLES.validate_json(content)
    except ValidationError as error:
        fault = error.errors()[0]
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in fault["loc"])
        raise ModelError(f"samples.json{place}: {fault['msg']}") from error


def records_of(samples: list[Sample]) -> dict[str, Array]:
    """The samples' records as arrays `[rows, *record]` by input name, by "" for an only input; of those whose shapes
    differ from the first's, only the first's. Empty when the samples cannot be told apart so simply.
    """
    columns: dict[str, list[Array]] = {}
    for record in (record for sample in samples for record in _records(sample.request)):
        record = _with_bytes(record)
        named = record if isinstance(record, dict) else {"": record}
        if columns and named.keys() != columns.keys():
            continue
        try:
            arrays = {name: np.array(value) for name, value in named.items()}
        except ValueError:
            return {}
        if any(array.dtype == object for array in arrays.values()):
            return {}
        if all(not columns.get(name) or columns[name][0].shape == array.shape for name, array in arrays.items()):
            for name, array in arrays.items():
                columns.setdefault(name, []).append(array)
    return {name: np.stack(column) for name, column in columns.items()}


def _with_bytes(value: Any) -> Any:
    """With `bytes` for strings that are given in base64."""
    if isinstance(value, list):
        return [_with_bytes(part) for part in value]
    if not isinstance(value, dict):
        return value
    text = value.get("b64")
    if len(value) == 1 and isinstance(text, str):
        try:
            return binascii.a2b_base64(text, strict_mode=True)
        except ValueError:
            return value
    return {name: _with_bytes(part) for name, part in value.items()}


def _records(request: dict[str, Any]) -> list[Any]:
    if "instance" in request:
        return [request["instance"]]
    instances = request.get("instances")
    return instances if isinstance(instances, list) else []


def differs(answer: dict[str, Any], wanted: dict[str, Any], tolerance: float) -> str | None:
    """The first place where an answer of `/predict` is not as wanted, in words; None when it is.

    Args:
        tolerance: how far numbers may be off, relative to the largest absolute value wanted of their output, over all
            records; absolute where that is 0. Numbers that are not finite are what `/predict` writes for them, null.
    """
    return next(_differences(answer, wanted, "", None, _Scales(wanted, tolerance)), None)


class _Scales:
    """How far the numbers of each output may be off; an answer's only objects, but for itself, hold outputs by name."""

    def __init__(self, wanted: dict[str, Any], tolerance: float) -> None:
        self.tolerance = tolerance
        self._of: dict[str | None, float] = {}
        for value in wanted.values():
            self._gather(value, None)

    def _gather(self, value: Any, output: str | None) -> None:
        if isinstance(value, dict):
            for name, part in value.items():
                self._gather(part, name)
        elif isinstance(value, list):
            for part in value:
                self._gather(part, output)
        elif _is_number(value := _finite(value)):
            self._of[output] = max(self._of.get(output, 0.0), abs(value))

    def of(self, output: str | None) -> float:
        return self._of.get(output) or 1.0


def _differences(found: Any, wanted: Any, place: str, output: str | None, scales: _Scales) -> Iterator[str]:
    if isinstance(found, dict) and isinstance(wanted, dict):
        if found.keys() != wanted.keys():
            yield f"{place or 'the answer'} has the keys {_names(found)}, and {_names(wanted)} were wanted"
            return
        for name, value in wanted.items():
            shown = name if name.isprintable() else repr(name)
            inside = f"{place}.{shown}" if place else shown
            yield from _differences(found[name], value, inside, name if place else None, scales)
    elif isinstance(found, list) and isinstance(wanted, list):
        if len(found) != len(wanted):
            yield f"{place} has {len(found)} values, and {len(wanted)} were wanted"
            return
        for number, (one, other) in enumerate(zip(found, wanted, strict=True)):
            yield from _differences(one, other, f"{place}[{number}]", output, scales)
    elif not _agree(found, wanted, scales.tolerance * scales.of(output)):
        within = f" within {scales.tolerance:g} of {scales.of(output):g}" if _is_number(_finite(wanted)) else ""
        yield f"{place} is {_show(found)}, and {_show(wanted)}{within} was wanted"


def _agree(found: Any, wanted: Any, allowed: float) -> bool:
    found, wanted = _finite(found), _finite(wanted)
    if _is_number(found) and _is_number(wanted):
        return bool(abs(found - wanted) <= allowed)
    return type(found) is type(wanted) and bool(found == wanted)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _finite(value: Any) -> Any:
    """The value, or null for a number that is not finite, or would not be as a float."""
    if isinstance(value, int):
        return None if value.bit_length() > _MOST_BITS else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _names(found: dict[str, Any]) -> str:
    return ", ".join(map(repr, found)) or "none"


def _show(value: Any) -> str:
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else f"a list of {len(value)}"
    return "null" if value is None else repr(value)[:100]
