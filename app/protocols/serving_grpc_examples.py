"""TensorFlow Serving's gRPC `Classify` and `Regress`: their requests and their answers as bytes of their messages.

Source: classification.proto, regression.proto and input.proto of tensorflow_serving/apis.
"""

import struct
from collections.abc import Iterator, Sequence

from app.errors import InvalidArgument
from app.protocols import protobuf
from app.protocols.call import Call, Identity
from app.protocols.example_proto import read_example
from app.protocols.examples import Examples, Scores, Values, check_shared_bytes, together
from app.protocols.protobuf import LENGTH
from app.protocols.serving_examples import refusal
from app.protocols.serving_grpc import Spec, check_signature, read_spec, write_spec
from app.tensors import Array, Signature

_SCORE = protobuf.write_float(2, 0.0)[:1]
_VALUE = protobuf.write_float(1, 0.0)[:1]
_FLOATS = struct.Struct("4s")


class GrpcExamples:
    """Decodes for one signature; built once, when the model is loaded. Pure: any thread may use it.

    Args:
        verb: what is asked, for messages.
        why_not: why the signature has no answer to that; empty where it has.
    """

    def __init__(self, identity: Identity, signature: Signature, verb: str, why_not: str) -> None:
        self._signature = signature
        self._examples = Examples(signature)
        self._why_not = refusal(signature, verb, self._examples.why_not or why_not)
        self._spec = protobuf.write_bytes(2, write_spec(identity, signature))

    def decode(self, body: bytes | memoryview) -> Call:
        """Read a request.

        Raises:
            InvalidArgument: naming what was found, where, and what was expected; or this signature has no such answers.
            OtherSignature: it names another's signature.
        """
        spec, context, examples = _read_request(memoryview(body))
        check_signature(spec, self._signature)
        if self._why_not:
            raise InvalidArgument(self._why_not)
        if not examples:
            raise InvalidArgument("Input is empty: expected at least one example")
        if self._examples.serialized:
            check_shared_bytes(len(context), len(examples))
            return self._examples.of_bytes([context + example for example in examples])
        shared = read_example(context, "the context")
        self._examples.check_shared(shared, len(examples))
        return self._examples.of_features(
            [together(read_example(data, f"example {index}"), shared) for index, data in enumerate(examples)]
        )


class GrpcClassify(GrpcExamples):
    """`Classify`."""

    def __init__(self, identity: Identity, signature: Signature) -> None:
        self._scores = Scores(identity, signature)
        super().__init__(identity, signature, "classify", self._scores.why_not)

    def encode(self, call: Call, outputs: Sequence[Array]) -> bytes:  # noqa: ARG002  All answers are of one form.
        """Write the answer; `outputs` are in the signature's order, each `[rows, *record]`."""
        labels, scores = self._scores.of(outputs)
        rows = [
            b"".join(
                [
                    protobuf.write_bytes(1, protobuf.write_bytes(1, label) + _SCORE + score)
                    for label, score in zip(names, _bytes_of(row), strict=True)
                ]
            )
            for names, row in zip(labels, scores, strict=True)
        ]
        result = b"".join(protobuf.write_bytes(1, row) for row in rows)
        return protobuf.write_bytes(1, result) + self._spec


class GrpcRegress(GrpcExamples):
    """`Regress`."""

    def __init__(self, identity: Identity, signature: Signature) -> None:
        self._values = Values(signature)
        super().__init__(identity, signature, "regress", self._values.why_not)

    def encode(self, call: Call, outputs: Sequence[Array]) -> bytes:  # noqa: ARG002  All answers are of one form.
        """Write the answer; `outputs` are in the signature's order, each `[rows, *record]`."""
        values = _bytes_of(self._values.of(outputs))
        result = b"".join([protobuf.write_bytes(1, _VALUE + value) for value in values])
        return protobuf.write_bytes(1, result) + self._spec


def _bytes_of(numbers: Array) -> Iterator[bytes]:
    """Each number's four bytes, little-endian."""
    return (part for (part,) in _FLOATS.iter_unpack(numbers.astype("<f4").tobytes()))


def _read_request(view: memoryview) -> tuple[Spec, bytes, list[bytes]]:
    """The model, the context, and the examples, whose features replace those of the context that have their names."""
    spec = Spec()
    examples: list[bytes] = []
    context = b""
    for number, wire, value in protobuf.fields(view, "the request"):
        if number == 1 and wire == LENGTH:
            spec = read_spec(bytes(value))
        elif number == 2 and wire == LENGTH:
            for kind, form, listed in protobuf.fields(value, "the input"):  # type: ignore[arg-type]
                if kind not in (1, 2) or form != LENGTH:
                    continue
                # Of lists that exclude each other the last one counts.
                examples, context = [], b""
                for inner, part, example in protobuf.fields(listed, "the input"):  # type: ignore[arg-type]
                    if inner == 1 and part == LENGTH:
                        examples.append(bytes(example))
                    elif inner == 2 and kind == 2 and part == LENGTH:
                        context = bytes(example)
    return spec, context, examples
