"""What a request of Open Inference asks beside its tensors, alike over HTTP and gRPC.

Source: `src/http_server.cc` and `docs/protocol/extension_*.md` of triton-inference-server/server.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

from app.errors import InvalidArgument
from app.protocols.call import SHOWN, Place
from app.protocols.infer_tensors import Takes
from app.protocols.json_values import describe
from app.tensors import STRING

K = TypeVar("K")
V = TypeVar("V")

_MOST_KEPT = 256
"""Of anything that requests are looked up in."""

_LONGEST_SEQUENCE = 128
_MOST_CLASSES = 1 << 31

NO_SHARED_MEMORY = "shared memory is not supported here: send the tensor in the request, and have it in the answer"


class Asked(NamedTuple):
    """One output that is asked for.

    Args:
        which: its place in the signature.
        binary: whether as bytes, and not in the JSON.
        classes: so many of the best classes in place of its scores; 0 for the scores.
    """

    which: int
    binary: bool
    classes: int = 0


_EMPTY_FINAL = "triton_enable_empty_final_response"
"""Asks, of streams, for a last answer without outputs where a model may give several; no model here does."""


class Told(NamedTuple):
    """What a request's parameters say.

    Args:
        binary: whether outputs that are not listed come as bytes.
    """

    timeout_ns: int = 0
    place: Place | None = None
    binary: bool = False


NOTHING = Told()


def told_by(given: Mapping[str, Any]) -> Told:
    """Read a request's parameters; those that mean nothing here are taken and have no effect.

    Raises:
        InvalidArgument: one has a value of another kind than it should, or a reserved name.
    """
    if not given:
        return NOTHING
    for name, value in given.items():
        if name == _EMPTY_FINAL:
            flag(given, name)
        elif name.startswith("triton_"):
            raise InvalidArgument(
                "parameter keys starting with 'triton_' are reserved for Triton usage and should not be specified: "
                f"found {name[:SHOWN]!r}"
            )
        if type(value) not in (str, int, float, bool):
            raise InvalidArgument(
                f"parameter {name[:SHOWN]!r} has invalid type. It should be either 'int', 'bool', 'double' or "
                f"'string': found {describe(value)}"
            )
    _natural(given, "priority")
    return Told(1000 * _natural(given, "timeout"), _place(given), flag(given, "binary_data_output"))


def _place(given: Mapping[str, Any]) -> Place | None:
    name = given.get("sequence_id", 0)
    start, end = flag(given, "sequence_start"), flag(given, "sequence_end")
    if type(name) is int:
        if not -(1 << 63) <= name < 1 << 64:
            raise InvalidArgument("Unable to parse 'sequence_id': expected an integer of 64 bits or a string")
        name = str(name) if name else ""
    elif type(name) is not str:
        raise InvalidArgument(f"Unable to parse 'sequence_id': expected an integer or a string, found {describe(name)}")
    if not name:
        if start or end:
            raise InvalidArgument(
                "inference request must specify a non-zero or non-empty correlation ID: expected 'sequence_id' beside "
                "'sequence_start' and 'sequence_end'"
            )
        return None
    if len(name) > _LONGEST_SEQUENCE or not (name.isascii() and name.isprintable()):
        raise InvalidArgument(
            f"Unable to parse 'sequence_id': expected at most {_LONGEST_SEQUENCE} printable ASCII characters, found "
            f"{name[:SHOWN]!r}"
        )
    return Place(name, start, end)


def members(value: Any, what: str) -> Mapping[str, Any]:
    """The members of an object that may be left out.

    Raises:
        InvalidArgument: it is something else.
    """
    if value is None:
        return {}
    if type(value) is not dict:
        raise InvalidArgument(f"{what}: expected an object, found {describe(value)}")
    return value


def flag(given: Mapping[str, Any], name: str) -> bool:
    """A parameter that is true or false, and false without it.

    Raises:
        InvalidArgument: it is neither.
    """
    value = given.get(name, False)
    if type(value) is not bool:
        raise InvalidArgument(f"Unable to parse {name!r}: expected true or false, found {describe(value)}")
    return value


def _natural(given: Mapping[str, Any], name: str, most: int = (1 << 64) - 1) -> int:
    value = given.get(name, 0)
    if type(value) is not int or not 0 <= value <= most:
        raise InvalidArgument(
            f"Unable to parse {name!r}: expected an integer from 0 to {most}, found {describe(value)}"
        )
    return value


class Outputs:
    """Gathers the outputs that a request lists.

    Args:
        json: whether those that are not binary are JSON, which not all have.
    """

    def __init__(self, takes: Takes, json: bool) -> None:
        self._takes = takes
        self._json = json
        self._found: dict[int, Asked] = {}

    def add(self, name: str, parameters: Mapping[str, Any], binary: bool | None = None) -> None:
        """Take one.

        Args:
            binary: in place of what its parameters say.

        Raises:
            InvalidArgument: there is no such output, it was listed already, or it has no such form.
        """
        index = self._takes.output(name)
        if index in self._found:
            raise InvalidArgument(f"output {name!r} is requested twice")
        if any(key.startswith("shared_memory_") for key in parameters):
            raise InvalidArgument(f"output {name!r}: {NO_SHARED_MEMORY}")
        classes = _natural(parameters, "classification", _MOST_CLASSES)
        if binary is None:
            binary = flag(parameters, "binary_data")
        self._found[index] = self._checked(Asked(index, binary, classes))

    def all(self, binary: bool) -> tuple[Asked, ...]:
        """Those listed; without any all that there are.

        Raises:
            InvalidArgument: one of these has no such form.
        """
        if self._found:
            return tuple(self._found.values())
        return tuple(self._checked(Asked(index, binary)) for index in range(len(self._takes.outputs)))

    def _checked(self, asked: Asked) -> Asked:
        spec = self._takes.outputs[asked.which]
        if asked.classes and spec.dtype.kind not in "fiu":
            kind = "BYTES" if spec.dtype == STRING else "BOOL"
            raise InvalidArgument(
                f"class result not available for output {spec.name!r} due to unsupported type {kind!r}"
            )
        if self._json and not asked.binary and not asked.classes and spec.dtype.name == "float16":
            raise InvalidArgument(
                "sending FP16 data via JSON is not supported. Please use the binary data format for output "
                f"{spec.name!r}"
            )
        return asked


def keep(kept: dict[K, V], key: K, value: V) -> V:
    """Remember a value, and of others as many as there is room for."""
    if len(kept) >= _MOST_KEPT:
        # All at once: another thread may be looking through them.
        kept.clear()
    kept[key] = value
    return value
