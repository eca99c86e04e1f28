"""The schema, with each model's real shapes and an example that works when it is sent as it stands."""

from typing import Any

import numpy as np
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from app.protocols import npy
from app.repository.loader import Opened
from app.repository.manager import Manager
from app.tensors import FREE, Shape, Signature, TensorSpec

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
        for entry in manager.entries():
            if entry.loaded is None:
                continue
            operation = _operation(entry.name, entry.loaded.opened)
            if entry.name == manager.default_name():
                default["/predict"] = {"post": {**operation, "operationId": "predict"}}
            paths[f"/predict/{entry.name}"] = {"post": operation}
        document["paths"] = {**default, **paths, **document["paths"]}
        # In place of FastAPI's own schemas, which are of errors that this server does not give.
        document["components"] = {"schemas": {"Error": _object({"error": {"type": "string"}})}}
        document["paths"]["/models/{model}"]["get"]["responses"] = {
            "200": {"description": "The model"},
            "404": _error(_ERRORS["404"]),
        }
        app.openapi_schema = document
    return app.openapi_schema


def _operation(name: str, opened: Opened) -> dict[str, Any]:
    signature = opened.signature
    content: dict[str, Any] = {"application/json": {"schema": request_schema(signature), "examples": _examples(opened)}}
    answer: dict[str, Any] = {"application/json": {"schema": answer_schema(signature)}}
    binary = {"schema": {"type": "string", "format": "binary"}}
    if len(signature.inputs) == 1:
        content[npy.MEDIA_TYPE] = binary
    if len(signature.outputs) == 1:
        answer[npy.MEDIA_TYPE] = binary
    return {
        "tags": ["predict"],
        "summary": f"Predict with {name}",
        "description": opened.config.description,
        "operationId": f"predict_{name}",
        "requestBody": {"required": True, "content": content},
        "responses": {
            "200": {"description": "The model's answer", "content": answer},
            **{status: _error(text) for status, text in _ERRORS.items()},
        },
    }


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
    schema: dict[str, Any]
    if spec.dtype.kind == "f":
        schema = {"type": "number", "format": "double" if spec.dtype.itemsize == 8 else "float"}
    elif spec.dtype.kind == "b":
        schema = {"type": "boolean"}
    else:
        limits = np.iinfo(spec.dtype)
        schema = {"type": "integer", "minimum": int(limits.min), "maximum": int(limits.max)}
    for size in reversed(shape):
        schema = {"type": "array", "items": schema}
        schema |= {"minItems": 1} if size == FREE else {"minItems": size, "maxItems": size}
    return schema


def _examples(opened: Opened) -> dict[str, Any]:
    """The model's own samples; without any, one record that the model was seen to run on."""
    if opened.samples:
        return {
            f"sample {index}": {"summary": sample.about or f"sample {index}", "value": sample.request}
            for index, sample in enumerate(opened.samples[:4])
        }
    return {"a record": {"summary": "a record that the model runs on", "value": opened.example_request()}}
