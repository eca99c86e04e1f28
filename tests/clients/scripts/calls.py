"""What every client program here is made of.

Functions, each of which makes some calls of a real client and looks at what comes back. A program runs them one after
another, each with a client of its own, and prints a line of JSON for each.

    python triton_http.py HOST:PORT GRPC_HOST:PORT

They run in an environment of the client's, so that this file imports nothing but the standard library and NumPy.
"""

import asyncio
import inspect
import json
import sys
import traceback
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

F = TypeVar("F", bound=Callable[[Any], Any])

_calls: list[Callable[[Any], Any]] = []


@dataclass(frozen=True)
class Addresses:
    """Where the server is: `host:port` of HTTP and of gRPC."""

    http: str
    grpc: str


def call(function: F) -> F:
    """Have the program make this call; it is given a client, and fails by raising."""
    _calls.append(function)
    return function


def run(make_client: Callable[[Addresses], AbstractContextManager[Any]]) -> None:
    """Make every call, each with a new client."""

    def attempt(function: Callable[[Any], Any]) -> None:
        with make_client(addresses) as client:
            function(client)

    addresses = Addresses(*sys.argv[1:])
    for function in _calls:
        _tell(function, attempt)


def run_async(make_client: Callable[[Addresses], AbstractAsyncContextManager[Any]]) -> None:
    """The same for clients of asyncio, each call in a loop of its own."""

    def attempt(function: Callable[[Any], Awaitable[Any]]) -> None:
        async def with_a_client() -> None:
            async with make_client(addresses) as client:
                await function(client)

        asyncio.run(with_a_client())

    addresses = Addresses(*sys.argv[1:])
    for function in _calls:
        assert inspect.iscoroutinefunction(function), function.__name__
        _tell(function, attempt)


def _tell(function: Callable[[Any], Any], attempt: Callable[[Callable[[Any], Any]], None]) -> None:
    failure = None
    try:
        attempt(function)
    except Exception:  # noqa: BLE001  The test shows it.
        failure = traceback.format_exc()
    print(json.dumps({"call": function.__name__, "failure": failure}), flush=True)


def equal(found: Any, expected: Any) -> None:
    """Refuse anything but what was expected; arrays also in their shapes and, unless a list is expected, dtypes."""
    if isinstance(found, np.ndarray):
        if isinstance(expected, np.ndarray):
            assert (found.dtype, found.shape) == (expected.dtype, expected.shape), (found, expected)
            expected = expected.tolist()
        found = found.tolist()
    assert found == expected, f"expected {expected!r}, found {found!r}"


@contextmanager
def refused(kind: type[BaseException], *words: str) -> Iterator[None]:
    """Expect an exception of a kind, whose text has all the words, whatever their case."""
    try:
        yield
    except kind as error:
        text = str(error)
        missing = [word for word in words if word.lower() not in text.lower()]
        assert not missing, f"expected {missing} in {text!r}"
    else:
        raise AssertionError(f"expected {kind.__name__} with {words}, and the call succeeded")
