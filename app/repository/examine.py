"""What can be known of a TFLite model only by running it. For a process of its own: some models crash LiteRT."""

import mmap
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np

from app.errors import LitepoolError, ModelError
from app.repository.arrays import load_arrays, save_arrays
from app.repository.parity import Parity, compare, read_reference
from app.runtime import batching
from app.runtime.contract import BatchClass, Contract
from app.runtime.graph import Graph
from app.runtime.graph_file import read_graph
from app.runtime.independence import why_dependent
from app.runtime.interpreter import Runner
from app.runtime.profile import measure, workable_inputs
from app.runtime.rows import Rows, row_verdict
from app.tensors import Array, Batching, Signature, check

REVISION = "4"
"""Part of every key of a result: raise it when another would be found of the same model."""

_PROBED_US = 200_000.0
"""Cost of one record above which merging helps nobody, and the probe would take minutes."""


def examine(model: Path, request: dict[str, Any], out: Path) -> dict[str, Any]:
    """Open a model, run every signature, and tell what was found.

    Args:
        request: `threads` (LiteRT's own), `rows_independent` (the owner says so), `tolerance` (of parity), `quantized`
            (whether the weights have been made smaller, so that only usual records are compared), `reference` and
            `references` (path of TensorFlow's answers, and what the conversion says of each signature; or None),
            `records` (path of real records by input name, or None).
        out: a folder for `example.npz`.

    Returns:
        `{"signatures": [...], "left_out": {name: reason}}`; of each signature what `app.repository.trial` reads.

    Raises:
        ModelError: in one sentence, why the model is not served.
    """
    with model.open("rb") as file:
        graph = read_graph(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    _refuse_flex(graph)
    try:
        return _examined(model, graph, request, out)
    except ModelError as error:
        if graph.custom_ops and "custom op" in error.message:
            names = ", ".join(sorted(graph.custom_ops))
            raise ModelError(
                f"it needs the custom operations {names}, whose code is no part of LiteRT: build it without"
            ) from error
        raise


def _examined(model: Path, graph: Graph, request: dict[str, Any], out: Path) -> dict[str, Any]:
    runner = Runner(model, request["threads"])
    rows = {name: row_verdict(graph, runner.of(name).subgraph) for name in runner.names}
    facts = _Facts(graph.stateful, graph.unpredictable, graph.random, rows)
    found: list[dict[str, Any]] = []
    left_out: dict[str, str] = {}
    arrays: dict[str, Array] = {}
    for name in runner.names:
        try:
            report, example = _Examination(model, runner, name, facts, request).report()
        except LitepoolError as error:
            if not found:
                raise ModelError(error.message) from error
            left_out[name] = error.message
            continue
        arrays |= {f"in_{len(found)}_{index}": array for index, array in enumerate(example)}
        found.append(report)
    save_arrays(out / "example.npz", arrays)
    return {"signatures": found, "left_out": left_out}


def _refuse_flex(graph: Graph) -> None:
    if graph.flex_ops:
        raise ModelError(
            f"it needs operations of TensorFlow that LiteRT does not have, {', '.join(sorted(graph.flex_ops))}: serve "
            "the model that it was converted from, which litepool[tensorflow] can run"
        )


@dataclass(frozen=True)
class _Facts:
    """What the graph says; `rows` by signature."""

    stateful: bool
    unpredictable: bool
    random: bool
    rows: dict[str, Rows]


class _Examination:
    """Of one signature."""

    def __init__(self, model: Path, runner: Runner, name: str, facts: _Facts, request: dict[str, Any]) -> None:
        self._model = model
        self._runner = runner.of(name)
        self._signature = self._runner.signature()
        self._runner.hold_to(self._signature)
        self._facts = facts
        self._request = request

    def report(self) -> tuple[dict[str, Any], list[Array]]:
        """All of it, and one record of each input, `[1, *record]`, that the model runs on."""
        signature = self._signature
        contract, records, parity = self._compared()
        example = [array[:1] for array in records]
        if not self._facts.stateful:
            # As the server's interpreters begin. Some graphs with hash tables run only after a larger batch.
            first = Runner(self._model, self._request["threads"]).of(signature.name)
            batching.run(first, contract.batching, example, 1)
        start = monotonic()
        profile = measure(self._runner, contract.batching, records, alone=self._request["threads"] == 1)
        profile_ms = (monotonic() - start) * 1000
        if contract.batch_class is BatchClass.MERGED:
            contract = self._independent(contract, example, profile.invoke_us[1])
        report = {
            "name": signature.name,
            "class": contract.batch_class.value,
            "reason": contract.reason,
            "batching": contract.batching.value,
            "unpredictable": self._facts.unpredictable,
            "invoke_us": {str(rows): cost for rows, cost in profile.invoke_us.items()},
            "profile_ms": profile_ms,
            "parity": parity.to_json() if parity is not None else None,
        }
        return report, example

    def _compared(self) -> tuple[Contract, list[Array], Parity | None]:
        """The freest class under which the model runs and, where TensorFlow's answers are known, answers as it did."""
        signature, request = self._signature, self._request
        found = request["references"] or []
        names = next((item for item in found if item["name"] == signature.name), None)
        if names is None:
            records = self._records() or workable_inputs(self._fresh(), signature)
            return self._contract(records), records, None
        if names.get("batching") == Batching.NONE.value:
            # Shapes may look like those of batches where TensorFlow's answers do not.
            signature = self._signature = replace(signature, batching=Batching.NONE)
        reference = read_reference(Path(request["reference"]), names, signature)
        contract = self._contract(reference.inputs)
        if names["random"]:
            return contract, reference.inputs, None
        if request["quantized"]:
            # Few bits are made to fit what really comes, and saturate where the probes for float kernels are loud.
            reference = reference.first(names["samples"] or max(1, names["rows"] - names["loud"]))
        try:
            parity = compare(self._fresh(), contract.batching, signature, reference, request["tolerance"])
        except ModelError as error:
            if contract.batching is not Batching.FREE or contract.stateful:
                raise
            # Record by record it may well be right.
            contract = Contract(BatchClass.LOOPED, f"in a batch, {error.message}", Batching.ONE)
            parity = compare(self._fresh(), contract.batching, signature, reference, request["tolerance"])
        return contract, reference.inputs, parity

    def _records(self) -> list[Array] | None:
        """The first of the owner's own records that the model runs on, as far as they fit; None when there is none."""
        if self._request["records"] is None:
            return None
        given = load_arrays(Path(self._request["records"]))
        specs = self._signature.inputs
        try:
            arrays = [given["" if len(specs) == 1 and "" in given else spec.name] for spec in specs]
            arrays = [array.astype(spec.dtype) for array, spec in zip(arrays, specs, strict=True)]
            for array, spec in zip(arrays, specs, strict=True):
                check(array[0], spec, self._signature.record_shape(spec), "the record")
            batching.run(self._fresh(), _one_by_one(self._signature), [array[:1] for array in arrays], 1)
        except (KeyError, ValueError, LitepoolError):
            return None
        return arrays

    def _contract(self, records: list[Array]) -> Contract:
        """The class as far as shapes, the graph and a few batches tell it; `merged` is still to be probed."""
        signature, facts = self._signature, self._facts
        if facts.stateful:
            return Contract(BatchClass.STATEFUL, "it keeps variables between invokes", signature.batching)
        if signature.batching is Batching.NONE:
            reason = "its inputs and outputs have no common leading dimension for records"
            return Contract(BatchClass.WHOLE, reason, Batching.NONE)
        if signature.batching is Batching.ONE:
            return Contract(BatchClass.LOOPED, "its leading dimension is fixed at 1", Batching.ONE)
        refused = self._why_no_batch(records)
        if refused is not None:
            return Contract(BatchClass.LOOPED, f"it runs no batch: {refused}", Batching.ONE)
        rows = facts.rows[signature.name]
        if self._request["rows_independent"]:
            return Contract(BatchClass.MERGED, "model.toml says that its rows are independent", Batching.FREE)
        if facts.random:
            return Contract(BatchClass.BATCHED, "its answers are drawn at random", Batching.FREE)
        if rows.verdict == "mixing":
            return Contract(BatchClass.BATCHED, f"its graph mixes rows: {rows.reason}", Batching.FREE)
        if rows.verdict == "independent":
            reason = "proven: every operation of its graph treats rows alone"
        else:
            reason = f"a probe of unlike records found rows independent; not proven: {rows.reason}"
        return Contract(BatchClass.MERGED, reason, Batching.FREE)

    def _why_no_batch(self, records: list[Array]) -> str | None:
        """Why batches do not run although the signature has a free leading dimension; None when they do."""
        for rows in (2, 5):
            inputs = [np.resize(array[:1], (rows, *array.shape[1:])) for array in records]
            try:
                batching.run(self._runner, Batching.FREE, inputs, rows)
            except LitepoolError as error:
                return error.message
        return None

    def _independent(self, contract: Contract, example: list[Array], record_us: float) -> Contract:
        """The same contract, or a stricter one when the probe finds that records are not alone."""
        if self._request["rows_independent"]:
            return contract
        if record_us > _PROBED_US:
            return Contract(BatchClass.BATCHED, "one record takes so long that merging would not help", Batching.FREE)
        why = why_dependent(self._runner, self._signature, example)
        if why is None:
            return contract
        if self._facts.rows[self._signature.name].verdict == "independent":
            # Some of LiteRT's kernels answer wrongly for all rows but the first.
            return Contract(BatchClass.LOOPED, f"though its graph treats rows alone, in LiteRT {why}", Batching.ONE)
        return Contract(BatchClass.BATCHED, why, Batching.FREE)

    def _fresh(self) -> Runner:
        """A runner without traces of earlier invokes, for a model that keeps some."""
        if not self._facts.stateful:
            return self._runner
        return Runner(self._model, self._request["threads"]).of(self._signature.name)


def _one_by_one(signature: Signature) -> Batching:
    return Batching.ONE if signature.batching is Batching.FREE else signature.batching
