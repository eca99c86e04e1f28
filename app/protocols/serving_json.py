"""TensorFlow Serving's REST `:predict`: its two forms of a request, and of an answer.

    request   {"signature_name"?: "...", "instances": [ROW, ...]}    row format
              {"signature_name"?: "...", "inputs": TENSORS}          columnar format
    answer    {"predictions": [ROW, ...]} | {"outputs": TENSORS}

A ROW is the bare value, or an object `{name: value}`; all rows are of one kind, and objects where there are several
inputs. Rows are stacked: there are as many along the first dimension as the list has. TENSORS is the bare tensor of a
single input, or an object of all inputs by name. Other keys of a request, and text behind it, are not looked at. Floats
that are not finite are read and written as the tokens `NaN`, `Infinity` and `-Infinity`. Strings of an output whose
name ends in `_bytes` are written as `{"b64": base64}`, others so only where they are not UTF-8.

Well-formed requests take the roads of `/predict`.
"""

import base64
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson

from app.errors import InvalidArgument
from app.protocols import serving_values
from app.protocols.call import Call, Form, OtherSignature, shown
from app.protocols.json_answer import dump_array, dump_tokens
from app.protocols.predict_json import PredictJson
from app.tensors import STRING, Array, Signature, TensorSpec, check, show_shape

_GAP = rb"[ \t\n\r]*"
_SIGNATURE_FIRST = re.compile(rb'S\{S"signature_name"S:S"([^"\\\x00-\x1f]*)"S,'.replace(b"S", _GAP))
_SIGNATURE_LAST = re.compile(rb',S"signature_name"S:S"([^"\\\x00-\x1f]*)"S\}S\Z'.replace(b"S", _GAP))
_SIGNATURE = b'"signature_name"'
_LONGEST_HEAD = 64
_LONGEST_TAIL = 512

_ROWS = re.compile(rb'S\{S"instances"S:S(?=\[)'.replace(b"S", _GAP))

_FORMS = {Form.INSTANCES.value, Form.INPUTS.value}

_BYTES_SUFFIX = "_bytes"


class ServingPredict(PredictJson):
    """Decodes and encodes for one signature; built once, when the model is loaded. Pure: any thread may use it."""

    def __init__(self, signature: Signature) -> None:
        super().__init__(signature)
        names = [spec.name for spec in signature.inputs]
        self._names = names
        # Of an input with this name, an object in a row's place is the value here, and holds it for `/predict`.
        self._roads_agree = "b64" not in names
        # Where there is no batch dimension, the rows together are the one tensor that the model takes.
        self._wanted_rows = self._wanted[Form.INPUTS if self._bare_rows else Form.INSTANCES]
        self._no_rows = [spec for spec in signature.outputs if self._bare_rows and not spec.shape]
        self._written = [
            _as_base64 if spec.dtype == STRING and spec.name.endswith(_BYTES_SUFFIX) else _as_it_is
            for spec in signature.outputs
        ]
        self._dumps = [dump_tokens if spec.dtype.kind in "fc" else dump_array for spec in signature.outputs]
        self._in_bytes = _as_base64 in self._written

    def decode(self, body: bytes) -> Call:
        """Read a request.

        Raises:
            InvalidArgument: naming what was found, where, and what was expected.
            OtherSignature: `signature_name` is another's.
        """
        named = cut_signature(body)
        if named is None:
            call = self._read(body)
        elif named[0] == self._signature.name or body.count(_SIGNATURE) == 1:
            check_signature(named[0], self._signature)
            call = self._read(named[1])
        else:
            # Of a key that is there more than once the last counts, which need not be the one that was cut off.
            call = None
        if call is None or call.form is Form.INSTANCE:
            return self._decode_lean(body) or self._decode_slow(body)
        return call

    def encode(self, call: Call, outputs: Sequence[Array]) -> bytes:
        """Write the answer to `call`; `outputs` are in the signature's order, each `[rows, *record]`.

        Raises:
            InvalidArgument: rows were sent, and outputs without a batch dimension have not as many.
        """
        if self._bare_rows:
            outputs = [output[0, ...] for output in outputs]
        if self._in_bytes:
            outputs = [written(output) for written, output in zip(self._written, outputs, strict=True)]
        if call.form is Form.INPUTS:
            return b'{"outputs":%b}' % self._join(outputs)
        if len(outputs) == 1:
            return b'{"predictions":%b}' % self._join(outputs)
        size = len(outputs[0])
        for spec, output in zip(self._signature.outputs, outputs, strict=True):
            if len(output) != size:
                raise InvalidArgument(
                    f"Tensor name: {spec.name} has inconsistent batch size: {len(output)} expecting: {size}; "
                    "send 'inputs' in place of 'instances'"
                )
        return b'{"predictions":[%b]}' % b",".join(self._join(row) for row in zip(*outputs, strict=True))

    def _join(self, values: Sequence[Array]) -> bytes:
        """One value as it is, several by their outputs' names."""
        if len(values) == 1:
            return self._dumps[0](values[0])
        return b"{%b}" % b",".join(
            [
                b"%b:%b" % (key, dumped(value))
                for key, dumped, value in zip(self._output_keys, self._dumps, values, strict=True)
            ]
        )

    def _read(self, body: bytes) -> Call | None:
        if not self._roads_agree:
            return None
        if self._bare_rows and (rows := _ROWS.match(body)):
            if self._no_rows:
                return None
            call = super()._read(b'{"inputs":' + body[rows.end() :])
            return call if call is None else call._replace(form=Form.INSTANCES)
        return super()._read(body)

    # What follows runs only for a body that the fast roads declined.

    def _decode_lean(self, body: bytes) -> Call | None:
        """Read by the fast roads what a body has beside keys that are not looked at; None where the slow one must look.

        Some clients send such a key, `parameters`, with each request. Writing the rest anew is several times as fast as
        looking at each number.
        """
        try:
            document = orjson.loads(body)
            if type(document) is not dict or len(document) < 2 or len(forms := document.keys() & _FORMS) != 1:
                return None
            (form,) = forms
            lean = orjson.dumps({form: document[form]})
        except (orjson.JSONDecodeError, orjson.JSONEncodeError):
            return None
        check_signature_of(document, self._signature)
        return self._read(lean)

    def _decode_slow(self, body: bytes) -> Call:
        document = serving_values.parse(body)
        check_signature_of(document, self._signature)
        if "instances" in document and "inputs" in document:
            raise InvalidArgument(
                f"JSON Value: {serving_values.show(document)} Not formatted correctly expecting only one of 'inputs' "
                "or 'instances' keys to exist"
            )
        if "instances" in document:
            arrays = self._slow_instances(document["instances"], self._names)
            form = Form.INSTANCES
        elif "inputs" in document:
            arrays = self._slow_inputs(document["inputs"])
            form = Form.INPUTS
        else:
            raise InvalidArgument(
                f"Missing 'inputs' or 'instances' key: expected one of the two, found {serving_values.show(document)}"
            )
        if self._bare_rows:
            return Call(tuple(array[np.newaxis] for array in arrays), 1, form)
        sizes = {len(array) for array in arrays}
        if len(sizes) > 1:
            found = ", ".join(f"{name!r}: {len(array)}" for name, array in zip(self._names, arrays, strict=True))
            raise InvalidArgument(f"inputs: expected as many records in each input, found {found}")
        return Call(tuple(arrays), sizes.pop(), form)

    def _slow_inputs(self, value: Any) -> list[Array]:
        specs = self._signature.inputs
        if serving_values.is_named(value):
            for name in self._names:
                if name not in value:
                    raise InvalidArgument(
                        f"Missing named input: {name} in 'inputs' object, which is {serving_values.show(value)}"
                    )
            columns = [(value[name], f"inputs.{name}") for name in self._names]
        elif len(specs) > 1:
            raise InvalidArgument(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
                f"tensorinfo_map: the inputs are {', '.join(map(repr, self._names))}"
            )
        else:
            columns = [(value, "inputs")]
        arrays = []
        for (column, place), spec, wanted in zip(columns, specs, self._wanted[Form.INPUTS], strict=True):
            array = serving_values.tensor(column, spec, place)
            check(array, spec, wanted, place)
            arrays.append(array)
        return arrays

    def _slow_piece(self, text: bytes, key: str, size: int) -> list[Any] | None:
        return serving_values.parse_list(text, f"after {key}[{size - 1}]" if size else f"among the first {key}")

    def _slow_items(self, items: list[Any], form: Form, first: int) -> Array:
        if form is Form.INSTANCES:
            (array,) = self._slow_instances(items, self._names, first)
            return array
        assert self._single is not None
        array = serving_values.tensor(items, self._single, form.value)
        check(array, self._single, (len(items), *self._wanted[form][0][1:]), form.value)
        return array

    def _slow_instances(self, rows: Any, names: list[str], first: int = 0) -> list[Array]:
        """Stack rows, of which the first is the one with the index `first`."""
        if type(rows) is not list:
            raise InvalidArgument(f"Expecting 'instances' value to be an list/array, found {serving_values.show(rows)}")
        if not rows:
            raise InvalidArgument("No values in 'instances' array: expected at least one")
        named = serving_values.is_named(rows[0])
        if not named and len(names) > 1:
            raise InvalidArgument(
                "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
                f"tensorinfo_map: the inputs are {', '.join(map(repr, names))}"
            )
        if self._no_rows:
            raise InvalidArgument(
                f"Tensor name: {self._no_rows[0].name} has no shape information: the model's answer has no rows; "
                "send 'inputs' in place of 'instances'"
            )
        columns: list[list[Array]] = [[] for _ in names]
        for index, row in enumerate(rows, first):
            if serving_values.is_named(row) != named:
                wanted, found = ("object", "list") if named else ("value/list", "object")
                raise InvalidArgument(
                    f"Expecting {wanted} but got {found} at item {index} of input list: "
                    f"instances[{index}] is {serving_values.show(row)}"
                )
            if named:
                self._check_keys(row, index)
            for spec, column in zip(self._signature.inputs, columns, strict=True):
                try:
                    column.append(self._item(row[spec.name] if named else row, spec, index, named, column))
                except InvalidArgument as error:
                    key = f" key: {spec.name}" if named else ""
                    raise _at_element(index, key, error.message) from None
        arrays = [np.stack(column) for column in columns]
        for array, spec, wanted_shape in zip(arrays, self._signature.inputs, self._wanted_rows, strict=True):
            check(array, spec, wanted_shape, self._whole("instances", spec))
        return arrays

    def _whole(self, where: str, spec: TensorSpec) -> str:
        """What a message calls all rows together."""
        if not self._bare_rows:
            return where
        return (
            f"{where}, whose rows make one tensor since the model has no batch dimension (its shape is "
            f"{show_shape(spec.shape)}; send 'inputs' to give it as it is)"
        )

    def _check_keys(self, row: dict[str, Any], index: int) -> None:
        for key in row:
            if key not in self._names:
                message = f"JSON object: does not have named input: {shown(key)}"
                raise _at_element(index, f" key: {shown(key)}", f"{message}; the inputs are {self._listed()}")
        if len(row) != len(self._names):
            raise InvalidArgument(
                f"Failed to process element: {index} of 'instances' list. JSON object: {serving_values.show(row)} "
                f"keys must be equal to: {self._listed()}"
            )

    def _listed(self) -> str:
        return ",".join(sorted(self._names))

    def _item(self, value: Any, spec: TensorSpec, index: int, named: bool, column: list[Array]) -> Array:
        """One row's value of an input; it is like those before."""
        place = f"instances[{index}].{spec.name}" if named else f"instances[{index}]"
        array = serving_values.tensor(value, spec, place)
        if column:
            like = column[0]
            if array.size != like.size:
                raise InvalidArgument(
                    f"Expecting tensor size: {like.size} but got: {array.size} ({place}, for input {spec.name!r})"
                )
            if array.shape != like.shape:
                raise InvalidArgument(
                    f"Expecting shape {show_shape(like.shape)} but got: {show_shape(array.shape)} "
                    f"({place}, for input {spec.name!r})"
                )
        return array


def _at_element(index: int, key: str, message: str) -> InvalidArgument:
    return InvalidArgument(
        f"Failed to process element: {index}{key} of 'instances' list. Error: INVALID_ARGUMENT: {message}"
    )


def cut_signature(body: bytes) -> tuple[str, bytes] | None:
    """The `signature_name` that a body begins or ends with, and the body without it.

    The rest, if it is more than `{}`, is JSON if and only if the whole is; then the name is one of its outermost keys.
    """
    if body.find(_SIGNATURE, 0, _LONGEST_HEAD) >= 0 and (found := _SIGNATURE_FIRST.match(body)):
        rest = b"{" + body[found.end() :]
    elif (place := body.find(_SIGNATURE, -_LONGEST_TAIL)) >= 0 and (
        found := _SIGNATURE_LAST.search(body, max(0, place - _LONGEST_HEAD))
    ):
        rest = body[: found.start()] + b"}"
    else:
        return None
    try:
        return found[1].decode(), rest
    except UnicodeDecodeError:
        return None


def check_signature(name: str, signature: Signature) -> None:
    """Refuse a request that names another signature than the one it was brought to.

    Raises:
        OtherSignature
    """
    if name and name != signature.name:
        raise OtherSignature(name)


def check_signature_of(document: dict[str, Any], signature: Signature) -> None:
    """Do so for a document that may name one.

    Raises:
        OtherSignature: it does.
        InvalidArgument: the name is no string.
    """
    name = document.get("signature_name", "")
    if type(name) is not str:
        raise InvalidArgument(
            f"JSON Value: {serving_values.show(document)} not formatted correctly. 'signature_name' key must be a "
            f"string value, found {serving_values.show(name)}"
        )
    check_signature(name, signature)


def _as_it_is(output: Array) -> Array:
    return output


def _as_base64(output: Array) -> Array:
    objects = np.empty(output.size, object)
    objects[:] = [{"b64": base64.b64encode(value).decode()} for value in output.reshape(-1)]
    return objects.reshape(output.shape)
