"""Reflection: what tools like grpcurl ask to learn the services and their messages.

There are two services of one form: `v1alpha`, which grpcio-reflection has, and `v1`, which tools ask first.
"""

import asyncio
from collections.abc import AsyncIterator

from google.protobuf import text_format
from google.protobuf.descriptor import FileDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha import reflection, reflection_pb2

from app.errors import InvalidArgument, Unavailable
from app.server.rpc.calls import Left, Stream
from app.server.rpc.messages import POOL

ALPHA = reflection.SERVICE_NAME
STABLE = ALPHA.replace("v1alpha", "v1")
PATHS = tuple(f"/{service}/ServerReflectionInfo" for service in (STABLE, ALPHA))


def _add() -> None:
    """Have the services describe themselves too."""
    alpha = reflection_pb2.DESCRIPTOR.serialized_pb
    POOL.AddSerializedFile(alpha)
    text = text_format.MessageToString(FileDescriptorProto.FromString(alpha)).replace("v1alpha", "v1")
    POOL.AddSerializedFile(text_format.Parse(text, FileDescriptorProto()).SerializeToString())


_add()


class _Names:
    """The pool, which by itself finds the file of everything that has a name but methods, of which tools ask too."""

    FindFileByName = staticmethod(POOL.FindFileByName)
    FindMessageTypeByName = staticmethod(POOL.FindMessageTypeByName)
    FindExtensionByNumber = staticmethod(POOL.FindExtensionByNumber)
    FindAllExtensions = staticmethod(POOL.FindAllExtensions)

    def FindFileContainingSymbol(self, name: str) -> FileDescriptor:  # noqa: N802  The servicer calls it so.
        """The file in which a name stands.

        Raises:
            KeyError: in none.
        """
        try:
            return POOL.FindFileContainingSymbol(name)
        except KeyError:
            service: ServiceDescriptor = POOL.FindMethodByName(name).containing_service
            return service.file


def reflecting(services: tuple[str, ...], ending: asyncio.Event) -> Stream:
    """The call, of either service.

    Args:
        services: that are listed.
        ending: set when the server ends: some tools keep the call open for as long as they are.
    """
    servicer = reflection.aio.ReflectionServicer((*services, STABLE, ALPHA), _Names())

    async def stream(messages: AsyncIterator[bytes], _: Left) -> AsyncIterator[bytes]:
        async for answer in servicer.ServerReflectionInfo(_requests(_until(ending, messages)), None):
            yield answer.SerializeToString()
        if ending.is_set():
            raise Unavailable("the server is shutting down", retry_after=1)

    return stream


async def _requests(messages: AsyncIterator[bytes]) -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
    async for message in messages:
        try:
            yield reflection_pb2.ServerReflectionRequest.FromString(message)
        except DecodeError:
            raise InvalidArgument(
                f"the request is no ServerReflectionRequest: found {len(message)} bytes that cannot be read as one"
            ) from None


async def _until(ending: asyncio.Event, messages: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The messages that come before the end."""
    end = asyncio.ensure_future(ending.wait())
    upcoming = None
    try:
        while not ending.is_set():
            upcoming = asyncio.ensure_future(_next(messages))
            await asyncio.wait((upcoming, end), return_when=asyncio.FIRST_COMPLETED)
            if not upcoming.done():
                return
            message = upcoming.result()
            if message is None:
                return
            yield message
    finally:
        end.cancel()
        if upcoming is not None:
            upcoming.cancel()


async def _next(messages: AsyncIterator[bytes]) -> bytes | None:
    return await anext(messages, None)
