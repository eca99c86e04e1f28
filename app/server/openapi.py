"""The schema, with each model's real shapes and an example that works when it is sent as it stands."""

import json
from typing import Any

import numpy as np
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from app.protocols import npy
from app.repository.loader import Opened
from app.repository.manager import Manager, Target
from app.server import inference_schema, serving_schema
from app.server.paths import path_of
from app.tensors import FREE, STRING, Shape, Signature, TensorSpec

_ERRORS = {
    "400": "The body does not fit the model; the message says what was found, where, and what was expected",
    "404": "No model of that name",
    "413": "The body is too large",
    "415": "The Content-Type is neither JSON nor .npy",
    "503": "The model is loading or failed, or too many requests wait",
    "504": "The request waited longer than it may",
}


def build(app: FastAPI, manager: Manager) -> dict[str, Any]:
    """The OpenAPI document of what is loaded now; kept until the models change."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        default: dict[str, Any] = {}
        paths: dict[str, Any] = {}
        several = {entry.name for entry in manager.entries() if len(manager.versions(entry.name)) > 1}
        for target, loaded in manager.targets().items():
            if target.version is not None and target.model not in several:
                continue  # It is what the model's own name leads to.
            operation = _operation(target, loaded.opened)
            if target.model is None:
                default["/predict"] = {"post": operation}
            else:
                paths[path_of(target).decode()] = {"post": operation}
        others = {**serving_schema.paths(), **inference_schema.paths()}
        document["paths"] = {**default, **paths, **others, **document["paths"]}
        # In place of FastAPI's own schemas, which are of errors that this server does not give.
        document["components"] = {"schemas": {"Error": _object({"error": {"type": "string"}})}}
        for path, what in (("/models/{model}", "model"), ("/models/{model}/versions/{version}", "version")):
            document["paths"][path]["get"]["responses"]["404"] = _error(f"There is no such {what}")
        for operations in document["paths"].values():
            for operation in operations.values():
                operation["responses"].pop("422", None)
        app.openapi_schema = document
    return app.openapi_schema


def _operation(target: Target, opened: Opened) -> dict[str, Any]:
    signature = opened.signature.real() if opened.config.numbers == "real" else opened.signature
    words = [str(word) for word in target if word is not None]
    name = opened.source.name
    version = f" version {target.version}" if target.version is not None else f" labelled {target.label}"
    which = name if target.version is None and target.label is None else name + version
    content: dict[str, Any] = {"application/json": {"schema": request_schema(signature), "examples": _examples(opened)}}
    answer: dict[str, Any] = {"application/json": {"schema": answer_schema(signature)}}
    binary = {"schema": {"type": "string", "format": "binary"}}
    if npy_holds(signature.inputs):
        content[npy.MEDIA_TYPE] = binary
    if npy_holds(signature.outputs):
        answer[npy.MEDIA_TYPE] = binary
    return {
        "tags": ["predict"],
        "summary": f"Predict with {which}",
        "description": opened.config.description,
        "operationId": "_".join(["predict", *words]),
        "parameters": _parameters(opened),
        "requestBody": {"required": True, "content": content},
        "responses": {
            "200": {"description": "The model's answer", "content": answer},
            **{status: _error(text) for status, text in _ERRORS.items()},
        },
    }


def _parameters(opened: Opened) -> list[dict[str, Any]]:
    """The headers that mean something for this model."""
    found = []
    if len(opened.signatures) > 1:
        schema = {"type": "string", "enum": list(opened.signatures), "default": opened.signature.name}
        found.append(_header("Litepool-Signature", "Which of the model's signatures to run", schema))
    if any(offered.signature.scaled for offered in opened.signatures.values()):
        schema = {"type": "string", "enum": ["raw", "real"], "default": opened.config.numbers}
        text = "Quantized tensors as the integers that they hold, or as the real numbers that these stand for"
        found.append(_header("Litepool-Numbers", text, schema))
    if any(offered.contract.stateful for offered in opened.signatures.values()):
        name, flag = {"type": "string", "maxLength": 128}, {"type": "string", "enum": ["true", "false"]}
        found.append(_header("Litepool-Sequence-Id", "Name of the sequence whose state the request goes on from", name))
        found.append(_header("Litepool-Sequence-Start", "Begin the sequence, with a clean state", flag))
        found.append(_header("Litepool-Sequence-End", "End the sequence, and drop its state", flag))
    return found


def _header(name: str, description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, "description": description, "schema": schema}


def npy_holds(specs: tuple[TensorSpec, ...]) -> bool:
    """Whether an .npy file can hold these inputs or outputs."""
    return len(specs) == 1 and specs[0].dtype != STRING


def _error(description: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Error"}
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def request_schema(signature: Signature) -> dict[str, Any]:
    """The three forms of a request."""
    record = _record(signature, signature.inputs)
    return {
        "oneOf": [
            _object({"instance": record}),
            _object({"instances": {"type": "array", "items": record, "minItems": 1}}),
            _object({"inputs": _tensors(signature, signature.inputs)}),
        ]
    }


def answer_schema(signature: Signature) -> dict[str, Any]:
    """The three forms of an answer."""
    record = _record(signature, signature.outputs)
    return {
        "oneOf": [
            _object({"prediction": record}),
            _object({"predictions": {"type": "array", "items": record}}),
            _object({"outputs": _tensors(signature, signature.outputs)}),
        ]
    }


def _record(signature: Signature, specs: tuple[TensorSpec, ...]) -> dict[str, Any]:
    return _named(specs, [signature.record_shape(spec) for spec in specs])


def _tensors(signature: Signature, specs: tuple[TensorSpec, ...]) -> dict[str, Any]:
    return _named(specs, [signature.tensor_shape(spec) for spec in specs])


def _named(specs: tuple[TensorSpec, ...], shapes: list[Shape]) -> dict[str, Any]:
    schemas = {spec.name: _tensor(spec, shape) for spec, shape in zip(specs, shapes, strict=True)}
    return next(iter(schemas.values())) if len(specs) == 1 else _object(schemas)


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _tensor(spec: TensorSpec, shape: Shape) -> dict[str, Any]:
    schema = _value(spec)
    for size in reversed(shape):
        schema = {"type": "array", "items": schema}
        schema |= {"minItems": 1} if size == FREE else {"minItems": size, "maxItems": size}
    return schema


def _value(spec: TensorSpec) -> dict[str, Any]:
    """One value of a tensor."""
    match spec.dtype.kind:
        case "f":
            schema = _number(spec.dtype.itemsize)
        case "c":
            part = _number(spec.dtype.itemsize // 2)
            return {"type": "array", "items": part, "minItems": 2, "maxItems": 2, "description": "[real, imaginary]"}
        case "b":
            return {"type": "boolean"}
        case "O":
            text = {"type": "string", "description": "UTF-8"}
            return {"oneOf": [text, _object({"b64": {"type": "string", "format": "byte"}})]}
        case _:
            limits = np.iinfo(spec.dtype)
            schema = {"type": "integer", "minimum": int(limits.min), "maximum": int(limits.max)}
    if spec.scaling is not None:
        means = "a real number, kept as" if spec.dtype.kind == "f" else "raw: the real number is"
        schema["description"] = f"{means} {spec.scaling}"
    return schema


def _number(size: int) -> dict[str, Any]:
    return {"type": "number", "format": "double" if size == 8 else "float"}


def _examples(opened: Opened) -> dict[str, Any]:
    """The model's own samples; without any, one record that the model was seen to run on."""
    shown = [(index, sample) for index, sample in enumerate(opened.samples) if is_json(sample.request)]
    if shown:
        return {
            f"sample {index}": {"summary": sample.about or f"sample {index}", "value": sample.request}
            for index, sample in shown[:4]
        }
    record = opened.example_request()
    return {"a record": {"summary": "a record that the model runs on", "value": record}} if is_json(record) else {}


def is_json(request: dict[str, Any]) -> bool:
    """Whether JSON can hold it, which has no numbers that are not finite; requests may."""
    try:
        json.dumps(request, allow_nan=False)
    except ValueError:
        return False
    return True
