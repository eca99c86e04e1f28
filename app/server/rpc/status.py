"""Canonical codes to gRPC's, once."""

from collections.abc import Mapping

import grpc

from app.errors import Code, LitepoolError

STATUS_OF: Mapping[Code, grpc.StatusCode] = {
    Code.INVALID_ARGUMENT: grpc.StatusCode.INVALID_ARGUMENT,
    Code.FAILED_PRECONDITION: grpc.StatusCode.FAILED_PRECONDITION,
    Code.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    # What gRPC itself says of a message that is larger than the server takes.
    Code.TOO_LARGE: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Code.UNSUPPORTED_FORMAT: grpc.StatusCode.UNIMPLEMENTED,
    # Of a full queue too, as both of the servers whose services these are do: clients may try again.
    Code.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    Code.DEADLINE_EXCEEDED: grpc.StatusCode.DEADLINE_EXCEEDED,
    Code.INTERNAL: grpc.StatusCode.INTERNAL,
}


class Refused(Exception):
    """A call is answered with a status that no canonical code of ours stands for."""

    def __init__(self, status: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def status_of(error: LitepoolError | Refused) -> grpc.StatusCode:
    """What a call that failed so is answered with."""
    return error.status if isinstance(error, Refused) else STATUS_OF[error.code]


def number_and_text(error: LitepoolError) -> tuple[int, str]:
    """The same as it goes over the wire, with what there is to say."""
    number: int = STATUS_OF[error.code].value[0]
    return number, error.message
