"""`tf.Example` as bytes.

Source: example.proto and feature.proto of tensorflow/core/example.
"""

import numpy as np

from app.errors import InvalidArgument
from app.protocols import protobuf
from app.protocols.examples import Feature, Features
from app.protocols.protobuf import FIXED32, LENGTH, VARINT, Value

_KINDS = {1: "bytes", 2: "float", 3: "int64"}
_FIELDS = {name: number for number, name in _KINDS.items()}
_NOT_PACKED = {"bytes": LENGTH, "float": FIXED32, "int64": VARINT}


def read_example(data: bytes | memoryview, where: str) -> dict[str, Feature]:
    """The features of an example, or of several one behind another, of which the later ones count.

    Args:
        where: what messages call it, for example `example 3`.

    Raises:
        InvalidArgument: it is damaged.
    """
    found: dict[str, Feature] = {}
    for number, wire, features in protobuf.fields(memoryview(data), where):
        if number != 1 or wire != LENGTH:
            continue
        for inner, kind, entry in protobuf.fields(features, where):  # type: ignore[arg-type]
            if inner == 1 and kind == LENGTH:
                key, value = protobuf.entry(entry, where)  # type: ignore[arg-type]
                name = protobuf.text(key, f"the name of a feature of {where}")
                if isinstance(value, int):
                    raise InvalidArgument(f"feature {name[:80]!r} of {where} is no Feature: found a number")
                found[name] = _read_feature(value, f"feature {name[:80]!r} of {where}")
    return found


def _read_feature(view: memoryview, where: str) -> Feature:
    kind = "bytes"
    pieces: list[Value] = []
    for number, wire, values in protobuf.fields(view, where):
        if number in _KINDS and wire == LENGTH:
            if _KINDS[number] != kind:
                # Of kinds that exclude each other the last one counts.
                kind, pieces = _KINDS[number], []
            for inner, form, value in protobuf.fields(values, where):  # type: ignore[arg-type]
                if inner == 1 and form in (LENGTH, _NOT_PACKED[kind]):
                    pieces.append(value)
    if kind == "bytes":
        return Feature(kind, [bytes(piece) for piece in pieces])
    if kind == "float":
        return Feature(kind, protobuf.fixed(pieces, "<f4", where) if pieces else [])  # type: ignore[arg-type]
    return Feature(kind, protobuf.varints(pieces, np.int64, where) if pieces else [])


def write_example(features: Features) -> bytes:
    """An example's bytes; its features in the order given."""
    entries = []
    for name, (kind, values) in features.items():
        if kind == "bytes":
            written = b"".join(protobuf.write_bytes(1, value) for value in values)
        elif kind == "float":
            with np.errstate(over="ignore"):
                written = protobuf.write_bytes(1, np.asarray(values).astype("<f4").tobytes())
        else:
            written = protobuf.write_ints(1, values)
        feature = protobuf.write_bytes(_FIELDS[kind], written) if len(values) else b""
        entries.append(
            protobuf.write_bytes(1, protobuf.write_bytes(1, name.encode()) + protobuf.write_bytes(2, feature))
        )
    return protobuf.write_bytes(1, b"".join(entries))
