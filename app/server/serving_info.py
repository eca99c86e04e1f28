"""What TensorFlow Serving says of a model, in the form of its JSON, whose keys are the names of its messages' fields.

Source: get_model_status.proto and get_model_metadata.proto of tensorflow_serving/apis.
"""

from typing import Any

from app.errors import NotFound
from app.protocols import tensor_proto, words
from app.protocols.call import Wire
from app.repository.loader import Loaded
from app.repository.manager import Entry, Manager, State, Target
from app.tensors import Shape, Signature, TensorSpec

_PREDICT = "tensorflow/serving/predict"


def model_status(manager: Manager, target: Target) -> dict[str, Any]:
    """The state of a model's versions, the newest first, or of one of them: `GetModelStatusResponse`.

    Raises:
        NotFound: there is no such model, version or label.
        Unavailable: the server is starting.
    """
    name = target.model or ""
    try:
        entries = manager.versions(name)
    except NotFound as error:
        raise NotFound(f"Could not find any versions of model {name[:128]}: {error.message}") from None
    version = target.version
    if target.label is not None:
        version = version_of_label(manager, name, target.label)
    if version is not None:
        found = [entry for entry in entries if entry.version == version]
        if not found:
            have = ", ".join(str(entry.version) for entry in entries)
            raise NotFound(f"Could not find version {version} of model {name}: its versions are {have}")
        entries = found
    return {"model_version_status": [_status(entry) for entry in reversed(entries)]}


def version_of_label(manager: Manager, name: str, label: str) -> int:
    """The version that a label points to.

    Raises:
        NotFound: there is no such label.
    """
    labels = manager.labels(name)
    if label not in labels:
        have = f"its labels are {', '.join(sorted(labels))}" if labels else "it has none"
        raise NotFound(f"Unrecognized servable version label: {label[:128]} of model {name}: {have}")
    return labels[label]


def is_ready(manager: Manager, name: str) -> bool:
    """Whether requests for a model are answered."""
    return any(entry.loaded is not None for entry in manager.versions(name)) and not manager.draining


def _status(entry: Entry) -> dict[str, Any]:
    failed = entry.state is State.FAILED
    return {
        "version": str(entry.version),
        "state": State.END.value if failed else entry.state.value,
        "status": {
            "error_code": "FAILED_PRECONDITION" if failed else "OK",
            "error_message": entry.reason if failed else "",
        },
    }


def model_metadata(manager: Manager, target: Target) -> dict[str, Any]:
    """The signatures of what serves a request: `GetModelMetadataResponse`.

    Raises:
        NotFound, Unavailable: nothing does.
    """
    try:
        loaded = manager.find(target)
    except NotFound as error:
        raise NotFound(words.missing(Wire.SERVING_PREDICT, *target) + error.message) from None
    return {
        "model_spec": {
            "name": loaded.opened.source.name,
            "signature_name": "",
            "version": str(loaded.opened.source.version),
        },
        "metadata": {"signature_def": {"signature_def": _signatures(loaded)}},
    }


def _signatures(loaded: Loaded) -> dict[str, Any]:
    real = loaded.opened.config.numbers == "real"
    found = {}
    for name, offered in loaded.opened.signatures.items():
        seen = offered.signature.real() if real else offered.signature
        found[name] = {
            "inputs": _tensors(seen, seen.inputs),
            "outputs": _tensors(seen, seen.outputs),
            "method_name": _PREDICT,
        }
    return found


def _tensors(signature: Signature, specs: tuple[TensorSpec, ...]) -> dict[str, Any]:
    return {spec.name: _tensor(spec, signature.tensor_shape(spec)) for spec in specs}


def _tensor(spec: TensorSpec, shape: Shape) -> dict[str, Any]:
    return {
        "dtype": tensor_proto.dtype_name(spec.dtype),
        "tensor_shape": {"dim": [{"size": str(size), "name": ""} for size in shape], "unknown_rank": False},
        # A graph's name for it, which a converted model has not.
        "name": f"{spec.name}:0",
    }
