"""What is known of a model, as JSON: `GET /models`, `GET /models/{m}`, `litepool inspect`."""

from typing import Any

from app.repository.layout import Source
from app.repository.loader import Opened, batch_class
from app.repository.manager import Entry
from app.runtime.plan import Plan
from app.tensors import Signature, TensorSpec


def brief(entry: Entry) -> dict[str, Any]:
    """A line of the list of models."""
    opened = entry.loaded.opened if entry.loaded else None
    return {
        "name": entry.name,
        "version": entry.version,
        "state": entry.state.value,
        "reason": entry.reason,
        "description": opened.config.description if opened else "",
    }


def full(entry: Entry) -> dict[str, Any]:
    """All of one model."""
    report = brief(entry)
    if entry.source is not None:
        report |= of_source(entry.source)
    if entry.loaded is not None:
        report |= of_opened(entry.loaded.opened)
        report["lane"] = of_plan(entry.loaded.servable.plan)
    return report


def of_plan(plan: Plan) -> dict[str, Any]:
    """Where a servable's invokes run and what they share."""
    return {
        "default": "inline" if plan.inline_rows else "pool",
        "inline_rows": plan.inline_rows,
        "merge_rows": plan.merge_rows,
        "threads": plan.threads,
    }


def of_source(source: Source) -> dict[str, Any]:
    return {"format": source.kind.value, "file": source.path.name}


def of_opened(opened: Opened) -> dict[str, Any]:
    """What opening a model has shown."""
    signature = opened.signature
    report: dict[str, Any] = {
        "quantization": opened.config.quantization,
        "class_labels": opened.config.class_labels,
        "tflite_bytes": opened.size,
        "signature": signature_json(signature),
        "batching": {"class": batch_class(opened), "not_merged_because": opened.mixing},
        "samples": len(opened.samples),
        "profile": {
            "invoke_us": {str(rows): round(cost, 1) for rows, cost in opened.profile.invoke_us.items()},
        },
        "conversion": None,
    }
    if opened.conversion is not None and opened.parity is not None:
        times = opened.conversion["timings_us"]
        report["conversion"] = {
            "tensorflow": opened.conversion["tensorflow"],
            "keras": opened.conversion["keras"],
            "seconds": opened.conversion["seconds"],
            "one_record_us": {
                **({"model.predict": times["predict"]} if "predict" in times else {}),
                "model(x)": times["call"],
                "interpreter": round(opened.profile.invoke_us[1], 1),
            },
            "parity": opened.parity.to_json(),
        }
    return report


def signature_json(signature: Signature) -> dict[str, Any]:
    return {
        "name": signature.name,
        "inputs": [_tensor_json(signature, spec) for spec in signature.inputs],
        "outputs": [_tensor_json(signature, spec) for spec in signature.outputs],
    }


def _tensor_json(signature: Signature, spec: TensorSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "dtype": spec.dtype.name,
        "shape": list(signature.tensor_shape(spec)),
        "record_shape": list(signature.record_shape(spec)),
    }
