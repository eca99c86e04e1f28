"""The gRPC messages of the two protocols, written and read by hand.

So that check and load send the same bytes, and nothing here needs generated code, nor TensorFlow, which TensorFlow
Serving's imports. Field numbers are those of `open_inference_grpc.proto` (Open Inference Protocol) and of
`predict.proto`, `model.proto` and `tensor.proto` (TensorFlow Serving, TensorFlow).
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterator

import numpy as np

from benchmarks.models import Floats

GRPC = "application/grpc"
DT_FLOAT = 1
VARINT, BYTES = 0, 2
FIXED = {1: 8, 5: 4}
"""Bytes of the wire types that have a fixed size."""


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(number: int, value: int | str | bytes) -> bytes:
    """A number as a varint; text, bytes and messages with their length before them."""
    if isinstance(value, int):
        return varint(number << 3 | VARINT) + varint(value)
    raw = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | BYTES) + varint(len(raw)) + raw


def read_varint(message: bytes, at: int) -> tuple[int, int]:
    """The number and where it ends."""
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field in order. Raises IndexError or ValueError for what is no message."""
    at = 0
    while at < len(message):
        tag, at = read_varint(message, at)
        if tag & 7 == VARINT:
            value, at = read_varint(message, at)
            yield tag >> 3, value
            continue
        size, at = read_varint(message, at) if tag & 7 == BYTES else (FIXED.get(tag & 7), at)
        if size is None or at + size > len(message):
            raise ValueError(f"no message: field {tag >> 3} of wire type {tag & 7} at byte {at}")
        yield tag >> 3, message[at : at + size]
        at += size


def several(message: bytes, number: int) -> list[bytes]:
    """All fields of this number that hold bytes."""
    return [value for found, value in fields(message) if found == number and isinstance(value, bytes)]


def only(message: bytes, number: int) -> bytes:
    """Raises KeyError when there is not exactly one."""
    found = several(message, number)
    if len(found) != 1:
        raise KeyError(f"expected one field {number}, found {len(found)}")
    return found[0]


def numbers(packed: bytes) -> list[int]:
    found, at = [], 0
    while at < len(packed):
        value, at = read_varint(packed, at)
        found.append(value)
    return found


def floats(raw: bytes, shape: list[int]) -> Floats:
    return np.frombuffer(raw, dtype="<f4").reshape(shape)


@dataclasses.dataclass(frozen=True)
class ModelInfer:
    """`inference.GRPCInferenceService/ModelInfer`, its tensors as raw bytes."""

    model: str
    input_name: str = "x"
    content_type: str = GRPC

    def encode(self, batch: Floats) -> bytes:
        shape = b"".join(varint(size) for size in batch.shape)
        tensor = field(1, self.input_name) + field(2, "FP32") + field(3, shape)
        return field(1, self.model) + field(5, tensor) + field(7, batch.astype("<f4").tobytes())

    def decode(self, body: bytes) -> Floats:
        return floats(only(body, 6), numbers(only(only(body, 5), 3)))


@dataclasses.dataclass(frozen=True)
class Predict:
    """`tensorflow.serving.PredictionService/Predict`, asked with `tensor_content`.

    The original answers with `float_val`; `tensor_content` is read too, as its clients do.
    """

    model: str
    input_name: str = "x"
    content_type: str = GRPC

    def encode(self, batch: Floats) -> bytes:
        shape = b"".join(field(2, field(1, size)) for size in batch.shape)
        tensor = field(1, DT_FLOAT) + field(2, shape) + field(4, batch.astype("<f4").tobytes())
        return field(1, field(1, self.model)) + field(2, field(1, self.input_name) + field(2, tensor))

    def decode(self, body: bytes) -> Floats:
        tensor = only(only(body, 1), 2)
        sizes = [size for dim in several(only(tensor, 2), 2) for number, size in fields(dim) if number == 1]
        shape = [size for size in sizes if isinstance(size, int)]
        return floats(b"".join(several(tensor, 4) or several(tensor, 5)), shape)


def framed(message: bytes) -> bytes:
    """As it goes over the wire: not compressed, its length, and it."""
    return struct.pack(">BI", 0, len(message)) + message
