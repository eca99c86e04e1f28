"""Open Inference v2 over gRPC: `ModelInferRequest` and `ModelInferResponse`, as Triton speaks them.

What stands before the tensors of a request hardly ever changes with one client, but for its id. As over HTTP, what it
came to is kept by its very bytes.

Source: `open_inference_grpc.proto` of kserve/open-inference-protocol and `grpc_service.proto` of Triton, which agree in
these messages.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from app.errors import InvalidArgument
from app.protocols import protobuf
from app.protocols.call import SHOWN, Answer, Call, Form, Identity, Place
from app.protocols.infer_contents import typed
from app.protocols.infer_grpc_answer import GrpcAnswer
from app.protocols.infer_parameter import add_parameter
from app.protocols.infer_request import NO_SHARED_MEMORY, Asked, Outputs, keep, told_by
from app.protocols.infer_tensors import Takes
from app.protocols.protobuf import LENGTH, VARINT, Value
from app.tensors import Array, Shape, Signature

_REQUEST = "ModelInferRequest"

_ID, _PARAMETERS, _INPUTS, _OUTPUTS, _RAW = range(3, 8)
"""The fields' numbers."""

_PARAMETER = _PARAMETERS << 3 | LENGTH
"""What one begins with."""

_LONGEST_KEPT = 4096
_LONGEST_HEAD = 16 * 1024
_MOST_FIELDS = 256
_MOST_LENGTHS = 4
"""Of heads that are kept the bytes of the longest, and how many lengths of theirs are tried."""


class Given(NamedTuple):
    """One input as a request declares it.

    Args:
        which: its place in the signature.
        contents: where its values are in the message themselves.
    """

    which: int
    shape: Shape
    contents: memoryview | None


class Plan(NamedTuple):
    """What a request came to, but for its id and its tensors' bytes.

    Args:
        lone: of the only input, if its bytes can be used as they are, what stands before them, how many they are, its
            shape as `[rows, *record]` and its dtype.
    """

    given: tuple[Given, ...]
    rows: int
    answer: GrpcAnswer
    timeout_ns: int
    place: Place | None
    lone: "tuple[bytes, int, Shape, np.dtype[Any]] | None"


class GrpcInfer:
    """Decodes and encodes for one signature. Pure: any thread may use it.

    Raises:
        InvalidArgument: Open Inference has no type for one of the signature's tensors.
    """

    def __init__(self, identity: Identity, signature: Signature) -> None:
        self._identity = identity
        self._takes = Takes(identity, signature)
        self._answers: dict[tuple[Asked, ...], GrpcAnswer] = {}
        self._heads: dict[bytes, Plan] = {}
        """By what stands between the id and the tensors' bytes;"""
        self._bare: dict[bytes, Plan] = {}
        """the same without parameters, where they all stand before it."""
        self._lengths: tuple[int, ...] = ()
        """Those of heads that are kept, the latest first."""

    def decode(self, body: bytes) -> Call:
        """Read a request. Which model it names is for others to know.

        Raises:
            InvalidArgument: naming what was found, where, and what was expected.
        """
        start, identity = _past_id(body)
        if start:
            call = self._seen(self._heads, body, start, identity)
            if call is not None:
                return call
            rest = _past_parameters(body, start)
            if rest > start:
                call = self._seen(self._bare, body, rest, identity)
                if call is not None:
                    # They alone are another each time: a place in a sequence, a timeout.
                    told = told_by(_parameters(body, start, rest))
                    return call._replace(timeout_ns=told.timeout_ns, place=told.place)
        return self._decode_whole(body, start)

    def lies(self, body: bytes) -> bool:
        """Whether all of a request is small but for its tensors, which can be looked at where they lie."""
        size = len(body)
        try:
            for count, (number, _, value) in enumerate(protobuf.fields(memoryview(body), _REQUEST)):
                if count == _MOST_FIELDS:
                    return False
                if number == _RAW and isinstance(value, memoryview):
                    size -= len(value)
        except InvalidArgument:
            # Which is told at once.
            return True
        return size <= _LONGEST_HEAD

    def encode(self, call: Call, outputs: Sequence[Array]) -> Answer:
        """Write the answer to `call`; `outputs` are in the signature's order, each `[rows, *record]`."""
        identity, answer = call.asks
        return answer.write(identity, outputs)  # type: ignore[no-any-return]

    def _seen(self, kept: dict[bytes, Plan], body: bytes, start: int, identity: bytes) -> Call | None:
        """The call of a request of which what begins at a place was seen before; None where it was not."""
        for length in self._lengths:
            plan = kept.get(body[start : start + length])
            if plan is not None:
                return _call_of(plan, identity, body, start + length)
        return None

    def _decode_whole(self, body: bytes, start: int) -> Call:
        plan, identity, raw = self._read(memoryview(body))
        arrays = self._arrays(plan, raw)
        if start and plan.lone is not None:
            self._learn(body, start, len(body) - plan.lone[1] - len(plan.lone[0]), plan)
        return Call(arrays, plan.rows, Form.INPUTS, (identity, plan.answer), plan.timeout_ns, plan.place)

    def _learn(self, body: bytes, start: int, end: int, plan: Plan) -> None:
        """Remember what stands before the bytes of a lone tensor, also without the parameters that it begins with."""
        if not 0 < end - start <= _LONGEST_KEPT:
            return
        rest = _past_parameters(body, start)
        try:
            numbers = {number for number, _, _ in protobuf.fields(memoryview(body)[rest:end], _REQUEST)}
        except InvalidArgument:
            # It is no field that ends there.
            return
        if numbers <= {_PARAMETERS, _INPUTS, _OUTPUTS}:
            self._keep(self._heads, body[start:end], plan)
            if _PARAMETERS not in numbers:
                self._keep(self._bare, body[rest:end], plan._replace(timeout_ns=0, place=None))

    def _keep(self, kept: dict[bytes, Plan], head: bytes, plan: Plan) -> None:
        keep(kept, head, plan)
        others = (length for length in self._lengths if length != len(head))
        self._lengths = (len(head), *others)[:_MOST_LENGTHS]

    def _read(self, view: memoryview) -> tuple[Plan, bytes, list[memoryview]]:
        """What a request says, its id, and its tensors' bytes where they are raw.

        Raises:
            InvalidArgument: naming what was found, where, and what was expected.
        """
        parameters: dict[str, Any] = {}
        given: dict[int, Given] = {}
        outputs = Outputs(self._takes, json=False)
        identity = b""
        raw: list[memoryview] = []
        for number, kind, value in protobuf.fields(view, _REQUEST):
            if kind != LENGTH or isinstance(value, int):
                continue
            if number == _PARAMETERS:
                add_parameter(parameters, value)
            elif number == _INPUTS:
                one = self._input(value)
                if one.which in given:
                    raise InvalidArgument(f"input {self._takes.inputs[one.which].name!r} already exists in request")
                given[one.which] = one
            elif number == _OUTPUTS:
                _add_output(outputs, value)
            elif number == _RAW:
                raw.append(value)
            elif number == _ID:
                identity = protobuf.text(value, "id").encode()
        told = told_by(parameters)
        rows = self._takes.rows({one.which: one.shape for one in given.values()})
        asked = outputs.all(binary=True)
        answer = self._answers.get(asked)
        if answer is None:
            answer = keep(self._answers, asked, GrpcAnswer(self._takes, self._identity, asked))
        ordered = tuple(given.values())
        plan = Plan(ordered, rows, answer, told.timeout_ns, told.place, self._lone(ordered))
        return plan, identity, raw

    def _lone(self, given: tuple[Given, ...]) -> "tuple[bytes, int, Shape, np.dtype[Any]] | None":
        which, shape, contents = given[0]
        dtype = self._takes.inputs[which].dtype
        if len(given) > 1 or contents is not None or dtype.kind not in "fiu":
            return None
        size = math.prod(shape) * dtype.itemsize
        return protobuf.write_head(_RAW, size), size, (1, *shape) if self._takes.whole else shape, dtype

    def _input(self, view: memoryview) -> Given:
        name = datatype = ""
        sizes: list[Value] = []
        parameters: dict[str, Any] = {}
        contents: list[Value] = []
        for number, kind, value in protobuf.fields(view, "an input"):
            if number == 3 and kind in (LENGTH, VARINT):
                sizes.append(value)
            elif kind != LENGTH or isinstance(value, int):
                continue
            elif number == 1:
                name = protobuf.text(value, "an input's name")
            elif number == 2:
                datatype = protobuf.text(value, "an input's datatype")
            elif number == 4:
                add_parameter(parameters, value)
            elif number == 5:
                contents.append(value)
        if "shared_memory_region" in parameters:
            raise InvalidArgument(f"input {name[:SHOWN]!r}: {NO_SHARED_MEMORY}")
        shape = tuple(protobuf.few(sizes, "an input's shape"))
        values = memoryview(protobuf.joined(contents)) if len(contents) > 1 else contents[0] if contents else None
        return Given(self._takes.input(name, datatype, shape), shape, values)  # type: ignore[arg-type]

    def _arrays(self, plan: Plan, raw: list[memoryview]) -> tuple[Array, ...]:
        """The inputs, each `[rows, *record]`.

        Raises:
            InvalidArgument: there are not as many tensors' bytes as inputs, or one does not fit its shape.
        """
        takes = self._takes
        arrays: dict[int, Array] = {}
        for position, (which, shape, contents) in enumerate(plan.given):
            name = takes.inputs[which].name
            if raw:
                if contents:
                    raise InvalidArgument(
                        "contents field must not be specified when using raw_input_contents for "
                        f"{name!r} for model {takes.model!r}"
                    )
                if position >= len(raw):
                    raise InvalidArgument(
                        f"unable to find data for input {name!r} for model {takes.model!r} in request: expected "
                        f"{len(plan.given)} raw_input_contents, found {len(raw)}"
                    )
                arrays[which] = takes.array(which, shape, raw[position], 0, len(raw[position]))
            else:
                array = typed(contents or memoryview(b""), takes.inputs[which], shape)
                arrays[which] = array[np.newaxis] if takes.whole else array
        if len(raw) > len(plan.given):
            raise InvalidArgument(
                f"unexpected additional input data for model {takes.model!r}: expected {len(plan.given)} "
                f"raw_input_contents, found {len(raw)}"
            )
        return tuple(arrays[which] for which in range(len(arrays)))


def _past_id(body: bytes) -> tuple[int, bytes]:
    """Where a request goes on behind its model's name, version and id, and the id; 0 where that is not plain to see."""
    try:
        at = 0
        for tag in (10, 18):
            if body[at] == tag and body[at + 1] < 128:
                at += 2 + body[at + 1]
        if body[at] != 26:
            return at, b""
        length = body[at + 1]
        identity = body[at + 2 : at + 2 + length]
        at += 2 + length
        return (at, identity) if length < 128 and at <= len(body) and identity.isascii() else (0, b"")
    except IndexError:
        return 0, b""


def _past_parameters(body: bytes, at: int) -> int:
    """Where the parameters end that begin at a place; the place where none does, or where that is not plain to see."""
    start = at
    try:
        while body[at] == _PARAMETER:
            if body[at + 1] > 127:
                return start
            at += 2 + body[at + 1]
    except IndexError:
        return start
    return at if at <= len(body) else start


def _parameters(body: bytes, start: int, end: int) -> dict[str, Any]:
    """Those between two places, in which nothing else is."""
    found: dict[str, Any] = {}
    for _, _, value in protobuf.fields(memoryview(body)[start:end], _REQUEST):
        add_parameter(found, value)  # type: ignore[arg-type]
    return found


def _call_of(plan: Plan, identity: bytes, body: bytes, at: int) -> Call | None:
    """The call of a request of which the tensor begins at a place; None where that is not as it should be."""
    assert plan.lone is not None
    before, size, shape, dtype = plan.lone
    start = at + len(before)
    if len(body) - start != size or not body.startswith(before, at):
        return None
    array: Array = np.ndarray(shape, dtype, body, start)
    return Call((array,), plan.rows, Form.INPUTS, (identity, plan.answer), plan.timeout_ns, plan.place)


def _add_output(outputs: Outputs, view: memoryview) -> None:
    """Take an `InferRequestedOutputTensor`."""
    name = ""
    parameters: dict[str, Any] = {}
    for number, kind, value in protobuf.fields(view, "an output asked for"):
        if kind == LENGTH and isinstance(value, memoryview):
            if number == 1:
                name = protobuf.text(value, "an output's name")
            elif number == 2:
                add_parameter(parameters, value)
    outputs.add(name, parameters, binary=True)
