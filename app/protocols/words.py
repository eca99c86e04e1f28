"""What other servers say of what is not there, or comes too late: people look for these words, and so do programs."""

from app.protocols.call import SHOWN, Wire, shown

_EXAMPLES = frozenset({Wire.SERVING_CLASSIFY, Wire.SERVING_REGRESS, Wire.GRPC_CLASSIFY, Wire.GRPC_REGRESS})
_SERVING = _EXAMPLES | {Wire.SERVING_PREDICT, Wire.GRPC_PREDICT}
_INFER = frozenset({Wire.INFER, Wire.GRPC_INFER})


def missing(wire: Wire, model: str | None, version: int | None = None, label: str | None = None) -> str:
    """How a wire format's own server begins to say that there is no such model, version or label; empty for ours."""
    name = (model or "")[:SHOWN]
    if wire in _INFER:
        which = f"{name!r} version {version}" if version is not None else repr(name)
        return f"Request for unknown model: {which} is not found: "
    if wire not in _SERVING:
        return ""
    if label is not None:
        return f"Unrecognized servable version label: {label[:SHOWN]}: "
    return (
        f"Servable not found for request: {f'Latest({name})' if version is None else f'Specific({name}, {version})'}: "
    )


def no_signature(wire: Wire, name: str) -> str:
    """How a wire format's own server says that the model has no such signature: TensorFlow Serving in three ways."""
    if wire is Wire.GRPC_PREDICT:
        return f'Serving signature key "{shown(name)}" not found'
    if wire in _EXAMPLES:
        return f"No signature was found with the name: {shown(name)}"
    return f'Serving signature name: "{shown(name)}" not found in signature def'


def expired(wire: Wire) -> str:
    """How a wire format's own server begins to say that a request has waited too long; empty for ours."""
    return "Request timeout expired: " if wire in _INFER else ""
