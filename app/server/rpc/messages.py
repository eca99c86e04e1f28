"""The services that are spoken, and their messages, from the compiled `protos` (scripts/make_protos.py).

They are in a pool of their own: the default one takes each name only once, and TensorFlow, or a client of these very
services, may be in the same process.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import ParseDict
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from app.errors import InvalidArgument

SERVICES = (
    "tensorflow.serving.PredictionService",
    "tensorflow.serving.ModelService",
    "inference.GRPCInferenceService",
)


def _read() -> DescriptorPool:
    pool = DescriptorPool()
    for file in FileDescriptorSet.FromString((Path(__file__).parent / "protos/descriptors.bin").read_bytes()).file:
        pool.Add(file)
    return pool


POOL = _read()


class Method(NamedTuple):
    """A call of a service.

    Args:
        path: as requests name it.
    """

    path: str
    descriptor: MethodDescriptor

    @property
    def name(self) -> str:
        return self.descriptor.name

    def read(self, data: bytes) -> Any:
        """A request's message.

        Raises:
            InvalidArgument: it is none.
        """
        kind = self.descriptor.input_type
        try:
            return GetMessageClass(kind).FromString(data)
        except DecodeError:
            raise InvalidArgument(
                f"the request is no {kind.full_name}: expected that as a protobuf message, found {len(data)} bytes "
                "that cannot be read as one"
            ) from None

    def write(self, said: Any) -> bytes:
        """An answer's message, from itself or from its form as JSON."""
        answer = filled(self.descriptor.output_type.full_name, said) if isinstance(said, dict) else said
        written: bytes = answer.SerializeToString()
        return written


def methods(service: str) -> Iterator[Method]:
    """Those of a service that is in the pool."""
    for method in POOL.FindServiceByName(service).methods:
        yield Method(f"/{service}/{method.name}", method)


def new(name: str, /, **fields: Any) -> Any:
    """A message of the type of that full name."""
    return GetMessageClass(POOL.FindMessageTypeByName(name))(**fields)


def filled(name: str, said: dict[str, Any]) -> Any:
    """A message from its form as JSON. What it has no field for is left out."""
    return ParseDict(said, new(name), ignore_unknown_fields=True)
