"""The simple JSON format of `/predict`.

    request   {"instance": RECORD} | {"instances": [RECORD, ...]} | {"inputs": TENSORS}
    answer    {"prediction": RECORD} | {"predictions": [RECORD, ...]} | {"outputs": TENSORS}

A RECORD is the bare value where the model has one input (or output), else an object `{name: value}`; for one input the
object is taken too. TENSORS likewise, with the batch dimension given by the caller. Numbers that are not finite are
read as `NaN`, `Infinity` and `-Infinity` and written as `null`, so that an answer is always JSON.

A complex number is a pair `[real, imaginary]`. A string is a JSON string, as UTF-8, or `{"b64": base64}` for any bytes,
as TensorFlow Serving has it. Where one input is called `b64`, an object in a record's place holds that input by name.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import orjson

from app.errors import InvalidArgument
from app.protocols import json_pieces, json_values
from app.protocols.call import Call, Form
from app.protocols.json_answer import dump, dump_array
from app.protocols.json_buffer import BufferReader
from app.protocols.json_convert import convert, has_words
from app.tensors import FREE, STRING, Array, Batching, Shape, Signature

_KEYS = {form.value: form for form in Form}


class PredictJson:
    """Decodes and encodes for one signature; built once, when the model is loaded. Pure: any thread may use it."""

    def __init__(self, signature: Signature) -> None:
        self._signature = signature
        self._single = signature.inputs[0] if len(signature.inputs) == 1 else None
        self._output_names = [spec.name for spec in signature.outputs]
        self._wanted = {
            Form.INSTANCE: [signature.record_shape(spec) for spec in signature.inputs],
            Form.INSTANCES: [(FREE, *signature.record_shape(spec)) for spec in signature.inputs],
            Form.INPUTS: [signature.tensor_shape(spec) for spec in signature.inputs],
        }
        self._reader = None
        if self._single is not None:
            self._reader = BufferReader(self._single, {form: shapes[0] for form, shapes in self._wanted.items()})
        kinds = {spec.dtype.kind for spec in signature.inputs}
        self._only_strings = kinds == {"O"}
        # NumPy makes of numbers with a string among them as many strings of the length of the longest.
        self._converts = self._only_strings or "O" not in kinds
        self._words_mislead = kinds not in ({"b"}, {"O"})
        self._takes_bytes = self._single is not None and self._single.dtype == STRING and self._single.name != "b64"
        self._bare_rows = signature.batching is Batching.NONE
        pairs = 1 if kinds == {"c"} else 0
        self._ranks = {form.value: len(shapes[0]) + pairs for form, shapes in self._wanted.items()}
        # Between records stands what could stand in a name or in a string as well.
        self._cuts_objects = not any("}" in spec.name or spec.dtype == STRING for spec in signature.inputs)
        self._output_keys = [orjson.dumps(name) for name in self._output_names]

    def decode(self, body: bytes) -> Call:
        """Read a request.

        Raises:
            InvalidArgument: naming what was found, where, and what was expected.
        """
        call = self._read(body)
        return call if call is not None else self._decode_slow(body)

    def encode(self, call: Call, outputs: Sequence[Array]) -> bytes:
        """Write the answer to `call`; `outputs` are in the signature's order, each `[rows, *record]`."""
        form = call.form
        if form is Form.INSTANCE:
            if len(outputs) == 1:
                return b'{"prediction":%b}' % dump_array(outputs[0][0])
            return b'{"prediction":%b}' % self._dump([output[0] for output in outputs])
        if form is Form.INPUTS:
            return b'{"outputs":%b}' % self._dump([output[0] for output in outputs] if self._bare_rows else outputs)
        if len(outputs) == 1:
            return b'{"predictions":%b}' % self._dump(outputs)
        records = [dict(zip(self._output_names, row, strict=True)) for row in zip(*outputs, strict=True)]
        return b'{"predictions":%b}' % dump(records)

    def _dump(self, values: Sequence[Array]) -> bytes:
        """One value as it is, several by their outputs' names."""
        if len(values) == 1:
            return dump_array(values[0])
        members = (b"%b:%b" % (key, dump_array(value)) for key, value in zip(self._output_keys, values, strict=True))
        return b"{%b}" % b",".join(members)

    def _read(self, body: bytes) -> Call | None:
        """Decode by the fast roads, or None wherever the slow one must look."""
        if len(body) >= json_pieces.LARGE:
            call = self._decode_pieces(body)
            if call is not None:
                return call
        if self._reader is not None and (read := self._reader.read(body)) is not None:
            form, array = read
            if form is Form.INSTANCE or (form is Form.INPUTS and self._bare_rows):
                return Call((array[np.newaxis],), 1, form, None, 0, None)  # Defaults take longer.
            return Call((array,), len(array), form, None, 0, None)  # Defaults take longer.
        return self._decode_fast(body)

    def _decode_fast(self, body: bytes) -> Call | None:
        """Decode a well-formed body with NumPy's own conversion, or None wherever that could be wrong."""
        if not self._converts or (self._words_mislead and has_words(body)):
            return None
        try:
            document = orjson.loads(body)
        except orjson.JSONDecodeError:
            return None
        if type(document) is not dict or len(document) != 1:
            return None
        key, value = next(iter(document.items()))
        form = _KEYS.get(key)
        if form is None:
            return None
        columns = self._columns(value, form)
        if columns is None or not (self._only_strings or body.count(b'"') == self._quotes(value, form)):
            return None
        arrays = []
        for column, spec, wanted in zip(columns, self._signature.inputs, self._wanted[form], strict=True):
            array = convert(column, spec, wanted)
            if array is None:
                return None
            arrays.append(array)
        return self._call(arrays, form)

    def _columns(self, value: Any, form: Form) -> list[Any] | None:
        """One nested list for each input, in the signature's order; None when the slow road must look."""
        keyed = value[0] if form is Form.INSTANCES and type(value) is list and value else value
        if self._single is not None and type(keyed) is not dict:
            return [value]
        names = [spec.name for spec in self._signature.inputs]
        if form is not Form.INSTANCES:
            if type(value) is not dict or value.keys() != set(names):
                return None
            return [value[name] for name in names]
        wanted = set(names)
        if type(value) is not list or not all(type(row) is dict and row.keys() == wanted for row in value):
            return None
        return [[row[name] for row in value] for name in names]

    def _quotes(self, value: Any, form: Form) -> int:
        """The quotation marks in a body of these records without strings.

        NumPy gives every element the room of the longest string: a body of 250 kB could ask for 15 GB.
        """
        first = value[0] if form is Form.INSTANCES and type(value) is list and value else value
        if type(first) is not dict:
            return 2
        return 2 + 2 * len(self._signature.inputs) * (len(value) if form is Form.INSTANCES else 1)

    def _call(self, arrays: list[Array], form: Form) -> Call | None:
        if form is Form.INSTANCE or (form is Form.INPUTS and self._bare_rows):
            return Call(tuple(array[np.newaxis] for array in arrays), 1, form)
        rows = arrays[0].shape[0]
        if any(array.shape[0] != rows for array in arrays):
            return None
        return Call(tuple(arrays), rows, form)

    def _decode_pieces(self, body: bytes) -> Call | None:
        """Decode a large list piece by piece; None for a body of another outline."""
        if self._reader is not None and self._reader.fixed and (found := json_pieces.pieces(body, self._ranks)):
            key, texts = found
            form = Form(key)
            if form is Form.INSTANCE or not self._bare_rows:
                return self._decode_lists(texts, form, self._reader)
        if self._cuts_objects and (objects := json_pieces.object_pieces(body)):
            return self._decode_objects(objects)
        return None

    def _decode_lists(self, texts: Iterator[bytes], form: Form, reader: BufferReader) -> Call | None:
        assert self._single is not None
        key, wanted = form.value, self._wanted[form][0]
        arrays: list[Array] = []
        size = 0
        for text in texts:
            array = reader.read_list(text, form)
            if array is None:
                array = self._read_list(text, (FREE, *wanted[1:]))
            if array is None:
                value = self._slow_piece(text, key, size)
                if value is None:
                    return None
                array = self._slow_items(value, form, size)
            arrays.append(array)
            size += len(array)
        if wanted[0] not in (FREE, size):
            raise json_values.wrong_size(self._single, wanted, key, size)
        whole = np.concatenate(arrays)
        return Call((whole[np.newaxis],), 1, form) if form is Form.INSTANCE else Call((whole,), size, form)

    def _read_list(self, text: bytes, wanted: Shape) -> Array | None:
        """As `_decode_fast`, for a list without a string in it and the only input."""
        assert self._single is not None
        if self._words_mislead and has_words(text):
            return None
        try:
            return convert(orjson.loads(text), self._single, wanted)
        except orjson.JSONDecodeError:
            return None

    def _decode_objects(self, texts: Iterator[bytes]) -> Call | None:
        names = [spec.name for spec in self._signature.inputs]
        columns: list[list[Array]] = [[] for _ in names]
        rows = 0
        for text in texts:
            part = self._decode_fast(b'{"instances":%b}' % text)
            if part is not None:
                arrays = list(part.inputs)
            else:
                value = self._slow_piece(text, Form.INSTANCES.value, rows)
                if value is None:
                    return None
                arrays = self._slow_instances(value, names, rows)
            for column, array in zip(columns, arrays, strict=True):
                column.append(array)
            rows += len(arrays[0])
        if any(array.shape[1:] != column[0].shape[1:] for column in columns for array in column):
            # Free dimensions that differ; the slow road through the whole will say where.
            return None
        return Call(tuple(np.concatenate(column) for column in columns), rows, Form.INSTANCES)

    # What follows runs only for a body that the fast road declined.

    def _slow_piece(self, text: bytes, key: str, size: int) -> list[Any] | None:
        """The items of a piece behind `size` others; None for a comma with nothing behind it, which the slow road
        through the whole has words for."""
        value = json_values.parse(text, f"after {key}[{size - 1}]" if size else "")
        return value if type(value) is list and value else None

    def _slow_items(self, items: list[Any], form: Form, first: int) -> Array:
        """Those of the only input, in a list of records or of a single one's parts; the first has the index `first`."""
        assert self._single is not None
        wanted = self._wanted[form][0]
        return json_values.tensor(items, self._single, (len(items), *wanted[1:]), form.value, first)

    def _decode_slow(self, body: bytes) -> Call:
        document = json_values.parse(body)
        form, value = self._only_key(document)
        names = [spec.name for spec in self._signature.inputs]
        if form is Form.INSTANCES:
            if type(value) is not list:
                raise InvalidArgument(f"instances: expected a list of records, found {json_values.describe(value)}")
            if not value:
                raise InvalidArgument("instances: expected at least one record, found an empty list")
            arrays = self._slow_instances(value, names)
        else:
            columns, places = self._slow_record(value, names, form.value)
            arrays = [
                json_values.tensor(column, spec, wanted, place)
                for column, spec, wanted, place in zip(
                    columns, self._signature.inputs, self._wanted[form], places, strict=True
                )
            ]
        call = self._call(arrays, form)
        if call is None:
            sizes = ", ".join(f"{name!r}: {array.shape[0]}" for name, array in zip(names, arrays, strict=True))
            raise InvalidArgument(f"inputs: expected as many records in each input, found {sizes}")
        return call

    def _only_key(self, document: Any) -> tuple[Form, Any]:
        expected = "expected an object with exactly one of the keys instance, instances, inputs"
        if type(document) is not dict:
            raise InvalidArgument(f"the body: {expected}, found {json_values.describe(document)}")
        if len(document) != 1:
            raise InvalidArgument(f"the body: {expected}, found {json_values.describe(document)}")
        key, value = next(iter(document.items()))
        if key not in _KEYS:
            raise InvalidArgument(f"the body: {expected}, found {json_values.describe(document)}")
        return _KEYS[key], value

    def _slow_instances(self, rows: list[Any], names: list[str], first: int = 0) -> list[Array]:
        columns: list[list[Array]] = [[] for _ in names]
        wanted = [list(shape[1:]) for shape in self._wanted[Form.INSTANCES]]
        for index, row in enumerate(rows, first):
            values, places = self._slow_record(row, names, f"instances[{index}]")
            for i, (value, spec, place) in enumerate(zip(values, self._signature.inputs, places, strict=True)):
                array = json_values.tensor(value, spec, tuple(wanted[i]), place)
                # The first record decides the free dimensions of all.
                wanted[i] = list(array.shape)
                columns[i].append(array)
        return [np.stack(column) for column in columns]

    def _slow_record(self, value: Any, names: list[str], where: str) -> tuple[list[Any], list[str]]:
        """Split a record, or TENSORS, into one value for each input, with what each is called in messages."""
        if self._single is not None and (type(value) is not dict or (self._takes_bytes and value.keys() == {"b64"})):
            return [value], [where]
        expected = (
            f"expected an object with {'the key' if len(names) == 1 else 'the keys'} {', '.join(map(repr, names))}"
        )
        if type(value) is not dict:
            raise InvalidArgument(f"{where}: {expected}, found {json_values.describe(value)}")
        missing = [name for name in names if name not in value]
        unknown = [name for name in value if name not in names]
        if missing or unknown:
            faults = [f"no input {name!r}" for name in missing] + [
                f"an unknown input {name[:40]!r}" for name in unknown
            ]
            raise InvalidArgument(f"{where}: {expected}, found {' and '.join(faults)}")
        return [value[name] for name in names], [f"{where}.{name}" for name in names]
