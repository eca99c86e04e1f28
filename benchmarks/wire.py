"""Wire formats as pure functions: records to a request's body, an answer's body to records."""

from __future__ import annotations

import dataclasses
import io
import json
from typing import Protocol

import numpy as np

from benchmarks.models import Floats

JSON = "application/json"
NPY = "application/x-npy"


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
    """What one client sends again and again: the same bytes by every load tool."""

    port: int
    path: str
    content_type: str
    body: bytes

    @property
    def headers(self) -> dict[str, str]:
        return {"Content-Type": self.content_type, "Accept": self.content_type}

    def raw(self) -> bytes:
        """The request as it goes over a socket."""
        lines = [f"POST {self.path} HTTP/1.1", f"Host: 127.0.0.1:{self.port}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        lines += [f"Content-Length: {len(self.body)}", "", ""]
        return "\r\n".join(lines).encode() + self.body
