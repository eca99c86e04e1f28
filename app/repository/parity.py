"""Whether LiteRT answers what TensorFlow answered."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from app.errors import ModelError
from app.repository.arrays import load_arrays
from app.runtime import batching
from app.runtime.runners import AnyRunner
from app.tensors import Array, Batching, Signature, show_shape

_DOUBT = 1e-3
"""Two answers of TensorFlow's that differ by more, of their scale, are not one."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The largest difference over all values: absolute, and relative to the output's largest absolute value."""

    absolute: float
    relative: float
    top_class: float | None = None
    """Of outputs that may be scores, `[rows, classes]`, the share of rows whose largest is the same."""


@dataclass(frozen=True, slots=True)
class Parity:
    """The comparison of one servable, by output name.

    Args:
        records: how many were compared.
        uncertain: how many of them TensorFlow itself answers differently in a batch and alone; they may differ by as
            much again, and are not in `differences`.
    """

    records: int
    tolerance: float
    differences: dict[str, Difference]
    uncertain: int = 0

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> "Parity":
        """What `to_json` gave."""
        differences = {name: Difference(**values) for name, values in found["differences"].items()}
        return cls(found["records"], found["tolerance"], differences, found.get("uncertain", 0))

    @property
    def worst(self) -> Difference:
        return max(self.differences.values(), key=lambda difference: difference.relative)

    def to_json(self) -> dict[str, Any]:
        return {
            "records": self.records,
            "uncertain": self.uncertain,
            "tolerance": self.tolerance,
            "differences": {name: asdict(difference) for name, difference in self.differences.items()},
        }


@dataclass(frozen=True, slots=True)
class Reference:
    """TensorFlow's answers to some records, in the signature's order, each `[rows, *record]`.

    Args:
        alone: its answers to the first of the records when each was asked about alone; none where that is not known.
    """

    inputs: list[Array]
    outputs: list[Array]
    alone: list[Array] = field(default_factory=list)

    def first(self, rows: int) -> "Reference":
        """Only the first of the records."""
        return Reference(*([array[:rows] for array in arrays] for arrays in (self.inputs, self.outputs, self.alone)))

    def doubts(self, tolerance: float) -> Array:
        """By how much TensorFlow's own answers to each record differ, of an output's scale: `[rows]`, 0 for next to
        nothing.

        What divides by a sum of nothing, as of silence, magnifies rounding, and the sums of a batch are rounded
        otherwise. Where that is so of more than every fourth record, it is the model that treats batches so: no doubt.
        """
        doubts = np.zeros(len(self.inputs[0]))
        known = len(self.alone[0]) if self.alone else 0
        for together, alone in zip(self.outputs, self.alone, strict=False):
            if together.shape[1:] == alone.shape[1:]:
                doubts[:known] = np.maximum(doubts[:known], _row_differences(alone, together[:known], together))
        doubts[~(doubts > min(tolerance, _DOUBT))] = 0
        return doubts if np.isfinite(doubts).all() and 4 * np.count_nonzero(doubts) <= known else np.zeros_like(doubts)


def read_reference(path: Path, names: dict[str, Any], signature: Signature) -> Reference:
    """Read what the conversion child stored for one signature.

    Args:
        names: the signature's `number` in the file, and its `inputs` and `outputs` in the file's order.

    Raises:
        ModelError: the converted model has other inputs or outputs than the model had.
    """
    have = {"inputs": [spec.name for spec in signature.inputs], "outputs": [spec.name for spec in signature.outputs]}
    for kind, found in have.items():
        if sorted(found) != sorted(names[kind]):
            raise ModelError(f"the converted model has the {kind} {found}, and the model has {names[kind]}")
    arrays = load_arrays(path)
    place = names["number"]
    inputs = [arrays[f"in_{place}_{names['inputs'].index(name)}"] for name in have["inputs"]]
    outputs = [arrays[f"out_{place}_{names['outputs'].index(name)}"] for name in have["outputs"]]
    alone = [f"alone_{place}_{names['outputs'].index(name)}" for name in have["outputs"]]
    return Reference(inputs, outputs, [arrays[key] for key in alone if key in arrays])


def compare(runner: AnyRunner, how: Batching, signature: Signature, reference: Reference, tolerance: float) -> Parity:
    """Run the stored inputs and compare.

    Args:
        how: the records of the reference are run.

    Raises:
        ModelError: an output differs by more than `tolerance` of its scale, or in shape; in a record that TensorFlow
            itself answers in two ways, by more than these differ besides.
    """
    rows = reference.inputs[0].shape[0]
    doubts = reference.doubts(tolerance)
    sure = doubts == 0
    answers = batching.run(runner, how, reference.inputs, rows)
    differences = {}
    for spec, answer, wanted in zip(signature.outputs, answers, reference.outputs, strict=True):
        if answer.shape != wanted.shape:
            raise ModelError(
                f"output {spec.name!r} has shape {show_shape(answer.shape)} in LiteRT and "
                f"{show_shape(wanted.shape)} in TensorFlow"
            )
        differences[spec.name] = difference(answer[sure], wanted[sure])
        beyond = _row_differences(answer[~sure], wanted[~sure], wanted) > tolerance + doubts[~sure]
        if beyond.any():
            differences[spec.name] = difference(answer, wanted)
    parity = Parity(rows, tolerance, differences, int(np.count_nonzero(doubts)))
    for name, found in differences.items():
        if not found.relative <= tolerance:
            raise ModelError(
                f"output {name!r} differs from TensorFlow's by {found.relative:.2g} of its scale "
                f"({found.absolute:.2g}), more than the tolerance of {tolerance:g}; model.toml can set another"
            )
    return parity


def difference(answer: Array, wanted: Array) -> Difference:
    """Compare two arrays of one shape. Values that are not finite differ by infinity unless they are the same."""
    if answer.dtype == object or wanted.dtype == object:
        return Difference(0.0, 0.0) if answer.tolist() == wanted.tolist() else Difference(float("inf"), float("inf"))
    wide = np.complex128 if answer.dtype.kind == "c" else np.float64
    have, want = answer.astype(wide), wanted.astype(wide)
    finite = np.isfinite(have) & np.isfinite(want)
    same = (have == want) | (np.isnan(have) & np.isnan(want))
    if not (finite | same).all():
        return Difference(float("inf"), float("inf"))
    absolute = float(np.abs(have[finite] - want[finite]).max(initial=0.0))
    scale = _scale(wanted)
    return Difference(absolute, absolute / scale if scale else absolute, _agreement(answer, wanted))


def _row_differences(answer: Array, wanted: Array, whole: Array) -> Array:
    """The largest difference in each row, relative to the largest absolute value of `whole`: `[rows]`."""
    found = [difference(answer[[row]], wanted[[row]]).absolute for row in range(len(wanted))]
    return np.array(found, np.float64) / (_scale(whole) or 1.0)


def _scale(values: Array) -> float:
    """The largest absolute value that is finite."""
    if values.dtype == object:
        return 0.0
    wide = values.astype(np.complex128 if values.dtype.kind == "c" else np.float64)
    return float(np.abs(wide[np.isfinite(wide)]).max(initial=0.0))


def _agreement(answer: Array, wanted: Array) -> float | None:
    """Of rows of scores the share that has the same largest; None for what are no scores."""
    if wanted.dtype.kind != "f" or wanted.ndim != 2 or wanted.shape[1] < 2 or not wanted.size:
        return None
    return float((answer.argmax(axis=1) == wanted.argmax(axis=1)).mean())
