"""`ModelInferResponse` of Open Inference v2 over gRPC."""

from collections.abc import Sequence

from app.protocols import protobuf
from app.protocols.call import OCTETS, Answer, Identity
from app.protocols.classification import best
from app.protocols.infer_request import Asked, keep
from app.protocols.infer_tensors import DATATYPES, Takes, blob
from app.tensors import STRING, Array, Shape, TensorSpec

_NAME, _VERSION, _ID, _, _OUTPUTS, _RAW = range(1, 7)
"""The fields' numbers."""


class GrpcAnswer:
    """Writes the answers to requests that ask for the same; any thread may use it.

    All tensors are raw, whatever the request's are: so Triton answers.

    Args:
        asked: in the order in which they are answered.
    """

    def __init__(self, takes: Takes, identity: Identity, asked: tuple[Asked, ...]) -> None:
        self._whole = takes.whole
        self._asked = [(one, takes.outputs[one.which]) for one in asked]
        self._labels = identity.labels
        self._begin = protobuf.write_bytes(_NAME, identity.model.encode()) + protobuf.write_bytes(
            _VERSION, str(identity.version).encode()
        )
        self._texts: dict[tuple[str, Shape], bytes] = {}
        self._kept: dict[Shape, bytes] = {}
        """Of a lone output's shape all that stands before its bytes, but for what begins each answer."""

    def write(self, identity: bytes, outputs: Sequence[Array]) -> Answer:
        """Write one.

        Args:
            identity: the request's id; empty where it has none.
            outputs: in the signature's order, each `[rows, *record]`.
        """
        begin = self._begin + protobuf.write_bytes(_ID, identity) if identity else self._begin
        asked, spec = self._asked[0]
        if len(self._asked) == 1 and not asked.classes and spec.dtype != STRING:
            array = outputs[asked.which][0, ...] if self._whole else outputs[asked.which]
            text = self._kept.get(array.shape)
            if text is None:
                text = self._described(spec, "", array.shape) + protobuf.write_head(_RAW, array.nbytes)
                keep(self._kept, array.shape, text)
            return Answer((begin + text, blob(array)), OCTETS)
        texts, pieces = [begin], list[bytes | memoryview]()
        for asked, spec in self._asked:
            array = outputs[asked.which]
            datatype = ""
            if asked.classes:
                array = best(array, asked.classes, self._labels.get(spec.name, ()))
                datatype = "BYTES"
            if self._whole:
                array = array[0, ...]
            texts.append(self._described(spec, datatype, array.shape))
            data = blob(array)
            pieces += (protobuf.write_head(_RAW, len(data)), data)
        return Answer((b"".join(texts), *pieces), OCTETS)

    def _described(self, spec: TensorSpec, datatype: str, shape: Shape) -> bytes:
        """What is said of an output."""
        text = self._texts.get((spec.name, shape))
        if text is None:
            kind = datatype or DATATYPES[spec.dtype]
            members = (
                protobuf.write_bytes(1, spec.name.encode()),
                protobuf.write_bytes(2, kind.encode()),
                protobuf.write_ints(3, shape),
            )
            text = keep(self._texts, (spec.name, shape), protobuf.write_bytes(_OUTPUTS, b"".join(members)))
        return text
