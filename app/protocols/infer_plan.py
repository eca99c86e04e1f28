"""What the JSON of an Open Inference request says, but for its id and the values of its tensors."""

import math
from typing import Any, NamedTuple

import numpy as np
import orjson

from app.errors import InvalidArgument
from app.protocols.call import Identity, Place
from app.protocols.infer_answer import InferAnswer
from app.protocols.infer_json import Given, given_by
from app.protocols.infer_request import Asked, Outputs, Told, keep, members, told_by
from app.protocols.infer_tensors import Takes
from app.protocols.json_values import describe
from app.tensors import Shape, Signature

Lone = tuple[Shape, "np.dtype[Any]", int]


class Plan(NamedTuple):
    """What the JSON of a request came to, but for its id and the values in it.

    Args:
        lone: of the only input, if its bytes lie behind the JSON and can be used as they are, the shape
            `[rows, *record]`, the dtype and the bytes.
    """

    given: tuple[Given, ...]
    rows: int
    answer: InferAnswer
    timeout_ns: int
    place: Place | None
    lone: Lone | None


class Plans:
    """Reads the JSON of requests for one signature; any thread may use it.

    Raises:
        InvalidArgument: Open Inference has no type for one of the signature's tensors.
    """

    def __init__(self, identity: Identity, signature: Signature) -> None:
        self._identity = identity
        self.takes = Takes(identity, signature)
        self._answers: dict[tuple[Asked, ...], InferAnswer] = {}
        self.all_binary = self._answer_of(Outputs(self.takes, json=True).all(binary=True))
        """What writes answers that are bytes."""

    def read(self, document: Any) -> tuple[bytes, Plan]:
        """What the JSON of a request says: its id, and the rest.

        Raises:
            InvalidArgument: naming what was found, where, and what was expected.
        """
        if type(document) is not dict:
            raise InvalidArgument(
                f"failed to parse the request JSON buffer: expected an object, found {describe(document)}"
            )
        identity = _identity(document.get("id"))
        told = told_of(document.get("parameters"))
        given: dict[int, Given] = {}
        for position, item in enumerate(_list(document, "inputs", required=True)):
            one = given_by(item, f"inputs[{position}]", self.takes)
            if one.which in given:
                raise InvalidArgument(f"input {item['name']!r} already exists in request")
            given[one.which] = one
        rows = self.takes.rows({one.which: one.shape for one in given.values()})
        outputs = Outputs(self.takes, json=True)
        for position, item in enumerate(_list(document, "outputs")):
            place = f"outputs[{position}]"
            name = members(item, place).get("name")
            if type(name) is not str:
                raise InvalidArgument(f"Unable to parse 'name': {place}: expected a string, found {describe(name)}")
            outputs.add(name, members(item.get("parameters"), f"{place}.parameters"))
        answer = self._answer_of(outputs.all(told.binary))
        return identity, Plan(
            tuple(given.values()), rows, answer, told.timeout_ns, told.place, self._lone(tuple(given.values()))
        )

    def _lone(self, given: tuple[Given, ...]) -> Lone | None:
        index, shape, size = given[0]
        dtype = self.takes.inputs[index].dtype
        if len(given) > 1 or dtype.kind not in "fiu" or size != math.prod(shape) * dtype.itemsize:
            return None
        return (1, *shape) if self.takes.whole else shape, dtype, size

    def _answer_of(self, asked: tuple[Asked, ...]) -> InferAnswer:
        """What writes the answers to requests that ask for this."""
        answer = self._answers.get(asked)
        if answer is None:
            answer = keep(self._answers, asked, InferAnswer(self.takes, self._identity, asked))
        return answer


def told_of(parameters: Any) -> Told:
    """What a request's parameters say, as JSON has them.

    Raises:
        InvalidArgument: they are no object, or one of them is wrong.
    """
    found = members(parameters, "the request's parameters")
    # Some clients write out all that a request could have, as MLServer's do.
    return told_by({name: value for name, value in found.items() if value is not None})


def _identity(value: Any) -> bytes:
    """An id as JSON has it between quotes."""
    if value is None:
        return b""
    if type(value) is not str:
        raise InvalidArgument(f"Unable to parse 'id': expected a string, found {describe(value)}")
    try:
        return orjson.dumps(value)[1:-1]
    except TypeError:
        raise InvalidArgument("Unable to parse 'id': expected a string of characters that UTF-8 has") from None


def _list(document: dict[str, Any], key: str, required: bool = False) -> list[Any]:
    value = document.get(key)
    if value is None and not required:
        return []
    if type(value) is not list:
        raise InvalidArgument(f"Unable to parse {key!r}: expected a list, found {describe(value)}")
    return value
