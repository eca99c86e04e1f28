"""The schema of TensorFlow Serving's predictions, which is the same for every model."""

from typing import Any

from app.protocols.call import JSON, Wire
from app.server.paths import TEMPLATES

_ERRORS = {
    "400": "The request does not fit the model; the message says what was found, where, and what was expected",
    "404": "No model of that name, or no such version or label",
    "413": "The body is too large",
    "503": "The model is loading or failed, or too many requests wait",
    "504": "The request waited longer than it may",
}
_ANY: dict[str, Any] = {}
_SIGNATURE = {"signature_name": {"type": "string", "default": "serving_default"}}
_FEATURES = {"type": "object", "description": "Values, or lists of values, by the names of the model's inputs"}
_NUMBER = {"type": "number", "format": "float"}


def _object(needed: dict[str, Any], others: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"type": "object", "properties": {**needed, **(others or {})}, "required": list(needed)}


def _list(items: dict[str, Any], least: int = 0) -> dict[str, Any]:
    return {"type": "array", "items": items} | ({"minItems": least} if least else {})


_ROWS = _object({"instances": _list(_ANY, 1)}, _SIGNATURE)
_COLUMNS = _object({"inputs": _ANY}, _SIGNATURE)
_EXAMPLES = _object({"examples": _list(_FEATURES, 1)}, {**_SIGNATURE, "context": _FEATURES})
_PAIR = {"type": "array", "items": _ANY, "minItems": 2, "maxItems": 2, "description": "[label, score]"}

_WIRES: dict[Wire, tuple[str, dict[str, Any], dict[str, Any]]] = {
    Wire.SERVING_PREDICT: (
        "Predict",
        {"oneOf": [_ROWS, _COLUMNS]},
        {"oneOf": [_object({"predictions": _list(_ANY)}), _object({"outputs": _ANY})]},
    ),
    Wire.SERVING_CLASSIFY: ("Classify", _EXAMPLES, _object({"results": _list(_list(_PAIR))})),
    Wire.SERVING_REGRESS: ("Regress", _EXAMPLES, _object({"results": _list(_NUMBER)})),
}
"""What each does, its request and its answer."""


def paths() -> dict[str, Any]:
    """The operation of each path."""
    error = {"content": {JSON: {"schema": {"$ref": "#/components/schemas/Error"}}}}
    found = {}
    for wire, (does, request, answer) in _WIRES.items():
        for path in TEMPLATES[wire]:
            names = [name for name in ("model", "version", "label") if f"{{{name}}}" in path]
            found[path] = {
                "post": {
                    "tags": ["TensorFlow Serving"],
                    "summary": f"{does} with a {names[-1]}",
                    "operationId": "_".join([wire.name.lower(), *names]),
                    "parameters": [
                        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
                    ],
                    "requestBody": {"required": True, "content": {JSON: {"schema": request}}},
                    "responses": {
                        "200": {"description": "The model's answer", "content": {JSON: {"schema": answer}}},
                        **{status: {"description": text, **error} for status, text in _ERRORS.items()},
                    },
                }
            }
    return found
