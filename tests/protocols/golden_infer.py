"""Requests of Open Inference in each of their forms, and what they come to; alike over HTTP and gRPC.

The forms are written here plainly, by `json` and `struct`, and not by what is tested.
"""

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from app.protocols.call import Answer, Identity
from app.tensors import STRING, Array, Signature, make_signature
from tests import protobuf
from tests.signatures import one_in, spec, two_in

NAMES = {"bool": "BOOL", "object": "BYTES", **{f"float{bits}": f"FP{bits}" for bits in (16, 32, 64)}}
CONTENTS = {"BOOL": 1, "INT8": 2, "INT16": 2, "INT32": 2, "INT64": 3, "UINT8": 4, "UINT16": 4, "UINT32": 4,
            "UINT64": 5, "FP32": 6, "FP64": 7, "BYTES": 8}  # fmt: skip

Tensors = dict[str, tuple[str, list[int], bytes]]
"""By name the datatype, the shape and the bytes."""


def datatype(array: Array) -> str:
    return NAMES.get(array.dtype.name, array.dtype.name.upper())


def raw(array: Array) -> bytes:
    if array.dtype == STRING:
        return b"".join(struct.pack("<I", len(value)) + value for value in array.ravel().tolist())
    return array.tobytes()


def plain(array: Array) -> list[Any]:
    """As JSON has the values."""
    return [value.decode() if isinstance(value, bytes) else value for value in array.ravel().tolist()]


@dataclass(frozen=True)
class Golden:
    """A request, and the answer to it.

    Args:
        inputs: by name, with the batch dimension where there is one.
        outputs: what the model gives, in the signature's order, `[rows, *record]`.
        answer: by name what should be in the answer, in its order.
        asked: outputs, each with the number of classes that are wanted; None for all.
    """

    name: str
    signature: Signature
    inputs: dict[str, Array]
    outputs: list[Array]
    answer: Tensors
    asked: dict[str, int] | None = None
    id: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    labels: dict[str, list[str]] = field(default_factory=dict)

    @property
    def identity(self) -> Identity:
        return Identity("m", 1, self.labels)

    @property
    def has_json(self) -> bool:
        """Whether JSON can hold its tensors."""
        given = [array.dtype for array in self.inputs.values()]
        return np.dtype(np.float16) not in (*given, *(output.dtype for output in self.outputs))

    def json_form(self, nested: bool = False, binary_answer: bool = False) -> bytes:
        inputs = []
        for name, array in self.inputs.items():
            data = plain(array)
            if nested:
                data = np.array(data, object).reshape(array.shape).tolist()
            inputs.append({**self._declared(name, array), "data": data})
        return json.dumps(self._document(inputs, binary_answer)).encode()

    def binary_form(self, head_separators: tuple[str, str] = (", ", ": ")) -> tuple[bytes, str]:
        """The body, and the value of the header."""
        inputs = [
            {**self._declared(name, array), "parameters": {"binary_data_size": len(raw(array))}}
            for name, array in self.inputs.items()
        ]
        head = json.dumps(self._document(inputs, binary_answer=True), separators=head_separators).encode()
        return head + b"".join(map(raw, self.inputs.values())), str(len(head))

    def grpc_form(self, typed: bool = False) -> bytes:
        inputs = []
        for name, array in self.inputs.items():
            parts: list[tuple[int, Any]] = [(1, name), (2, datatype(array)), (3, _packed(array.shape))]
            if typed:
                parts.append((5, _contents(array)))
            inputs.append((5, protobuf.message(*parts)))
        outputs = []
        for name, classes in (self.asked or {}).items():
            wanted = [(2, _entry("classification", classes))] if classes else []
            outputs.append((6, protobuf.message((1, name), *wanted)))
        contents = [] if typed else [(7, raw(array)) for array in self.inputs.values()]
        named = [(3, self.id)] if self.id else []
        parameters = [(4, _entry(name, value)) for name, value in self.parameters.items()]
        return protobuf.message((1, "m"), *named, *parameters, *inputs, *outputs, *contents)

    def _declared(self, name: str, array: Array) -> dict[str, Any]:
        return {"name": name, "shape": list(array.shape), "datatype": datatype(array)}

    def _document(self, inputs: list[dict[str, Any]], binary_answer: bool) -> dict[str, Any]:
        document: dict[str, Any] = {"id": self.id} if self.id else {}
        parameters = dict(self.parameters)
        document["inputs"] = inputs
        if self.asked is not None:
            document["outputs"] = [
                {"name": name, "parameters": {"binary_data": binary_answer, **({"classification": n} if n else {})}}
                for name, n in self.asked.items()
            ]
        elif binary_answer:
            parameters["binary_data_output"] = True
        if parameters:
            document["parameters"] = parameters
        return document


def _packed(numbers: Sequence[int]) -> bytes:
    return b"".join(protobuf.varint(number) for number in numbers)


def _entry(name: str, value: Any) -> bytes:
    number = 1 if isinstance(value, bool) else 2 if isinstance(value, int) else 3
    return protobuf.message((1, name), (2, protobuf.field(number, int(value) if number < 3 else value)))


def _contents(array: Array) -> bytes:
    number = CONTENTS[datatype(array)]
    if array.dtype == STRING:
        return protobuf.message(*((number, value) for value in array.ravel().tolist()))
    if array.dtype.kind == "f":
        return protobuf.field(number, array.tobytes())
    return protobuf.field(number, _packed([int(value) for value in array.ravel().tolist()]))


def read_rest(answer: bytes | Answer) -> tuple[dict[str, Any], Tensors]:
    """An answer over HTTP: its JSON but for the outputs, and these."""
    headers = dict(answer.headers) if isinstance(answer, Answer) else {}
    body = b"".join(answer.pieces) if isinstance(answer, Answer) else answer
    length = int(headers.get(b"inference-header-content-length", len(body)))
    document = json.loads(body[:length])
    found: Tensors = {}
    for output in document.pop("outputs"):
        kind, shape = output["datatype"], output["shape"]
        size = output.get("parameters", {}).get("binary_data_size")
        if size is None:
            data, dtype = output["data"], {name: dtype for dtype, name in NAMES.items()}.get(kind, kind.lower())
            if kind == "BYTES":
                data = [value.encode() for value in data]
            array = np.empty(len(data), dtype)
            array[:] = data
            found[output["name"]] = kind, shape, raw(array)
        else:
            assert "data" not in output
            found[output["name"]] = kind, shape, body[length : length + size]
            length += size
    assert length == len(body)
    return document, found


def read_grpc(answer: bytes | Answer) -> tuple[dict[str, Any], Tensors]:
    """An answer over gRPC, likewise."""
    assert isinstance(answer, Answer)
    document: dict[str, Any] = {}
    described: list[tuple[str, str, list[int]]] = []
    contents: list[bytes] = []
    for number, value in protobuf.read(b"".join(answer.pieces)):
        assert isinstance(value, bytes)
        if number == 5:
            parts = dict(protobuf.read(value))
            name, kind, shape = parts[1], parts[2], parts.get(3, b"")
            assert isinstance(name, bytes)
            assert isinstance(kind, bytes)
            assert isinstance(shape, bytes)
            sizes = [int(size) for _, size in protobuf.read(b"".join(b"\x08" + bytes([byte]) for byte in shape))]
            described.append((name.decode(), kind.decode(), sizes))
        elif number == 6:
            contents.append(value)
        else:
            document[{1: "model_name", 2: "model_version", 3: "id"}[number]] = value.decode()
    return document, {name: (kind, shape, data) for (name, kind, shape), data in zip(described, contents, strict=True)}


def strings(*values: bytes) -> Array:
    array = np.empty(len(values), STRING)
    array[:] = values
    return array


def _tensor(array: Array) -> tuple[str, list[int], bytes]:
    return datatype(array), list(array.shape), raw(array)


def _alike(dtype: str, values: Any, **others: Any) -> Golden:
    """A model whose output is its input."""
    array = strings(*values).reshape(-1, 2) if dtype == "string" else np.array(values, dtype).reshape(-1, 2)
    return Golden(dtype, one_in(dtype, (-1, 2)), {"x": array}, [array], {"y": _tensor(array)}, **others)


_X = np.array([1, 2, 5], np.float32)
_AGE, _BODY = np.array([[7], [8]], np.int32), np.array([[1, 2, 3], [4, 5, 6]], np.float32)
_RISK, _SCORE = np.array([[0.25, 0.75], [0.5, 0.5]], np.float32), np.array([1.5, -2], np.float32)
_WHOLE = np.arange(6, dtype=np.float32).reshape(3, 2)

GOLDEN = [
    Golden("half plus two", one_in("float32", (-1,)), {"x": _X}, [_X / 2 + 2], {"y": _tensor(_X / 2 + 2)}, id="42"),
    _alike("float32", [1.5, -0.0, 3.4e38, 1e-45]),
    _alike("float64", [0.1, -1e300], id="a b"),
    _alike("float16", [0.5, -65504]),
    _alike("bool", [True, False]),
    _alike("int8", [-128, 127]),
    _alike("int16", [-32768, 32767]),
    _alike("int32", [-(2**31), 2**31 - 1]),
    _alike("int64", [-(2**63), 2**63 - 1]),
    _alike("uint8", [0, 255]),
    _alike("uint16", [0, 65535]),
    _alike("uint32", [0, 2**32 - 1]),
    _alike("uint64", [0, 2**64 - 1], parameters={"timeout": 1000, "priority": 1, "mine": "x", "loud": True}),
    _alike("string", [b"hi", b"", "h\u00e9".encode(), b'"]}'], id='quoted "id" \\'),
    Golden(
        "two of each",
        two_in(),
        {"body": _BODY, "age": _AGE},
        [_RISK, _SCORE],
        {"risk": _tensor(_RISK), "score": _tensor(_SCORE)},
    ),
    Golden(
        "outputs in another order",
        two_in(),
        {"age": _AGE, "body": _BODY},
        [_RISK, _SCORE],
        {"score": _tensor(_SCORE), "risk": _tensor(_RISK)},
        asked={"score": 0, "risk": 0},
    ),
    Golden(
        "classes",
        two_in(),
        {"age": _AGE, "body": _BODY},
        [_RISK, _SCORE],
        {
            "risk": ("BYTES", [2, 1], raw(strings(b"0.750000:1:high", b"0.500000:0:low"))),
            "score": ("BYTES", [2, 1], raw(strings(b"1.500000:0", b"-2.000000:0"))),
        },
        asked={"risk": 1, "score": 9},
        labels={"risk": ["low", "high"]},
    ),
    Golden(
        "no batch dimension",
        one_in("float32", (3, 2)),
        {"x": _WHOLE},
        [_WHOLE[np.newaxis]],
        {"y": _tensor(_WHOLE)},
    ),
    Golden(
        "classes of a model without a batch dimension",
        one_in("float32", (3, 2)),
        {"x": _WHOLE},
        [_WHOLE[np.newaxis]],
        {"y": ("BYTES", [2], raw(strings(b"5.000000:5", b"4.000000:4")))},
        asked={"y": 2},
    ),
    Golden(
        "a single string without a batch dimension",
        make_signature("serving_default", (spec("x", "string", (1,)),), (spec("y", "string", ()),)),
        {"x": strings(b"hi")},
        [strings(b"ho")],
        {"y": ("BYTES", [], raw(strings(b"ho")))},
    ),
    Golden(
        "nothing to give",
        make_signature("serving_default", (spec("x"),), (spec("y", shape=(-1, -1)),)),
        {"x": np.ones((1, 4), np.float32)},
        [np.empty((1, 0), np.float32)],
        {"y": ("FP32", [1, 0], b"")},
    ),
]  # fmt: skip
"""One for each thing that is to be alike."""
