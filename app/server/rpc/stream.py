"""Triton's `ModelStreamInfer`: requests one after another on one call, each answered in its turn.

The answers come in the order of the requests, as Triton's do for models that give one answer to a request. One that
fails says so in the answer's `error_message`, and the stream goes on.
"""

from app.errors import InvalidArgument, LitepoolError
from app.protocols import protobuf
from app.protocols.call import Answer
from app.server.h2.head import Streamed
from app.server.rpc.hot import INFERENCE, Start

PATH = f"/{INFERENCE}/ModelStreamInfer"

_ERROR_MESSAGE, _INFER_RESPONSE = 1, 2
_ID, _PARAMETERS = 3, 4
"""Fields of the answer's message, and of the one within."""

_FINAL = protobuf.write_bytes(
    _PARAMETERS,
    protobuf.write_bytes(1, b"triton_final_response") + protobuf.write_bytes(2, b"\x08\x01"),
)
"""The parameter by which clients know the last answer to a request, which here is the only one."""


def streamed(start: Start) -> Streamed:
    """Many calls of `ModelInfer` as one of `ModelStreamInfer`."""
    return Streamed(start, _wrap, _tell)


def _wrap(body: bytes | Answer) -> tuple[bytes | memoryview, ...]:
    pieces = body.pieces if isinstance(body, Answer) else (body,)
    size = sum(memoryview(piece).nbytes for piece in pieces) + len(_FINAL)
    return protobuf.write_head(_INFER_RESPONSE, size), *pieces, _FINAL


def _tell(message: bytes, error: LitepoolError) -> bytes:
    within = protobuf.write_bytes(_ID, _identity(message)) + _FINAL
    return protobuf.write_bytes(_ERROR_MESSAGE, error.message.encode()) + protobuf.write_bytes(_INFER_RESPONSE, within)


def _identity(message: bytes) -> bytes:
    """A request's own name, by which its caller knows the answer; empty where there is none to be found."""
    found = b""
    try:
        for number, _, value in protobuf.fields(memoryview(message)):
            if number == _ID and isinstance(value, memoryview):
                found = bytes(value)
        protobuf.text(memoryview(found), "id")
    except InvalidArgument:
        return b""
    return found
