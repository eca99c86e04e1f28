"""What a codec makes of a request body, and what it needs to know again for the answer."""

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple, Protocol

from app.tensors import Array


class Form(Enum):
    """How the caller put the records, and so how the answer is put."""

    INSTANCE = "instance"
    """One record; the answer has no batch dimension."""
    INSTANCES = "instances"
    """A list of records; the answer is a list."""
    INPUTS = "inputs"
    """Whole tensors, the batch dimension given by the caller; so are the answer's."""


class Call(NamedTuple):
    """A decoded request: `inputs` in the signature's order, each of shape `[rows, *record]`.

    A tuple, because making a frozen dataclass costs a microsecond more, on every request.
    """

    inputs: tuple[Array, ...]
    rows: int
    form: Form


class Codec(Protocol):
    """Bytes to arrays and back, for one signature and one wire format."""

    def decode(self, body: bytes) -> Call: ...
    def encode(self, call: Call, outputs: Sequence[Array]) -> bytes: ...
