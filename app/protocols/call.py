"""What a codec makes of a request body, what it needs to know again for the answer, and what the answer is."""

from collections.abc import Sequence
from enum import Enum
from typing import Any, NamedTuple, Protocol

from app.errors import InvalidArgument
from app.tensors import Array

JSON = "application/json"
OCTETS = "application/octet-stream"

SHOWN = 80
"""Characters of a caller's own text that a message repeats."""


def shown(text: str) -> str:
    """A caller's own text in a message, which goes out as UTF-8: JSON can give halves of surrogate pairs."""
    return text[:SHOWN].encode("utf-8", "backslashreplace").decode()


def is_utf8(text: str) -> bool:
    """Whether there are no such halves in a text."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


class Wire(Enum):
    """A wire format: the requests of one kind of path or method, and their answers."""

    PREDICT = "predict"
    """`/predict`: our own JSON, or a tensor as `.npy`."""
    SERVING_PREDICT = "serving predict"
    """TensorFlow Serving's REST, `:predict`,"""
    SERVING_CLASSIFY = "serving classify"
    """`:classify`"""
    SERVING_REGRESS = "serving regress"
    """and `:regress`."""
    INFER = "infer"
    """Open Inference v2 over HTTP, with Triton's extensions."""
    GRPC_PREDICT = "grpc predict"
    """TensorFlow Serving's `PredictionService`: `Predict`,"""
    GRPC_CLASSIFY = "grpc classify"
    """`Classify`"""
    GRPC_REGRESS = "grpc regress"
    """and `Regress`."""
    GRPC_INFER = "grpc infer"
    """Open Inference v2 over gRPC: `ModelInfer`."""


class Form(Enum):
    """How the caller put the records, and so how the answer is put."""

    INSTANCE = "instance"
    """One record; the answer has no batch dimension."""
    INSTANCES = "instances"
    """A list of records; the answer is a list."""
    INPUTS = "inputs"
    """Whole tensors, the batch dimension given by the caller; so are the answer's."""


class Place(NamedTuple):
    """A request's place in a sequence of requests that share a model's state, where the body names it.

    Args:
        name: the sequence's.
        start: whether it is the first.
        end: whether it is the last.
    """

    name: str
    start: bool = False
    end: bool = False


class Call(NamedTuple):
    """A decoded request: `inputs` in the signature's order, each of shape `[rows, *record]`.

    A tuple, because making a frozen dataclass costs a microsecond more, on every request.

    Args:
        asks: what else the request says of its answer; the codec's own.
        timeout_ns: how long the caller waits, in nanoseconds; 0 where the body does not say.
        place: in a sequence; None where the body names none.
    """

    inputs: tuple[Array, ...]
    rows: int
    form: Form
    asks: Any = None
    timeout_ns: int = 0
    place: Place | None = None


class Answer(NamedTuple):
    """An answer of which bytes alone do not say enough.

    Args:
        pieces: its bytes, in order; those of large tensors are views, which are not copied.
        headers: that go with it, names in lower case.
    """

    pieces: tuple[bytes | memoryview, ...]
    media_type: str
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Codec(Protocol):
    """One wire format for one signature. Pure: any thread may use it.

    `decode` takes a request's body, and for gRPC the message as the format's reader has taken it apart. `encode` gives
    the answer's bytes, which are JSON or a message where they are no `Answer`.

    Raises:
        InvalidArgument: naming what was found, where, and what was expected.
        OtherSignature: the body is for another signature of the model.
    """

    def decode(self, body: Any) -> Call: ...
    def encode(self, call: Call, outputs: Sequence[Array]) -> bytes | Answer: ...


class HeadedCodec(Codec, Protocol):
    """The codec of a format whose bodies may begin with JSON and go on with binary tensors."""

    def reading(self, head_length: str) -> Codec:
        """What decodes bodies under an `Inference-Header-Content-Length` of this text.

        Raises:
            InvalidArgument: it is no length.
        """
        ...


class Identity(NamedTuple):
    """What is served, for formats whose answers say so.

    Args:
        labels: names of the classes in the order of the scores, by the output.
    """

    model: str
    version: int
    labels: dict[str, list[str]]


class OtherSignature(InvalidArgument):
    """A body that names a signature is being read with the codec of another; not an error until that is not found."""

    def __init__(self, name: str) -> None:
        super().__init__(f'Serving signature name: "{shown(name)}" not found in signature def')
        self.name = name
