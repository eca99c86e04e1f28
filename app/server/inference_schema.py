"""The schema of Open Inference's predictions, which is the same for every model."""

from typing import Any

from app.protocols.call import JSON, OCTETS, Wire
from app.server.paths import TEMPLATES

_NUMBER = {"type": "integer", "minimum": 0}
_PARAMETERS = {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}

_ERRORS = {
    "400": "The request does not fit the model; the message says what was found, where, and what was expected",
    "404": "No model of that name",
    "413": "The body is too large",
    "503": "The model is loading or failed, too many requests wait, or the request waited longer than it may",
}


def _object(needed: dict[str, Any], others: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": {**needed, **others}, "required": list(needed)}


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _tensor() -> dict[str, Any]:
    needed = {"name": {"type": "string"}, "shape": _list(_NUMBER), "datatype": {"type": "string", "example": "FP32"}}
    data = {"type": "array", "description": "Row-major, flat or nested; or binary_data_size is among the parameters"}
    return _object(needed, {"parameters": _PARAMETERS, "data": data})


def paths() -> dict[str, Any]:
    """The operation of each path."""
    output = _object({"name": {"type": "string"}}, {"parameters": _PARAMETERS})
    asked = {"id": {"type": "string"}, "parameters": _PARAMETERS, "outputs": _list(output)}
    request = _object({"inputs": _list(_tensor())}, asked)
    named = {"model_name": {"type": "string"}, "model_version": {"type": "string"}, "outputs": _list(_tensor())}
    answer = _object(named, {"id": {"type": "string"}})
    binary = {"schema": {"type": "string", "format": "binary"}}
    length = {
        "name": "Inference-Header-Content-Length",
        "in": "header",
        "description": "Bytes of JSON that the body begins with, where tensors lie behind it; 0 where it is one tensor",
        "schema": _NUMBER,
    }
    error = {"content": {JSON: {"schema": {"$ref": "#/components/schemas/Error"}}}}
    found = {}
    for path in TEMPLATES[Wire.INFER]:
        names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
        found[path] = {
            "post": {
                "tags": ["Open Inference"],
                "summary": f"Predict with a {names[-1]}",
                "operationId": "_".join(["infer", *names]),
                "parameters": [
                    *({"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names),
                    length,
                ],
                "requestBody": {"required": True, "content": {JSON: {"schema": request}, OCTETS: binary}},
                "responses": {
                    "200": {"description": "The outputs", "content": {JSON: {"schema": answer}, OCTETS: binary}},
                    **{status: {"description": text, **error} for status, text in _ERRORS.items()},
                },
            }
        }
    return found
