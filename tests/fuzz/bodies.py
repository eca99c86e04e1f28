"""Well-formed bodies of every kind, of each wire format and for any signature, from which mutations start."""

import base64
import io
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from app.protocols.call import Wire
from app.protocols.infer_tensors import DATATYPES, blob
from app.server.rpc.messages import new
from app.tensors import STRING, Array, Batching, Signature, TensorSpec
from tests.fuzz.models import arrays


class Body(NamedTuple):
    """A request's body.

    Args:
        length: of the JSON that an Open Inference body begins with, as the header has it; empty for none.
    """

    data: bytes
    length: str = ""


Named = Sequence[tuple[TensorSpec, Array]]


def listed(array: Array) -> Any:
    """As nested lists, with pairs for complex numbers."""
    if array.dtype.kind == "c":
        return array.view(array.real.dtype).reshape(*array.shape, 2).tolist()
    if array.dtype == STRING:
        array = np.array([_string(value) for value in array.reshape(-1)] + [None], object)[:-1].reshape(array.shape)
    return array.tolist()


def _string(value: bytes) -> Any:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(value).decode()}


def _rows(signature: Signature) -> Iterator[tuple[int, Named]]:
    """Tensors of one record and of three, as callers send them: without a batch dimension where there is none."""
    for rows in (1, 3):
        found = arrays(signature, rows, np.random.default_rng(rows))
        if signature.batching is Batching.NONE:
            found = [array[0] for array in found]
        yield rows, list(zip(signature.inputs, found, strict=True))


def _dumps(document: Any, spaced: bool = False) -> bytes:
    return json.dumps(document, separators=(", ", ": ") if spaced else (",", ":"), ensure_ascii=spaced).encode()


def predict(signature: Signature) -> Iterator[Body]:
    batched = signature.batching is not Batching.NONE
    for rows, named in _rows(signature):
        records = [{spec.name: listed(array)[row] for spec, array in named} for row in range(rows)] if batched else []
        whole = {spec.name: listed(array) for spec, array in named}
        forms: list[list[Any]] = [records]
        if len(named) == 1:
            forms.append([row[named[0][0].name] for row in records])
        for form in filter(None, forms):
            yield Body(_dumps({"instances": form}))
            yield Body(_dumps({"instance": form[0]}, spaced=True))
        yield Body(_dumps({"inputs": whole}))
        if len(named) == 1:
            yield Body(_dumps({"inputs": next(iter(whole.values()))}))
        if not batched:
            yield Body(_dumps({"instance": whole}))


def npy(signature: Signature) -> Iterator[Body]:
    if len(signature.inputs) > 1 or signature.inputs[0].dtype == STRING:
        return
    for _, ((_, array),) in _rows(signature):
        for form in (array, np.asfortranarray(array), array.astype(array.dtype.newbyteorder(">")), array[0]):
            stream = io.BytesIO()
            np.save(stream, form)
            yield Body(stream.getvalue())


def serving_predict(signature: Signature) -> Iterator[Body]:
    for body in predict(signature):
        document = json.loads(body.data)
        if "instance" in document:
            continue
        yield body
        yield Body(_dumps({"signature_name": "serving_default", **document}))
        yield Body(_dumps({**document, "more": [None], "signature_name": "serving_default"}, spaced=True) + b" 1")


def examples_rest(signature: Signature) -> Iterator[Body]:
    for rows, named in _rows(signature):
        examples = [{spec.name: listed(array[row, ...]) for spec, array in named} for row in range(rows)]
        flat = {"x": 1.5, "y": [1, 2], "z": {"b64": "YQ=="}, "on": [True, False], "none": []}
        yield Body(_dumps({"examples": examples}))
        yield Body(_dumps({"signature_name": "serving_default", "context": flat, "examples": examples}))
        yield Body(_dumps({"context": flat, "examples": [{**flat, **example} for example in examples]}, spaced=True))


def infer(signature: Signature) -> Iterator[Body]:
    if any(spec.dtype not in DATATYPES for spec in signature.inputs):
        return
    for rows, named in _rows(signature):
        heads = [
            {"name": spec.name, "shape": list(array.shape), "datatype": DATATYPES[spec.dtype]} for spec, array in named
        ]
        blobs = [bytes(blob(array)) for _, array in named]
        sized: list[dict[str, Any]] = [
            {**head, "parameters": {"binary_data_size": len(data)}} for head, data in zip(heads, blobs, strict=True)
        ]
        try:
            flat = [
                {**head, "data": _texts(array).reshape(-1).tolist()}
                for head, (_, array) in zip(heads, named, strict=True)
            ]
            nested = [{**head, "data": _texts(array).tolist()} for head, (_, array) in zip(heads, named, strict=True)]
        except UnicodeDecodeError:
            flat = nested = []
        outputs = [{"name": spec.name, "parameters": {"binary_data": rows == 1}} for spec in signature.outputs]
        more = {
            "id": "a 1",
            "parameters": {"binary_data_output": True, "sequence_id": 7, "sequence_start": True, "timeout": 10**9},
        }
        for inputs in filter(None, (flat, nested)):
            yield Body(_dumps({"inputs": inputs}))
            yield Body(_dumps({**more, "inputs": inputs, "outputs": outputs}, spaced=True))
        classes = [{"name": spec.name, "parameters": {"classification": 2}} for spec in signature.outputs]
        for document in (
            {"inputs": sized},
            {**more, "inputs": sized, "outputs": outputs},
            {"inputs": sized, "outputs": classes},
        ):
            head = _dumps(document)
            yield Body(head + b"".join(blobs), str(len(head)))
        if flat and len(named) > 1:
            head = _dumps({"id": "mixed", "inputs": [flat[0], *sized[1:]]})
            yield Body(head + b"".join(blobs[1:]), str(len(head)))
        if len(named) == 1 and rows == 1:
            yield Body(blobs[0], "0")


def _texts(array: Array) -> Array:
    if array.dtype != STRING:
        return array
    return np.array([*(value.decode() for value in array.reshape(-1)), None], object)[:-1].reshape(array.shape)


def grpc_infer(signature: Signature) -> Iterator[Body]:
    if any(spec.dtype not in DATATYPES for spec in signature.inputs):
        return
    for rows, named in _rows(signature):
        for typed in (False, True):
            request = new("inference.ModelInferRequest")
            request.model_name = "m"
            for spec, array in named:
                tensor = request.inputs.add(name=spec.name, datatype=DATATYPES[spec.dtype], shape=array.shape)
                if not typed:
                    request.raw_input_contents.append(bytes(blob(array)))
                elif DATATYPES[spec.dtype] in _CONTENTS:
                    getattr(tensor.contents, _CONTENTS[DATATYPES[spec.dtype]]).extend(array.reshape(-1).tolist())
            yield Body(request.SerializeToString())
            request.id = "a 1"
            request.parameters["timeout"].int64_param = 10**9
            request.parameters["sequence_id"].string_param = "s"
            request.parameters["sequence_end"].bool_param = True
            for spec in signature.outputs:
                output = request.outputs.add(name=spec.name)
                if rows == 1 and spec.dtype.kind in "fiu":
                    output.parameters["classification"].int64_param = 2
            yield Body(request.SerializeToString())


_CONTENTS = {
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "INT64": "int64_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BOOL": "bool_contents",
    "BYTES": "bytes_contents",
}

TENSORFLOW = {
    "float32": 1,
    "float64": 2,
    "int32": 3,
    "uint8": 4,
    "int16": 5,
    "int8": 6,
    "object": 7,
    "complex64": 8,
    "int64": 9,
    "bool": 10,
    "uint16": 17,
    "complex128": 18,
    "float16": 19,
    "uint32": 22,
    "uint64": 23,
}
"""Numbers of dtypes in types.proto."""

FIELDS = {
    "float32": "float_val",
    "float64": "double_val",
    "object": "string_val",
    "int64": "int64_val",
    **dict.fromkeys(("int32", "int16", "int8", "uint8", "uint16"), "int_val"),
    "bool": "bool_val",
    "uint32": "uint32_val",
    "uint64": "uint64_val",
    "complex64": "scomplex_val",
    "complex128": "dcomplex_val",
    "float16": "half_val",
}
"""Where tensor.proto has a dtype's values."""


def put_tensor(tensor: Any, array: Array, typed: bool, most: int | None = None) -> None:
    """Fill a `TensorProto`, in its repeated field or in `tensor_content`.

    Args:
        most: values of the repeated field.
    """
    name = array.dtype.name
    tensor.dtype = TENSORFLOW[name]
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)
    if not typed and array.dtype != STRING:
        tensor.tensor_content = array.tobytes()
        return
    values = array.reshape(-1)[:most]
    if array.dtype.kind == "c":
        values = values.view(values.real.dtype)
    elif name == "float16":
        values = values.view(np.uint16)
    getattr(tensor, FIELDS[name]).extend(values.tolist())


def grpc_predict(signature: Signature) -> Iterator[Body]:
    for _, named in _rows(signature):
        for typed in (False, True):
            request = new("tensorflow.serving.PredictRequest")
            request.model_spec.name = "m"
            for spec, array in named:
                put_tensor(request.inputs[spec.name], array, typed)
            yield Body(request.SerializeToString())
            request.model_spec.signature_name = "serving_default"
            request.model_spec.version.value = 3
            request.output_filter.append(signature.outputs[-1].name)
            yield Body(request.SerializeToString())
        request = new("tensorflow.serving.PredictRequest")
        for spec, array in named:
            # One value stands for all.
            put_tensor(request.inputs[spec.name], array, typed=True, most=1)
        yield Body(request.SerializeToString())


def _examples_grpc(kind: str) -> Callable[[Signature], Iterator[Body]]:
    def bodies(signature: Signature) -> Iterator[Body]:
        for rows, named in _rows(signature):
            for within in ("example_list", "example_list_with_context"):
                request = new(f"tensorflow.serving.{kind}")
                request.model_spec.name = "m"
                given = getattr(request.input, within)
                for row in range(rows):
                    features = given.examples.add().features.feature
                    for spec, array in named:
                        part = np.asarray(array[row] if array.ndim and len(array) > row else array).reshape(-1)
                        match spec.dtype.kind:
                            case "O":
                                features[spec.name].bytes_list.value.extend(part.tolist())
                            case "f":
                                features[spec.name].float_list.value.extend(part.tolist())
                            case "b" | "i":
                                features[spec.name].int64_list.value.extend(part.astype(np.int64).tolist())
                if within.endswith("context"):
                    given.context.features.feature["q"].float_list.value.append(1.0)
                yield Body(request.SerializeToString())

    return bodies


BODIES: dict[Wire, Callable[[Signature], Iterator[Body]]] = {
    Wire.PREDICT: predict,
    Wire.SERVING_PREDICT: serving_predict,
    Wire.SERVING_CLASSIFY: examples_rest,
    Wire.SERVING_REGRESS: examples_rest,
    Wire.INFER: infer,
    Wire.GRPC_PREDICT: grpc_predict,
    Wire.GRPC_CLASSIFY: _examples_grpc("ClassificationRequest"),
    Wire.GRPC_REGRESS: _examples_grpc("RegressionRequest"),
    Wire.GRPC_INFER: grpc_infer,
}
