"""Open Inference v2 over HTTP, with Triton's binary tensors, classification and parameters.

    request   {"id"?, "parameters"?, "inputs": [{"name", "shape", "datatype", "parameters"?, "data"?}], "outputs"?}
    answer    {"id"?, "model_name", "model_version", "outputs": [{"name", "datatype", "shape", "data" | "parameters"}]}

The body may begin with that JSON, of as many bytes as a header says, and go on with the tensors that are not in it. The
JSON of one client hardly ever changes: what it came to is kept by its very bytes, and then a request is a look-up and a
view of its tensors.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import orjson

from app.errors import InvalidArgument
from app.protocols import json_values
from app.protocols.call import SHOWN, Answer, Call, Codec, Form, Identity
from app.protocols.infer_json import NumberReader, Values, cut, exact, outline, quick
from app.protocols.infer_parameters import ByParameters
from app.protocols.infer_plan import Plan, Plans
from app.protocols.infer_raw import InferRaw
from app.protocols.infer_request import keep
from app.tensors import Array, Shape, Signature, TensorSpec

_LONGEST_KEPT = 4096
"""Bytes of the longest head that is kept: of each kind 2 MB at the most."""

_ID = re.compile(rb'\{"id": ?"([ !#-\[\]-~]{0,256})"(?=,)')
"""A head that begins with an id; it is the one thing that is another in each request. perf_analyzer's is empty."""

_LENGTH = re.compile(r"[0-9]{1,10}")
_MOST_HEAD = (1 << 31) - 1

_HINT = "; where tensors lie behind the JSON, Inference-Header-Content-Length gives the bytes of the JSON alone"

Read = Callable[[Any, TensorSpec, Shape, str], Array | None]
"""Of the values of `data`, the input, its shape and their place in messages, the array; None where that must be left to
another."""


class InferRest:
    """Decodes and encodes for one signature. Pure: any thread may use it.

    Raises:
        InvalidArgument: Open Inference has no type for one of the signature's tensors.
    """

    def __init__(self, identity: Identity, signature: Signature) -> None:
        self._plans = Plans(identity, signature)
        self._takes = self._plans.takes
        self._readers = [NumberReader(spec) for spec in signature.inputs]
        self._cuts = all(reader.reads for reader in self._readers)
        self._heads: dict[bytes, Plan] = {}
        """By heads without an id, and"""
        self._rests: dict[bytes, Plan] = {}
        """by what comes behind an id;"""
        self._by_parameters = ByParameters()
        """by what is around the parameters of a request that has some which are another each time;"""
        self._outlines: dict[tuple[bytes, ...], Plan] = {}
        """by what is around the values of heads that hold them, without an id, and"""
        self._outline_rests: dict[tuple[bytes, ...], Plan] = {}
        """by what comes behind one."""

    def reading(self, head_length: str) -> Codec:
        """What decodes bodies that begin with so many bytes of JSON; with none, those of a lone tensor.

        Raises:
            InvalidArgument: it is no length.
        """
        if not _LENGTH.fullmatch(head_length) or int(head_length) > _MOST_HEAD:
            raise InvalidArgument(f"Unable to parse Inference-Header-Content-Length, got: {head_length[:SHOWN]!r}")
        length = int(head_length)
        return _Headed(self, length) if length else InferRaw(self._plans, self)

    def decode(self, body: bytes) -> Call:
        """Read a request that is JSON alone.

        Raises:
            InvalidArgument: naming what was found, where, and what was expected.
        """
        if self._cuts and (found := cut(body)) is not None:
            call = self._decode_cut(*found)
            if call is not None:
                return call
        return self.decode_whole(body, body, len(body))

    def encode(self, call: Call, outputs: Sequence[Array]) -> bytes | Answer:
        """Write the answer to `call`; `outputs` are in the signature's order, each `[rows, *record]`.

        Raises:
            InvalidArgument: an output has no JSON form.
        """
        identity, answer = call.asks
        return answer.write(identity, outputs)  # type: ignore[no-any-return]

    def decode_head(self, body: bytes, length: int) -> Call:
        """Read a request that begins with `length` bytes of JSON.

        Raises:
            InvalidArgument: naming what was found, where, and what was expected.
        """
        if length > len(body):
            raise InvalidArgument(
                f"inference header size should be in range (0, {len(body)}), got: {length}, by "
                "Inference-Header-Content-Length"
            )
        head = body[:length]
        plan = self._heads.get(head)
        if plan is not None:
            return self._call(plan, b"", body, length)
        found = _ID.match(head)
        kept, rest, identity = self._heads, head, b""
        if found is not None:
            kept, rest, identity = self._rests, head[found.end() :], found[1]
            plan = kept.get(rest)
        if plan is None and length <= _LONGEST_KEPT:
            plan = self._by_parameters.find(rest)
            if plan is not None:
                keep(kept, rest, plan)
        if plan is not None:
            return self._call(plan, identity, body, length)
        return self.decode_whole(head, body, length)

    def decode_whole(self, head: bytes, body: bytes, length: int) -> Call:
        """As `decode_head`, by reading all of it.

        Args:
            head: the first `length` bytes of the body.
        """
        document = _loads(head)
        exactly = document is None
        if exactly:
            document = _parse(head)
        identity, plan = self._plans.read(document)
        if all(given.size >= 0 for given in plan.given):
            self._learn(head, plan)
            return self._call(plan, identity, body, length)
        arrays = None if exactly else self._arrays(plan, body, length, document, quick)
        if arrays is None:
            # Again, since there integers of any size are what they are.
            arrays = self._arrays(plan, body, length, _parse(head), exact)
        assert arrays is not None
        return _call_of(plan, identity, arrays)

    def _call(self, plan: Plan, identity: bytes, body: bytes, length: int) -> Call:
        """The call of a request whose tensors all lie behind its JSON."""
        if plan.lone is not None:
            shape, dtype, size = plan.lone
            if len(body) - length == size:
                array: Array = np.ndarray(shape, dtype, body, length)
                return _call_of(plan, identity, (array,))
        arrays = self._arrays(plan, body, length, None, exact)
        assert arrays is not None
        return _call_of(plan, identity, arrays)

    def _arrays(self, plan: Plan, body: bytes, offset: int, document: Any, read: Read) -> tuple[Array, ...] | None:
        """The inputs, each `[rows, *record]`; None where `read` gives none.

        Args:
            offset: where in the body the JSON ends.
            document: the JSON, where there are values in it.

        Raises:
            InvalidArgument: a tensor does not fit its shape, or the body has too few bytes or too many.
        """
        takes = self._takes
        arrays: dict[int, Array] = {}
        for position, (index, shape, size) in enumerate(plan.given):
            spec = takes.inputs[index]
            if size < 0:
                array = read(document["inputs"][position]["data"], spec, shape, f"inputs[{position}].data")
                if array is None:
                    return None
                arrays[index] = array[np.newaxis] if takes.whole else array
                continue
            if offset + size > len(body):
                raise InvalidArgument(
                    f"unexpected size for input {spec.name!r}, expecting {offset + size - len(body)} additional bytes "
                    f"for model {takes.model!r}"
                )
            arrays[index] = takes.array(index, shape, body, offset, size)
            offset += size
        if offset != len(body):
            raise InvalidArgument(
                f"unexpected additional input data for model {takes.model!r}: {len(body) - offset} bytes behind the "
                "last input"
            )
        return tuple(arrays[index] for index in range(len(arrays)))

    def _decode_cut(self, left: tuple[bytes, ...], values: list[Values]) -> Call | None:
        """Read JSON whose lists of values have been cut out; None where all of it must be looked at."""
        found = _ID.match(left[0])
        kept, identity = self._outlines, b""
        if found is not None:
            left = left[0][found.end() :], *left[1:]
            kept, identity = self._outline_rests, found[1]
        plan = kept.get(left)
        if plan is None:
            document = outline(_without_id(left[0], found is not None), left[1:])
            if document is None or "id" in document:
                return None
            try:
                plan = self._plans.read(document)[1]
            except InvalidArgument:
                return None
            if sum(map(len, left)) <= _LONGEST_KEPT:
                keep(kept, left, plan)
        arrays: dict[int, Array] = {}
        for (index, shape, _), one in zip(plan.given, values, strict=True):
            array = self._readers[index].read(one, shape)
            if array is None:
                return None
            arrays[index] = array[np.newaxis] if self._takes.whole else array
        return _call_of(plan, identity, tuple(arrays[index] for index in range(len(arrays))))

    def _learn(self, head: bytes, plan: Plan) -> None:
        """Remember what a head came to behind which all tensors lie."""
        if len(head) > _LONGEST_KEPT:
            return
        found = _ID.match(head)
        rest = head[found.end() :] if found is not None else head
        document = _loads(_without_id(rest, found is not None))
        if document is not None and "id" not in document:
            keep(self._heads if found is None else self._rests, rest, plan)
            if plan.timeout_ns or plan.place is not None:
                self._by_parameters.learn(rest, plan)


class _Headed:
    """Decodes bodies that begin with `length` bytes of JSON, at least one."""

    def __init__(self, codec: InferRest, length: int) -> None:
        self._codec = codec
        self._length = length

    def decode(self, body: bytes) -> Call:
        return self._codec.decode_head(body, self._length)

    def encode(self, call: Call, outputs: Sequence[Array]) -> bytes | Answer:
        return self._codec.encode(call, outputs)


def _call_of(plan: Plan, identity: bytes, arrays: tuple[Array, ...]) -> Call:
    return Call(arrays, plan.rows, Form.INPUTS, (identity, plan.answer), plan.timeout_ns, plan.place)


def _loads(text: bytes) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None


def _parse(text: bytes) -> Any:
    try:
        return json_values.parse(text)
    except InvalidArgument as error:
        hint = _HINT if b'"binary_data_size"' in text else ""
        raise InvalidArgument(f"failed to parse the request JSON buffer: {error.message}{hint}") from None


def _without_id(rest: bytes, cut_off: bool) -> bytes:
    """A head without its id, given what comes behind that."""
    return b"{" + rest[1:] if cut_off else rest
