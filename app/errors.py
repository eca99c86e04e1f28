"""Everything that can go wrong with a request or a model, as one tree.

LitepoolError
├── InvalidArgument     the request says something that the model or the format does not allow
├── NotFound            no model of that name
├── TooLarge            the body is larger than the server takes
├── UnsupportedFormat   no codec for the body's media type, or for the answer's
├── Unavailable         the model is not serving now: loading, failed, or the server drains
│   └── QueueFull       as many calls wait as may
├── DeadlineExceeded    the answer would come later than it was wanted
├── Internal            a fault of ours or of the interpreter
└── ModelError          a model cannot be laid out, converted, checked or loaded
    └── RunnerLost      what runs it has ended

Codes are canonical, as gRPC's and TensorFlow Serving's are; each edge maps them to its own status once.
"""

from enum import Enum
from typing import ClassVar, TypeVar


class Code(Enum):
    """What kind of failure it is, whatever the protocol."""

    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    NOT_FOUND = "NOT_FOUND"
    TOO_LARGE = "TOO_LARGE"
    UNSUPPORTED_FORMAT = "UNSUPPORTED_FORMAT"
    UNAVAILABLE = "UNAVAILABLE"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    FAILED_PRECONDITION = "FAILED_PRECONDITION"
    INTERNAL = "INTERNAL"


_OF_REQUESTS = frozenset({Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.TOO_LARGE, Code.UNSUPPORTED_FORMAT})


class LitepoolError(Exception):
    """A failure with a message for the caller: what was found, where, and what was expected.

    Where it is about a request, it may repeat some of that, and is yet one line that every edge can carry.
    """

    code: ClassVar[Code] = Code.INTERNAL

    def __init__(self, message: str) -> None:
        if self.code in _OF_REQUESTS and not message.isprintable():
            message = printable(message)
        super().__init__(message)
        self.message = message


def printable(text: str) -> str:
    """A text with control characters, and halves of surrogate pairs, which UTF-8 has not, as Python writes them."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


class InvalidArgument(LitepoolError):
    code = Code.INVALID_ARGUMENT


class NotFound(LitepoolError):
    code = Code.NOT_FOUND


class TooLarge(LitepoolError):
    code = Code.TOO_LARGE


class UnsupportedFormat(LitepoolError):
    code = Code.UNSUPPORTED_FORMAT


class Unavailable(LitepoolError):
    """`retry_after` is in seconds; None means that waiting will not help."""

    code = Code.UNAVAILABLE

    def __init__(self, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class QueueFull(Unavailable):
    pass


class DeadlineExceeded(LitepoolError):
    code = Code.DEADLINE_EXCEEDED


class Internal(LitepoolError):
    code = Code.INTERNAL


class ModelError(LitepoolError):
    code = Code.FAILED_PRECONDITION


class RunnerLost(ModelError):
    """What runs the model has ended, be the request as it may."""


E = TypeVar("E", bound=Exception)


def without_trace(error: E) -> E:
    """An error as it is handed on to whoever is told of it, without what led to it.

    The frames of a trace hold the request, whose caller may hold the error. Such a circle would keep the request's
    model in memory after that has been unloaded, until the collector looks, and of what was there when the server
    started it never does.
    """
    error.__traceback__ = error.__cause__ = error.__context__ = None
    return error
