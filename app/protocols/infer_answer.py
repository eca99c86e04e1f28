"""Answers of Open Inference over HTTP: JSON, and behind it the bytes of those outputs that were asked for so."""

from collections.abc import Sequence

import orjson

from app.errors import InvalidArgument
from app.protocols.call import OCTETS, Answer, Identity
from app.protocols.classification import best
from app.protocols.infer_request import Asked, keep
from app.protocols.infer_tensors import DATATYPES, Takes, blob
from app.protocols.json_answer import dump_tokens
from app.tensors import STRING, Array, Shape, TensorSpec

HEADER = b"inference-header-content-length"


class InferAnswer:
    """Writes the answers to requests that ask for the same; any thread may use it.

    Args:
        asked: in the order in which they are answered.
    """

    def __init__(self, takes: Takes, identity: Identity, asked: tuple[Asked, ...]) -> None:
        self._whole = takes.whole
        self._asked = [(one, takes.outputs[one.which]) for one in asked]
        self._labels = identity.labels
        named = b'"model_name":%b,"model_version":"%d"' % (orjson.dumps(identity.model), identity.version)
        self._begin = named + b',"outputs":['
        lone = asked[0]
        numbers = takes.outputs[lone.which].dtype != STRING
        # Most requests ask for one output, and its bytes.
        self._lone = lone.which if len(asked) == 1 and lone.binary and not lone.classes and numbers else None
        self._kept: dict[Shape, tuple[bytes, tuple[tuple[bytes, bytes], ...]]] = {}
        """Of a lone output's shape the JSON, and the headers that go with it."""
        self._texts: dict[tuple[str, Shape], bytes] = {}

    def write(self, identity: bytes, outputs: Sequence[Array]) -> bytes | Answer:
        """Write one.

        Args:
            identity: the request's id as JSON has it between quotes; empty where it has none.
            outputs: in the signature's order, each `[rows, *record]`.

        Raises:
            InvalidArgument: an output has no JSON form.
        """
        if self._lone is None:
            return self._write(identity, outputs)
        array = outputs[self._lone]
        if self._whole:
            array = array[0, ...]
        kept = self._kept.get(array.shape)
        if kept is None:
            if not array.size:
                return self._write(identity, outputs)
            text = b"{%b%b]}" % (self._begin, self._described(self._asked[0][1], "", array.shape) + _size(array.nbytes))
            kept = text, ((HEADER, b"%d" % len(text)),)
            keep(self._kept, array.shape, kept)
        text, headers = kept
        if identity:
            text = b'{"id":"%b",%b' % (identity, text[1:])
            headers = ((HEADER, b"%d" % len(text)),)
        return Answer((text, blob(array)), OCTETS, headers)

    def _write(self, identity: bytes, outputs: Sequence[Array]) -> bytes | Answer:
        texts = []
        blobs: list[bytes | memoryview] = []
        for asked, spec in self._asked:
            array = outputs[asked.which]
            datatype = ""
            if asked.classes:
                array = best(array, asked.classes, self._labels.get(spec.name, ()))
                datatype = "BYTES"
            if self._whole:
                array = array[0, ...]
            text = self._described(spec, datatype, array.shape)
            if asked.binary:
                data = blob(array)
                if len(data):
                    blobs.append(data)
                texts.append(text + _size(len(data)))
            else:
                texts.append(b'%b"data":%b}' % (text, _values(array, spec)))
        named = b'"id":"%b",' % identity if identity else b""
        whole = b"{%b%b%b]}" % (named, self._begin, b",".join(texts))
        if not blobs:
            return whole
        return Answer((whole, *blobs), OCTETS, ((HEADER, b"%d" % len(whole)),))

    def _described(self, spec: TensorSpec, datatype: str, shape: Shape) -> bytes:
        """What is said of an output, up to where it lies."""
        text = self._texts.get((spec.name, shape))
        if text is None:
            kind = datatype or DATATYPES[spec.dtype]
            sizes = ",".join(map(str, shape))
            name = orjson.dumps(spec.name)
            text = b'{"name":%b,"datatype":"%b","shape":[%b],' % (name, kind.encode(), sizes.encode())
            keep(self._texts, (spec.name, shape), text)
        return text


def _size(count: int) -> bytes:
    return b'"parameters":{"binary_data_size":%d}}' % count


def _values(array: Array, spec: TensorSpec) -> bytes:
    """A flat list."""
    flat = array.reshape(-1)
    if array.dtype != STRING:
        return dump_tokens(flat)
    try:
        return orjson.dumps([value.decode() for value in flat.tolist()])
    except UnicodeDecodeError as error:
        raise InvalidArgument(
            f"output {spec.name!r} holds {error.object[:40]!r}, which is no UTF-8 and so no string of JSON: ask for it "
            "with 'binary_data'"
        ) from None
