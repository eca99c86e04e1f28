"""What a worker and its parent say to each other: JSON, a line for each message.

    parent -> worker   {"setup": {...}}                             the first line, see `worker`
                       {"settled": true}                            all workers have loaded
                       {"order": n, "do": ..., "model": ...}        do this, and say when it is done
                       {"answer": m, "error": null or {...}}        what you asked for is done everywhere
    worker -> parent   {"report": {...}}                            it has loaded, see `worker.report`
                       {"ask": m, "do": ..., "model": ...}          a client wants this of all workers
                       {"done": n, "error": null or {...}}

No framework and no event loop is imported here: the parent uses it as well.
"""

import json
import os
from typing import Any

from app import errors
from app.errors import Internal, LitepoolError, Unavailable

Message = dict[str, Any]

_KINDS: dict[str, type[LitepoolError]] = {
    kind.code.value: kind
    for kind in (
        errors.InvalidArgument,
        errors.NotFound,
        errors.TooLarge,
        errors.UnsupportedFormat,
        errors.DeadlineExceeded,
        errors.ModelError,
    )
}


class Reader:
    """Messages from a descriptor."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._rest = b""

    def read(self) -> list[Message]:
        """The messages that have become whole; it waits, once, if nothing has come.

        Raises:
            EOFError: there will be no more.
        """
        data = os.read(self._fd, 1 << 16)
        if not data:
            raise EOFError
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [json.loads(line) for line in lines]


class Writer:
    """Messages to a descriptor, whose reader may be slow, or hang, or be dead: nothing here waits for it."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._left = bytearray()

    def send(self, message: Message) -> bool:
        """Send it after what waits already; whether it is all on its way. If not, `flush` when there is room."""
        self._left += encode(message)
        return self.flush()

    def flush(self) -> bool:
        try:
            while self._left:
                del self._left[: os.write(self._fd, self._left)]
        except BlockingIOError:
            return False
        except BrokenPipeError:
            # Whoever waits for the reader finds out in another way.
            self._left.clear()
        return True


def encode(message: Message) -> bytes:
    return json.dumps(message).encode() + b"\n"


def error_to_json(error: LitepoolError | None) -> Message | None:
    if error is None:
        return None
    told: Message = {"code": error.code.value, "message": error.message}
    if isinstance(error, Unavailable) and error.retry_after is not None:
        told["retry_after"] = error.retry_after
    return told


def error_from_json(told: Message | None) -> LitepoolError | None:
    """What `error_to_json` was given, or the nearest error that has its code."""
    if told is None:
        return None
    if told["code"] == Unavailable.code.value:
        return Unavailable(told["message"], told.get("retry_after"))
    return _KINDS.get(told["code"], Internal)(told["message"])
