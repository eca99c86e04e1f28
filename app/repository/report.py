"""What is known of a model, as JSON: `GET /models`, `GET /models/{m}`, `litepool inspect`."""

from typing import Any

from app.repository.layout import Source
from app.repository.loader import Opened, batch_class
from app.repository.manager import Entry
from app.runtime.plan import Plan
from app.tensors import Signature, TensorSpec

_STATEFUL = "it keeps variables between invokes, so that every request gets a fresh interpreter"
_FIXED = "model.toml says so"


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
        report["lane"] = of_plan(entry.loaded.opened, entry.loaded.servable.plan)
    return report


def of_plan(opened: Opened, plan: Plan) -> dict[str, Any]:
    """Where a servable's invokes run and what they share, why, and what of it its owner has fixed."""
    fixed = opened.config.lane.model_dump(exclude_unset=True)
    return {
        "default": "inline" if plan.inline_rows else "pool",
        "pool_because": None if plan.inline_rows else _why_pooled(opened, fixed),
        "inline_rows": plan.inline_rows,
        "merge_rows": plan.merge_rows,
        "not_merged_because": None if plan.merge_rows > 1 else _why_alone(opened, fixed),
        "taken_together": {str(rows): plan.helping(rows) for rows in plan.profile.invoke_us},
        "most_rows": plan.most_rows if plan.splits else None,
        "split_rows": plan.profile.split_rows() if plan.splits else None,
        "threads": plan.threads,
        "fixed": fixed,
    }


def where(lane: dict[str, Any]) -> str:
    """Of what `of_plan` gave, for people: where invokes run."""
    rows = lane["inline_rows"]
    if not rows:
        return f"on pool threads: {lane['pool_because']}"
    return f"on the event loop up to {rows} record{'s' * (rows > 1)}, larger batches on pool threads"


def sharing(lane: dict[str, Any]) -> str:
    """Of what `of_plan` gave, for people: what requests share."""
    if lane["merge_rows"] == 1:
        return f"each request is run alone: {lane['not_merged_because']}"
    return f"up to {lane['merge_rows']} records of different requests are run together"


def _why_pooled(opened: Opened, fixed: dict[str, Any]) -> str:
    if opened.stateful:
        return _STATEFUL
    if opened.unpredictable:
        return "its graph has control flow, so that what an invoke costs depends on its input"
    return _FIXED if "inline_rows" in fixed else "an invoke of one record costs more than inline_us"


def _why_alone(opened: Opened, fixed: dict[str, Any]) -> str:
    if opened.stateful:
        return _STATEFUL
    if opened.mixing is not None:
        return opened.mixing
    if "merge_rows" in fixed:
        return _FIXED
    if len(opened.profile.invoke_us) == 1:
        return "one record takes so long that no larger batch was measured"
    return "an invoke of several records costs about as much as one each"


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
            "record_us": {str(rows): round(cost / rows, 2) for rows, cost in opened.profile.invoke_us.items()},
            "measured_ms": round(opened.profile_ms, 1),
            "opened_ms": round(opened.open_ms, 1),
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
