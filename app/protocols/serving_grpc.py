"""TensorFlow Serving's gRPC `Predict`: its request and its answer as bytes of their messages.

Source: predict.proto and model.proto of tensorflow_serving/apis; the rules and the texts are those of
`servables/tensorflow/predict_util.cc`.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from app.errors import InvalidArgument
from app.protocols import protobuf, tensor_proto
from app.protocols.call import SHOWN, Answer, Call, Form, Identity, OtherSignature
from app.protocols.protobuf import LENGTH, VARINT
from app.tensors import Array, Batching, Shape, Signature

MEDIA_TYPE = "application/grpc"

_LARGE = 1 << 16
"""Bytes of an answer above which its tensors are not copied together."""


class Spec(NamedTuple):
    """What a `ModelSpec` asks for.

    Args:
        version: None for the newest.
        signature: empty for the default one.
    """

    model: str = ""
    version: int | None = None
    label: str | None = None
    signature: str = ""


class PredictMessage(NamedTuple):
    """A `PredictRequest` taken apart; each input is a `TensorProto`'s bytes."""

    spec: Spec
    inputs: dict[str, memoryview]
    output_filter: tuple[str, ...]


def read_predict(data: bytes | memoryview) -> PredictMessage:
    """Take a `PredictRequest` apart.

    Raises:
        InvalidArgument: it is damaged.
    """
    spec = Spec()
    inputs: dict[str, memoryview] = {}
    wanted: list[str] = []
    for number, wire, value in protobuf.fields(memoryview(data), "the PredictRequest"):
        if wire != LENGTH:
            continue
        if number == 1:
            spec = read_spec(bytes(value))
        elif number == 2:
            key, tensor = protobuf.entry(value, "an input of the PredictRequest")  # type: ignore[arg-type]
            if isinstance(tensor, int):
                raise InvalidArgument("an input of the PredictRequest is no TensorProto: found a number")
            inputs[protobuf.text(key, "the name of an input")] = tensor
        elif number == 3:
            wanted.append(protobuf.text(value, "output_filter"))
    return PredictMessage(spec, inputs, tuple(wanted))


@lru_cache(1024)
def _read_spec(data: bytes) -> Spec:
    model = signature = ""
    version = label = None
    for number, wire, value in protobuf.fields(memoryview(data), "the ModelSpec"):
        if wire != LENGTH:
            continue
        if number == 1:
            model = protobuf.text(value, "the name of the ModelSpec")
        elif number == 2:
            # A wrapped number that is 0 is an empty message. Of two that exclude each other the last one counts.
            version, label = 0, None
            for part, kind, found in protobuf.fields(value, "the version of the ModelSpec"):  # type: ignore[arg-type]
                if part == 1 and kind == VARINT:
                    version = protobuf.signed(found)  # type: ignore[arg-type]
        elif number == 3:
            signature = protobuf.text(value, "the signature_name of the ModelSpec")
        elif number == 4:
            version, label = None, protobuf.text(value, "the version_label of the ModelSpec")
    return Spec(model, version, label, signature)


_LONGEST_KEPT = 1024


def read_spec(data: bytes) -> Spec:
    """A `ModelSpec`; clients send the same one again and again.

    Raises:
        InvalidArgument: it is damaged.
    """
    return _read_spec(data) if len(data) <= _LONGEST_KEPT else _read_spec.__wrapped__(data)


def write_spec(identity: Identity, signature: Signature) -> bytes:
    """The `ModelSpec` of what has answered."""
    return b"".join(
        (
            protobuf.write_bytes(1, identity.model.encode()),
            protobuf.write_bytes(2, protobuf.write_int(1, identity.version) if identity.version else b""),
            protobuf.write_bytes(3, signature.name.encode()),
        )
    )


def check_signature(spec: Spec, signature: Signature) -> None:
    """Refuse a request that names another signature than the one it was brought to.

    Raises:
        OtherSignature
    """
    if spec.signature and spec.signature != signature.name:
        raise OtherSignature(spec.signature)


class Known(NamedTuple):
    """What a request with one input came to, whose values are its last bytes.

    Args:
        size: bytes of the values.
        asks: as in `Call`.
    """

    size: int
    shape: Shape
    dtype: np.dtype[Any]
    asks: list[int] | None


_MOST_KNOWN = 256
_MOST_LENGTHS = 4
"""Of what stands before the values: so many are kept, and so many lengths of theirs tried."""


class GrpcPredict:
    """Decodes and encodes for one signature; built once, when the model is loaded. Pure: any thread may use it.

    What stands before the values of a client's only tensor hardly ever changes. What it came to is kept by its very
    bytes.
    """

    def __init__(self, identity: Identity, signature: Signature) -> None:
        self._signature = signature
        self._names = {spec.name for spec in signature.inputs}
        self._output_names = [spec.name for spec in signature.outputs]
        self._wanted = [signature.tensor_shape(spec) for spec in signature.inputs]
        self._bare = signature.batching is Batching.NONE
        self._writers = [tensor_proto.Writer(spec, 1) for spec in signature.outputs]
        self._spec = protobuf.write_bytes(2, write_spec(identity, signature))
        self._keeps = len(signature.inputs) == 1 and signature.inputs[0].dtype.kind in "fiu"
        self._heads: dict[bytes, Known] = {}
        self._lengths: tuple[int, ...] = ()
        """Those of heads that are kept, the latest first."""

    def decode(self, body: bytes | memoryview | PredictMessage) -> Call:
        """Read a request; what `read_predict` has made of it is taken as well.

        Raises:
            InvalidArgument: naming what was found, where, and what was expected.
            OtherSignature: it names another's signature.
        """
        if type(body) is bytes:
            for length in self._lengths:
                known = self._heads.get(body[:length])
                if known is not None and len(body) - length == known.size:
                    array: Array = np.ndarray(known.shape, known.dtype, body, length)
                    return Call((array,), known.shape[0], Form.INPUTS, known.asks)
        message = body if isinstance(body, PredictMessage) else read_predict(body)
        check_signature(message.spec, self._signature)
        if message.inputs.keys() != self._names:
            raise self._other_inputs(message.inputs)
        asks = self._chosen(message.output_filter) if message.output_filter else None
        arrays = [
            tensor_proto.read(message.inputs[spec.name], spec, wanted)
            for spec, wanted in zip(self._signature.inputs, self._wanted, strict=True)
        ]
        if self._bare:
            arrays = [array[np.newaxis] for array in arrays]
        if type(body) is bytes and self._keeps:
            self._learn(body, arrays[0], asks)
        rows = len(arrays[0])
        if any(len(array) != rows for array in arrays):
            found = ", ".join(
                f"{spec.name!r}: {len(array)}" for spec, array in zip(self._signature.inputs, arrays, strict=True)
            )
            raise InvalidArgument(f"inputs: expected as many records in each input, found {found}")
        return Call(tuple(arrays), rows, Form.INPUTS, asks)

    def encode(self, call: Call, outputs: Sequence[Array]) -> bytes | Answer:
        """Write the answer to `call`; `outputs` are in the signature's order, each `[rows, *record]`."""
        pieces: list[bytes | memoryview] = []
        for index in range(len(outputs)) if call.asks is None else call.asks:
            output = outputs[index]
            pieces += self._writers[index].pieces(output[0, ...] if self._bare else output)
        pieces.append(self._spec)
        if sum(map(len, pieces)) < _LARGE:
            return b"".join(pieces)
        return Answer(tuple(pieces), MEDIA_TYPE)

    def _learn(self, body: bytes, array: Array, asks: list[int] | None) -> None:
        """Remember what a head came to, if the values are what the request ends in, and are used where they lie."""
        start = array.ctypes.data - np.frombuffer(body, np.uint8).ctypes.data
        in_place = start + array.nbytes == len(body) and array.flags.c_contiguous and array.dtype.isnative
        if in_place and 0 < start <= _LONGEST_KEPT:
            if len(self._heads) >= _MOST_KNOWN:
                self._heads = {}
            self._heads[body[:start]] = Known(array.nbytes, array.shape, array.dtype, asks)
            self._lengths = (start, *[length for length in self._lengths if length != start])[:_MOST_LENGTHS]

    def _chosen(self, wanted: tuple[str, ...]) -> list[int]:
        """The places of the outputs that `output_filter` names."""
        places = []
        for name in wanted:
            if name not in self._output_names:
                expected = ",".join(sorted(self._output_names))
                raise InvalidArgument(
                    f"output tensor alias not found in signature: {name[:SHOWN]} Outputs expected to be in the set "
                    f"{{{expected}}}."
                )
            place = self._output_names.index(name)
            if place in places:
                raise InvalidArgument(f"duplicate output tensor alias: {name[:SHOWN]}")
            places.append(place)
        return places

    def _other_inputs(self, found: dict[str, memoryview]) -> InvalidArgument:
        def listed(names: set[str]) -> str:
            shown = [name[:SHOWN] for name in sorted(names)]
            return "{" + ",".join(shown[:20] + (["..."] if len(shown) > 20 else [])) + "}"

        have = set(found)
        return InvalidArgument(
            f"input size does not match signature: {len(have)}!={len(self._names)} len({listed(have)}) != "
            f"len({listed(self._names)}). Sent extra: {listed(have - self._names)}. Missing but required: "
            f"{listed(self._names - have)}."
        )
