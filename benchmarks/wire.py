"""Wire formats as pure functions: records to a request's body, an answer's body to records."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Mapping
from typing import Protocol

import numpy as np

from benchmarks.models import Floats

JSON = "application/json"
NPY = "application/x-npy"
OCTETS = "application/octet-stream"


class Wire(Protocol):
    """How a server is asked and how it answers. `decode` raises ValueError or KeyError for what is no answer."""

    @property
    def content_type(self) -> str: ...

    def encode(self, batch: Floats) -> bytes: ...

    def decode(self, body: bytes) -> Floats: ...


def plain(batch: Floats) -> object:
    """Lists of the numbers as people write them: 0.1234 and not the float32 nearest to it."""
    return batch.astype(np.float64).round(4).tolist()


def compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


@dataclasses.dataclass(frozen=True)
class Instances:
    """`{"instances": [RECORD, ...]}` to `{"predictions": [RECORD, ...]}`."""

    content_type: str = JSON

    def encode(self, batch: Floats) -> bytes:
        return compact({"instances": plain(batch)})

    def decode(self, body: bytes) -> Floats:
        return np.asarray(json.loads(body)["predictions"], dtype=np.float32)


@dataclasses.dataclass(frozen=True)
class OpenInference:
    """The Open Inference Protocol v2 in JSON: one flat tensor with its shape."""

    input_name: str = "x"
    content_type: str = JSON

    def encode(self, batch: Floats) -> bytes:
        tensor = {"name": self.input_name, "shape": list(batch.shape), "datatype": "FP32", "data": plain(batch.ravel())}
        return compact({"inputs": [tensor]})

    def decode(self, body: bytes) -> Floats:
        tensor = json.loads(body)["outputs"][0]
        return np.asarray(tensor["data"], dtype=np.float32).reshape(tensor["shape"])


@dataclasses.dataclass(frozen=True)
class OpenInferenceBinary:
    """The Open Inference Protocol v2 with Triton's binary tensors, both ways: JSON, and bytes that it tells of.

    How long the JSON is goes with the request in a header, which `head_length` finds.
    """

    input_name: str = "x"
    content_type: str = OCTETS

    def encode(self, batch: Floats) -> bytes:
        raw = batch.astype("<f4").tobytes()
        tensor = {"name": self.input_name, "shape": list(batch.shape), "datatype": "FP32"}
        head = {
            "inputs": [{**tensor, "parameters": {"binary_data_size": len(raw)}}],
            "parameters": {"binary_data_output": True},
        }
        return compact(head) + raw

    def decode(self, body: bytes) -> Floats:
        head, length = json.JSONDecoder().raw_decode(body.decode("latin-1"))
        tensor = head["outputs"][0]
        size = tensor["parameters"]["binary_data_size"]
        # The JSON may be followed by blanks, so that the tensor begins at a good address.
        blanks = len(body) - length - size
        if blanks < 0 or body[length : length + blanks].strip():
            raise ValueError(f"expected {size} bytes after the JSON, found {len(body) - length}")
        return np.frombuffer(body[length + blanks :], dtype="<f4").reshape(tensor["shape"])


def head_length(body: bytes) -> int:
    """Of the JSON that a body begins with."""
    return int(json.JSONDecoder().raw_decode(body.decode("latin-1"))[1])


@dataclasses.dataclass(frozen=True)
class Npy:
    """NumPy's own file format, both ways."""

    content_type: str = NPY

    def encode(self, batch: Floats) -> bytes:
        file = io.BytesIO()
        np.save(file, batch)
        return file.getvalue()

    def decode(self, body: bytes) -> Floats:
        return np.asarray(np.load(io.BytesIO(body), allow_pickle=False), dtype=np.float32)


@dataclasses.dataclass(frozen=True)
class Request:
    """What one client sends again and again: the same bytes by every load tool.

    `more` are headers beyond those that say which format it is.
    """

    port: int
    path: str
    content_type: str
    body: bytes
    more: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def headers(self) -> dict[str, str]:
        return {"Content-Type": self.content_type, "Accept": self.content_type, **self.more}

    def raw(self) -> bytes:
        """The request as it goes over a socket."""
        lines = [f"POST {self.path} HTTP/1.1", f"Host: 127.0.0.1:{self.port}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        lines += [f"Content-Length: {len(self.body)}", "", ""]
        return "\r\n".join(lines).encode() + self.body
