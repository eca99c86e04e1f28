"""`InferParameter`: a parameter's value in a gRPC message of Open Inference, of one of a few types."""

import struct
from typing import Any

from app.protocols import protobuf
from app.protocols.call import SHOWN

_DOUBLE = struct.Struct("<d")


def add_parameter(parameters: dict[str, Any], view: memoryview) -> None:
    """Take an entry of a map of `InferParameter`; a value of no type is None.

    Raises:
        InvalidArgument: it is damaged.
    """
    key, message = protobuf.entry(view, "a parameter")
    name = protobuf.text(key, "a parameter's name")
    value: Any = None
    if isinstance(message, memoryview):
        for number, kind, found in protobuf.fields(message, f"parameter {name[:SHOWN]!r}"):
            match number, kind:
                case (1, 0):
                    value = bool(found)
                case (2, 0):
                    value = protobuf.signed(int(found))
                case (3, 2):
                    value = protobuf.text(found, f"parameter {name[:SHOWN]!r}")
                case (4, 1):
                    (value,) = _DOUBLE.unpack(found)  # type: ignore[arg-type]
                case (5, 0):
                    value = found
    parameters[name] = value
