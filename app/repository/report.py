"""What is known of a model, as JSON: `GET /models`, `GET /models/{m}`, `litepool inspect`."""

from typing import Any

from app.repository.layout import Source
from app.repository.loader import Offered, Opened
from app.repository.manager import Entry
from app.runtime.plan import Plan
from app.tensors import Signature, TensorSpec, dtype_name

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
    """All of one version."""
    report = brief(entry)
    if entry.source is not None:
        report |= of_source(entry.source)
    if entry.loaded is not None:
        plans = {name: servable.plan for name, servable in entry.loaded.servables.items()}
        report |= of_opened(entry.loaded.opened, plans)
    return report


def of_versions(entries: list[Entry], labels: dict[str, int]) -> dict[str, Any]:
    """All of one model: of the version that has the model's own name everything, of each its state and its labels."""
    serving = [entry for entry in entries if entry.loaded is not None]
    return full((serving or entries)[-1]) | {
        "labels": labels,
        "versions": [
            {
                "version": entry.version,
                "state": entry.state.value,
                "reason": entry.reason,
                "labels": sorted(label for label, version in labels.items() if version == entry.version),
            }
            for entry in entries
        ],
    }


def of_plan(offered: Offered, opened: Opened, plan: Plan) -> dict[str, Any]:
    """Where a servable's invokes run and what they share, why, and what of it its owner has fixed."""
    fixed = opened.config.lane.model_dump(exclude_unset=True)
    return {
        "default": "inline" if plan.inline_rows else "pool",
        "pool_because": None if plan.inline_rows else _why_pooled(offered, opened, fixed),
        "inline_rows": plan.inline_rows,
        "merge_rows": plan.merge_rows,
        "not_merged_because": None if plan.merge_rows > 1 else _why_alone(offered, fixed),
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


def _why_pooled(offered: Offered, opened: Opened, fixed: dict[str, Any]) -> str:
    if opened.engine == "tensorflow":
        return "TensorFlow runs it, in a process of its own"
    if offered.contract.stateful:
        return f"{offered.contract.reason}, so that every request gets an interpreter of its own"
    if offered.examined.unpredictable:
        return "its graph has control flow, so that what an invoke costs depends on its input"
    return _FIXED if "inline_rows" in fixed else "an invoke of one record costs more than inline_us"


def _why_alone(offered: Offered, fixed: dict[str, Any]) -> str:
    if not offered.contract.merges:
        return offered.contract.reason
    if "merge_rows" in fixed:
        return _FIXED
    if len(offered.examined.profile.invoke_us) == 1:
        return "one record takes so long that no larger batch was measured"
    return "an invoke of several records costs about as much as one each"


def of_source(source: Source) -> dict[str, Any]:
    return {"format": source.kind.value, "file": source.path.name}


def of_opened(opened: Opened, plans: dict[str, Plan]) -> dict[str, Any]:
    """What opening a model has shown: of its default signature at the top, of each under its name."""
    signatures = {name: _of_offered(offered, opened, plans[name]) for name, offered in opened.signatures.items()}
    default = opened.signature.name
    return {
        "engine": opened.engine,
        "slow": opened.slow_because,
        "quantization": opened.quantization,
        "numbers": opened.config.numbers,
        "class_labels": opened.config.class_labels,
        "tflite_bytes": opened.size,
        **signatures[default],
        "signatures": signatures,
        "signatures_left_out": opened.left_out,
        "samples": len(opened.samples),
        "conversion": _of_conversion(opened),
        "variants": (opened.conversion or {}).get("variants"),
    }


def _of_offered(offered: Offered, opened: Opened, plan: Plan) -> dict[str, Any]:
    examined, contract = offered.examined, offered.contract
    costs = examined.profile.invoke_us
    return {
        "signature": signature_json(offered.signature),
        "batching": {"class": contract.batch_class.value, "because": contract.reason},
        "profile": {
            "invoke_us": {str(rows): round(cost, 1) for rows, cost in costs.items()},
            "record_us": {str(rows): round(cost / rows, 2) for rows, cost in costs.items()},
            "measured_ms": round(examined.profile_ms, 1),
            "opened_ms": round(opened.open_ms, 1),
        },
        "parity": examined.parity.to_json() if examined.parity is not None else None,
        "lane": of_plan(offered, opened, plan),
    }


def _of_conversion(opened: Opened) -> dict[str, Any] | None:
    found = opened.conversion
    if found is None or opened.engine == "tensorflow":
        return None
    times = found["timings_us"]
    return {
        "tensorflow": found["tensorflow"],
        "keras": found["keras"],
        "trained_in": found.get("trained_in"),
        "seconds": found["seconds"],
        "rung": found.get("rung"),
        "calibrated_with": found.get("calibrated_with"),
        "one_record_us": {
            **({"model.predict": times["predict"]} if "predict" in times else {}),
            **({"model(x)": times["call"]} if "call" in times else {}),
            "interpreter": round(opened.profile.invoke_us[1], 1),
        },
        "parity": opened.parity.to_json() if opened.parity is not None else None,
    }


def signature_json(signature: Signature) -> dict[str, Any]:
    return {
        "name": signature.name,
        "inputs": [_tensor_json(signature, spec) for spec in signature.inputs],
        "outputs": [_tensor_json(signature, spec) for spec in signature.outputs],
    }


def _tensor_json(signature: Signature, spec: TensorSpec) -> dict[str, Any]:
    tensor: dict[str, Any] = {
        "name": spec.name,
        "dtype": dtype_name(spec.dtype),
        "shape": list(signature.tensor_shape(spec)),
        "record_shape": list(signature.record_shape(spec)),
    }
    if spec.scaling is not None:
        tensor["scaling"] = {"scale": spec.scaling.scale, "zero_point": spec.scaling.zero_point}
    return tensor
