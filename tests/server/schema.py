"""As much of JSON Schema as Litepool's documents use, to hold examples and answers against it."""

from typing import Any

_KNOWN = {
    *("type", "format", "items", "minItems", "maxItems", "minimum", "maximum"),
    *("oneOf", "anyOf", "properties", "required", "additionalProperties"),
    *("title", "description", "example", "examples", "default", "enum"),
}
_TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "number": (int, float),
    "integer": int,
    "boolean": bool,
    "null": type(None),
}


def faults(value: Any, schema: dict[str, Any], where: str = "$") -> list[str]:
    """Where a value does not fit a schema; nothing, when it does."""
    assert schema.keys() <= _KNOWN, f"this validator does not know all of {sorted(schema)}"
    for choice in ("oneOf", "anyOf"):
        if choice in schema:
            fitting = [part for part in schema[choice] if not faults(value, part, where)]
            if not fitting or (choice == "oneOf" and len(fitting) > 1):
                return [f"{where}: fits {len(fitting)} of {choice}"]
    if "type" in schema and not _is(value, schema["type"]):
        return [f"{where}: {type(value).__name__} is no {schema['type']}"]
    if isinstance(value, list):
        return _array_faults(value, schema, where)
    if isinstance(value, dict):
        return _object_faults(value, schema, where)
    if isinstance(value, int | float) and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        return [f"{where}: {value} is out of range"]
    return []


def _is(value: Any, kind: str) -> bool:
    return isinstance(value, _TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))


def _array_faults(value: list[Any], schema: dict[str, Any], where: str) -> list[str]:
    if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
        return [f"{where}: {len(value)} items"]
    items = schema.get("items", {})
    return [fault for index, item in enumerate(value) for fault in faults(item, items, f"{where}[{index}]")]


def _object_faults(value: dict[str, Any], schema: dict[str, Any], where: str) -> list[str]:
    properties = schema.get("properties", {})
    found = [f"{where}: no {name}" for name in schema.get("required", []) if name not in value]
    if schema.get("additionalProperties") is False:
        found += [f"{where}: an unknown {name}" for name in value if name not in properties]
    for name, part in properties.items():
        if name in value:
            found += faults(value[name], part, f"{where}.{name}")
    return found
