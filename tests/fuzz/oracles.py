"""What tensors a body holds, read in another way than the server's: by `json` and by protobuf's own library.

That a body is well-formed and fits the signature is not looked at: the codec has taken it.
"""

import base64
import json
import struct
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from app.server.rpc.messages import new
from app.tensors import STRING, Array, Signature, TensorSpec
from tests.fuzz.bodies import FIELDS, Body

Tensors = Mapping[str, Array]
"""By the input's name its values, flat."""


def infer(signature: Signature, body: Body) -> Tensors | None:
    """Of an Open Inference request over HTTP; None for a lone tensor's bytes."""
    if body.length and not int(body.length):
        (spec,) = signature.inputs
        return {spec.name: _strings([body.data]) if spec.dtype == STRING else _numbers(body.data, spec)}
    end = int(body.length or len(body.data))
    found = {}
    specs = {spec.name: spec for spec in signature.inputs}
    for given in json.loads(body.data[:end])["inputs"]:
        spec = specs[given["name"]]
        if "data" in given:
            found[spec.name] = _of_json(given["data"], spec)
            continue
        start, end = end, end + given["parameters"]["binary_data_size"]
        found[spec.name] = _of_bytes(body.data[start:end], spec)
    return found


def grpc_infer(signature: Signature, body: Body) -> Tensors | None:
    """Of a `ModelInferRequest`; None where protobuf's library takes it for none."""
    request = _parsed("inference.ModelInferRequest", body)
    if request is None:
        return None
    specs = {spec.name: spec for spec in signature.inputs}
    if request.raw_input_contents:
        pairs = zip(request.inputs, request.raw_input_contents, strict=True)
        return {given.name: _of_bytes(data, specs[given.name]) for given, data in pairs}
    found = {}
    for given in request.inputs:
        ((_, values),) = given.contents.ListFields()
        found[given.name] = _of_json(list(values), specs[given.name])
    return found


def grpc_predict(signature: Signature, body: Body) -> Tensors | None:
    """Of a `PredictRequest`, likewise."""
    request = _parsed("tensorflow.serving.PredictRequest", body)
    if request is None:
        return None
    return {spec.name: _of_tensor(request.inputs[spec.name], spec) for spec in signature.inputs}


ORACLES: dict[str, Callable[[Signature, Body], Tensors | None]] = {
    "infer": infer,
    "grpc infer": grpc_infer,
    "grpc predict": grpc_predict,
}
"""By the target."""


def _parsed(name: str, body: Body) -> Any:
    request = new(name)
    try:
        request.ParseFromString(body.data)
    except DecodeError:
        return None
    return request


def _of_json(data: Any, spec: TensorSpec) -> Array:
    flat: list[Any] = []

    def walk(value: Any) -> None:
        if isinstance(value, list):
            for each in value:
                walk(each)
        else:
            flat.append(value)

    walk(data)
    if spec.dtype == STRING:
        return _strings([_text(value) for value in flat])
    if spec.dtype.kind == "f":
        return np.array([float(value) for value in flat], np.float64).astype(spec.dtype)
    return np.array(flat, spec.dtype)


def _text(value: Any) -> bytes:
    if isinstance(value, dict):
        # Bytes that are no UTF-8, as TensorFlow Serving has them.
        return base64.b64decode(value["b64"] + "==")
    return value.encode() if isinstance(value, str) else bytes(value)


def _of_bytes(data: bytes, spec: TensorSpec) -> Array:
    if spec.dtype != STRING:
        return _numbers(data, spec)
    values = []
    while data:
        (length,) = struct.unpack("<I", data[:4])
        values.append(data[4 : 4 + length])
        data = data[4 + length :]
    return _strings(values)


def _numbers(data: bytes, spec: TensorSpec) -> Array:
    return np.array([byte != 0 for byte in data]) if spec.dtype.kind == "b" else np.frombuffer(data, spec.dtype)


def _strings(values: list[bytes]) -> Array:
    found = np.empty(len(values), STRING)
    found[:] = values
    return found


def _of_tensor(tensor: Any, spec: TensorSpec) -> Array:
    size = int(np.prod([dim.size for dim in tensor.tensor_shape.dim], dtype=np.int64))
    if tensor.tensor_content and spec.dtype != STRING:
        return _numbers(tensor.tensor_content, spec)
    values = list(getattr(tensor, FIELDS[spec.dtype.name]))
    if tensor.tensor_content:
        return _packed(tensor.tensor_content, size)
    if spec.dtype == STRING:
        found = _strings(values)
    elif spec.dtype == np.float16:
        found = np.array(values, np.uint16).view(np.float16)
    elif spec.dtype.kind == "c":
        found = np.array(values, f"f{spec.dtype.itemsize // 2}").view(spec.dtype)
    else:
        found = np.array(values, spec.dtype)
    # What is missing is like the last that is there.
    last = found[-1:] if len(found) else _strings([b""]) if spec.dtype == STRING else np.zeros(1, spec.dtype)
    return np.concatenate([found, np.repeat(last, size - len(found))])


def _packed(data: bytes, size: int) -> Array:
    """Strings behind all their lengths, which are varints."""
    lengths: list[int] = []
    while len(lengths) < size:
        length = shift = 0
        more = True
        while more:
            length |= (data[0] & 127) << shift
            shift += 7
            more = data[0] > 127
            data = data[1:]
        lengths.append(length)
    ends = np.cumsum(lengths).tolist()
    return _strings([data[end - length : end] for end, length in zip(ends, lengths, strict=True)])
