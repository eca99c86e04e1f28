"""TensorFlow Serving's REST `:classify` and `:regress`.

    request   {"signature_name"?: "...", "context"?: FEATURES, "examples": [FEATURES, ...]}
    answer    {"results": [[["label", score], ...], ...]} | {"results": [value, ...]}

FEATURES is an object of values, or lists of values, by name: numbers, booleans (which are integers here), strings, or
`{"b64": base64}`. The context's features are every example's that has no such feature itself. (The original's page says
`result` in one place, and `results` in another; its code says the latter.)

Source of the rules and of the texts: `util/json_tensor.cc` of tensorflow/serving. There whole numbers among others make
a list of two kinds, and are refused; here they are numbers like them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson

from app.errors import InvalidArgument
from app.protocols import json_values, serving_values
from app.protocols.call import SHOWN, Call, Identity, is_utf8, shown
from app.protocols.example_proto import write_example
from app.protocols.examples import Examples, Feature, Scores, Values, check_shared_bytes, together
from app.protocols.json_answer import dump_tokens
from app.protocols.serving_json import check_signature_of
from app.tensors import Array, Signature

_INT64 = range(-(2**63), 2**63)


class ServingExamples:
    """Decodes for one signature; built once, when the model is loaded. Pure: any thread may use it.

    Args:
        verb: what is asked, for messages.
        why_not: why the signature has no answer to that; empty where it has.
    """

    def __init__(self, signature: Signature, verb: str, why_not: str) -> None:
        self._signature = signature
        self._examples = Examples(signature)
        self._why_not = refusal(signature, verb, self._examples.why_not or why_not)
        self._verb = verb

    def decode(self, body: bytes) -> Call:
        """Read a request.

        Raises:
            InvalidArgument: naming what was found, where, and what was expected; or this signature has no such answers.
            OtherSignature: `signature_name` is another's.
        """
        document = _parse(body)
        check_signature_of(document, self._signature)
        if self._why_not:
            raise InvalidArgument(self._why_not)
        context = document.get("context")
        shared = {} if context is None and "context" not in document else _features(context, "context")
        if "examples" not in document:
            raise InvalidArgument(
                f"JSON Value: {serving_values.show(document)} When method is {self._verb}, key 'examples' is expected "
                "and was not found"
            )
        rows = document["examples"]
        if type(rows) is not list:
            raise InvalidArgument(f"Expecting 'examples' value to be an list/array, found {serving_values.show(rows)}")
        if not rows:
            raise InvalidArgument("'examples' value is an empty array: expected at least one")
        if self._examples.serialized:
            check_shared_bytes(len(write_example(shared)), len(rows))
        else:
            self._examples.check_shared(shared, len(rows))
        examples = [together(_features(row, f"examples[{index}]"), shared) for index, row in enumerate(rows)]
        if self._examples.serialized:
            return self._examples.of_bytes([write_example(example) for example in examples])
        return self._examples.of_features(examples)


class ServingClassify(ServingExamples):
    """`:classify`."""

    def __init__(self, identity: Identity, signature: Signature) -> None:
        self._scores = Scores(identity, signature)
        super().__init__(signature, "classify", self._scores.why_not)

    def encode(self, call: Call, outputs: Sequence[Array]) -> bytes:  # noqa: ARG002  All answers are of one form.
        """Write the answer; `outputs` are in the signature's order, each `[rows, *record]`."""
        labels, scores = self._scores.of(outputs)
        texts: dict[bytes, bytes] = {}
        rows = []
        for names, row in zip(labels, scores, strict=True):
            pairs = []
            for name, score in zip(names, _numbers(row), strict=True):
                text = texts.get(name)
                if text is None:
                    text = texts[name] = orjson.dumps(name.decode())
                pairs.append(b"[%b,%b]" % (text, score))
            rows.append(b"[%b]" % b",".join(pairs))
        return b'{"results":[%b]}' % b",".join(rows)


class ServingRegress(ServingExamples):
    """`:regress`."""

    def __init__(self, _: Identity, signature: Signature) -> None:
        self._values = Values(signature)
        super().__init__(signature, "regress", self._values.why_not)

    def encode(self, call: Call, outputs: Sequence[Array]) -> bytes:  # noqa: ARG002  All answers are of one form.
        """Write the answer; `outputs` are in the signature's order, each `[rows, *record]`."""
        return b'{"results":%b}' % dump_tokens(self._values.of(outputs))


def refusal(signature: Signature, verb: str, why_not: str) -> str:
    """Why a signature cannot be asked such; empty where it can."""
    if not why_not:
        return ""
    return (
        f"signature {signature.name!r} cannot {verb}: {why_not}; Expected signature method_name to be "
        f"tensorflow/serving/{verb}. Was: tensorflow/serving/predict"
    )


def _numbers(row: Array) -> list[bytes]:
    """Each number's text."""
    return dump_tokens(row)[1:-1].split(b",") if len(row) else []


def _parse(body: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return serving_values.parse(body)
    return document if type(document) is dict else serving_values.parse(body)


def _features(value: Any, where: str) -> dict[str, Feature]:
    if type(value) is not dict:
        raise InvalidArgument(
            f"Example must be JSON object but got JSON {serving_values.kind_of(value)}: {where} is "
            f"{serving_values.show(value)}"
        )
    for name in value:
        if not is_utf8(name):
            raise InvalidArgument(f"{where}: the name of a feature has half of a surrogate pair: {shown(name)}")
    return {name: _feature(name, content, where) for name, content in value.items()}


def _feature(name: str, content: Any, where: str) -> Feature:
    values = content if type(content) is list else [content]
    kinds = set(map(type, values))
    if kinds == {float}:
        return _floats(name, values, where)
    if kinds <= {int, bool}:
        for value in values:
            if value not in _INT64:
                raise InvalidArgument(
                    f"Feature: {name[:SHOWN]} has uint64 element. Only int64 is supported: {where} has "
                    f"{serving_values.show(value)}"
                )
        return Feature("int64", [int(value) for value in values])
    if kinds == {int, float}:
        return _floats(name, values, where)
    if kinds <= {str, dict}:
        return Feature("bytes", [_bytes(name, value, where) for value in values])
    for value in values:
        if type(value) in (list, dict) or value is None:
            raise _unexpected(name, value, where)
    raise InvalidArgument(
        f"Unexpected element type in feature: {name[:SHOWN]} expecting type: {_KINDS[type(values[0])]}: {where} has "
        f"values of several kinds, {', '.join(sorted({serving_values.kind_of(value) for value in values}))}"
    )


_KINDS = {str: "bytes", float: "float", int: "int64", bool: "int64"}


def _unexpected(name: str, value: Any, where: str) -> InvalidArgument:
    return InvalidArgument(
        f"Feature: {name[:SHOWN]} has element with unexpected JSON type: {serving_values.kind_of(value)}: {where} has "
        f"{serving_values.show(value)}"
    )


def _floats(name: str, values: list[Any], where: str) -> Feature:
    try:
        return Feature("float", np.array(values, np.float64))
    except OverflowError:
        largest = max((value for value in values if type(value) is int), key=abs)
        raise InvalidArgument(
            f"Feature: {name[:SHOWN]}: Cannot convert JSON value: {serving_values.show(largest)} to float without loss "
            f"of precision, in {where}"
        ) from None


def _bytes(name: str, value: Any, where: str) -> bytes:
    if type(value) is str:
        try:
            return value.encode()
        except UnicodeEncodeError:
            raise InvalidArgument(
                f"Feature: {name[:SHOWN]}: {where} has half of a surrogate pair, which UTF-8 does not have: send bytes "
                'as {"b64": base64}'
            ) from None
    if not serving_values.is_base64(value):
        raise _unexpected(name, value, where)
    try:
        return json_values.base64_bytes(value["b64"])
    except ValueError:
        raise InvalidArgument(f"Unable to base64 decode: feature {name[:SHOWN]!r} of {where}") from None
