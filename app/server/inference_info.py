"""What Open Inference says of the server and its models, as JSON; the keys are the protobuf messages' fields, too.

Source: `inference_rest.md` of kserve/open-inference-protocol, and of triton-inference-server/server `docs/protocol/`,
of triton-inference-server/common `protobuf/model_config.proto`.
"""

from typing import Any

from app import __version__
from app.bound import identity_of
from app.errors import Unavailable
from app.protocols.infer_tensors import DATATYPES
from app.repository.manager import Entry, Manager, State, Status, Target
from app.repository.model_config import CONFIG, ModelConfig
from app.runtime.contract import BatchClass
from app.telemetry.metrics import Metrics, Totals
from app.tensors import Batching, Signature, TensorSpec

EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "sequence",
    "model_repository",
    "model_repository(unload_dependents)",
    "model_configuration",
    "parameters",
    "statistics",
)

MAX_BATCH_SIZE = 65536
"""What `/config` gives for a model that takes batches. There is no such limit here but that of a body's bytes."""

_STATES = {
    State.START: "LOADING",
    State.LOADING: "LOADING",
    State.AVAILABLE: "READY",
    State.FAILED: "UNAVAILABLE",
    State.UNLOADING: "UNLOADING",
    State.END: "UNAVAILABLE",
}


def is_live() -> dict[str, Any]:
    return {"live": True}


def server_metadata() -> dict[str, Any]:
    return {"name": "litepool", "version": __version__, "extensions": list(EXTENSIONS)}


def is_server_ready(manager: Manager) -> bool:
    """Whether the first load is over, and something serves."""
    return manager.status()[0] in (Status.OK, Status.DEGRADED)


def is_ready(manager: Manager, target: Target) -> bool:
    """Whether requests for it would be served.

    Raises:
        NotFound: there is no such model or version.
    """
    if manager.draining:
        return False
    try:
        manager.find(target)
    except Unavailable:
        return False
    return True


def model_metadata(manager: Manager, target: Target) -> dict[str, Any]:
    """A model's inputs and outputs, and the versions that serve.

    Raises:
        NotFound, Unavailable: it is not served.
    """
    opened = manager.find(target).opened
    signature = _seen(opened.signature, opened.config)
    versions = [entry.version for entry in manager.versions(opened.source.name) if entry.loaded is not None]
    if target.version is not None:
        versions = [target.version]
    return {
        "name": opened.source.name,
        "versions": [str(version) for version in versions],
        "platform": f"{opened.engine}_{opened.source.kind.value}",
        "inputs": [_described(spec, signature) for spec in signature.inputs],
        "outputs": [_described(spec, signature) for spec in signature.outputs],
    }


def model_config(manager: Manager, target: Target) -> dict[str, Any]:
    """A model as Triton's `ModelConfig` describes one, as far as that has words for it.

    Raises:
        NotFound, Unavailable: it is not served.
    """
    opened = manager.find(target).opened
    config, contract = opened.config, opened.default.contract
    signature = _seen(opened.signature, config)
    labels = identity_of(opened, signature).labels
    batched = signature.batching is not Batching.NONE
    found: dict[str, Any] = {
        "name": opened.source.name,
        "platform": f"{opened.engine}_{opened.source.kind.value}",
        "backend": opened.engine,
        "version_policy": _version_policy(config),
        "max_batch_size": MAX_BATCH_SIZE if batched else 0,
        "input": [_tensor(spec, signature) for spec in signature.inputs],
        "output": [
            {**_tensor(spec, signature), **({"label_filename": CONFIG} if spec.name in labels else {})}
            for spec in signature.outputs
        ],
        "default_model_filename": opened.source.path.name,
        "model_transaction_policy": {"decoupled": False},
        "parameters": {
            "batch_class": {"string_value": contract.batch_class.value},
            "quantization": {"string_value": opened.quantization},
        },
    }
    if contract.batch_class is BatchClass.STATEFUL:
        idle_us = round(config.state.idle_seconds * 1e6)
        found["sequence_batching"] = {"max_sequence_idle_microseconds": idle_us, "direct": {}}
    elif contract.batch_class is BatchClass.MERGED:
        found["dynamic_batching"] = {"max_queue_delay_microseconds": 0}
    return found


def statistics(manager: Manager, metrics: Metrics, name: str | None, version: int | None) -> dict[str, Any]:
    """What requests to the versions that serve have added up to, in all workers.

    `batch_stats` is empty: how many requests shared an invoke is not counted by the size of the batch.

    Args:
        name: of one model; None for all.
        version: of that one; None for all that serve.

    Raises:
        NotFound: there is no such model or version.
    """
    entries = manager.entries() if name is None else manager.versions(name)
    if name is not None and version is not None:
        entries = [manager.entry(Target(name, version))]
    totals = metrics.totals()
    return {
        "model_stats": [
            _statistics(entry, totals.get((entry.name, str(entry.version)), Totals()))
            for entry in entries
            if entry.loaded is not None
        ]
    }


def repository_index(manager: Manager, ready: bool) -> list[dict[str, Any]]:
    """Every version known, and its state.

    Args:
        ready: only those that serve.
    """
    return [_indexed(entry) for entry in manager.entries() if not ready or entry.state is State.AVAILABLE]


def _indexed(entry: Entry) -> dict[str, Any]:
    found = {"name": entry.name, "version": str(entry.version), "state": _STATES[entry.state]}
    return {**found, "reason": entry.reason} if entry.reason else found


def _seen(signature: Signature, config: ModelConfig) -> Signature:
    """A signature as callers see it."""
    return signature.real() if config.numbers == "real" else signature


def _datatype(spec: TensorSpec) -> str:
    """Of complex numbers, for which Open Inference has none, NumPy's name."""
    return DATATYPES.get(spec.dtype, spec.dtype.name.upper())


def _described(spec: TensorSpec, signature: Signature) -> dict[str, Any]:
    return {"name": spec.name, "datatype": _datatype(spec), "shape": list(signature.tensor_shape(spec))}


def _tensor(spec: TensorSpec, signature: Signature) -> dict[str, Any]:
    """Its dimensions without that of the batch."""
    kind = _datatype(spec)
    known = spec.dtype in DATATYPES
    return {
        "name": spec.name,
        "data_type": f"TYPE_{'STRING' if kind == 'BYTES' else kind}" if known else "TYPE_INVALID",
        "dims": list(signature.record_shape(spec)),
    }


def _version_policy(config: ModelConfig) -> dict[str, Any]:
    policy = config.versions
    if policy.specific is not None:
        return {"specific": {"versions": sorted(set(policy.specific))}}
    return {"all": {}} if policy.all else {"latest": {"num_versions": policy.latest or 1}}


def _statistics(entry: Entry, totals: Totals) -> dict[str, Any]:
    succeeded = totals.requests.get("OK", 0)
    failed = sum(totals.requests.values()) - succeeded
    total_ns = totals.sums_ns.get("total", 0)
    none = {"count": 0, "ns": 0}

    def phase(name: str) -> dict[str, int]:
        return {"count": succeeded, "ns": totals.sums_ns.get(name, 0)}

    return {
        "name": entry.name,
        "version": str(entry.version),
        "last_inference": round(totals.last_answer * 1000),
        "inference_count": totals.records,
        "execution_count": totals.invokes,
        "inference_stats": {
            "success": {"count": succeeded, "ns": max(0, total_ns - totals.failed_ns)},
            "fail": {"count": failed, "ns": totals.failed_ns},
            "queue": phase("queue"),
            "compute_input": phase("decode"),
            "compute_infer": phase("invoke"),
            "compute_output": phase("encode"),
            "cache_hit": none,
            "cache_miss": none,
        },
        "response_stats": {},
        "batch_stats": [],
        "memory_usage": [],
    }
