"""Whether LiteRT answers what TensorFlow answered."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from app.errors import ModelError
from app.runtime import batching
from app.runtime.interpreter import Runner
from app.tensors import Array, Signature, show_shape


@dataclass(frozen=True, slots=True)
class Difference:
    """The largest difference over all values: absolute, and relative to the output's largest absolute value."""

    absolute: float
    relative: float


@dataclass(frozen=True, slots=True)
class Parity:
    """The comparison of one servable, by output name."""

    records: int
    tolerance: float
    differences: dict[str, Difference]

    @property
    def worst(self) -> Difference:
        return max(self.differences.values(), key=lambda difference: difference.relative)

    def to_json(self) -> dict[str, Any]:
        return {
            "records": self.records,
            "tolerance": self.tolerance,
            "differences": {name: asdict(difference) for name, difference in self.differences.items()},
        }


def read_reference(path: Path, report: dict[str, Any], signature: Signature) -> tuple[list[Array], list[Array]]:
    """Stored inputs and TensorFlow's answers, in the signature's order, each `[rows, *record]`.

    Raises:
        ModelError: the converted model has other inputs or outputs than the model had.
    """
    names = {"inputs": [spec.name for spec in signature.inputs], "outputs": [spec.name for spec in signature.outputs]}
    for kind, have in names.items():
        if sorted(have) != sorted(report[kind]):
            raise ModelError(f"the converted model has the {kind} {have}, and the model has {report[kind]}")
    with np.load(path, allow_pickle=False) as arrays:
        inputs = [arrays[f"in_{report['inputs'].index(name)}"] for name in names["inputs"]]
        outputs = [arrays[f"out_{report['outputs'].index(name)}"] for name in names["outputs"]]
    return inputs, outputs


def compare(
    runner: Runner, signature: Signature, inputs: list[Array], expected: list[Array], tolerance: float
) -> Parity:
    """Run the stored inputs and compare.

    Raises:
        ModelError: an output differs by more than `tolerance` of its scale, or in shape.
    """
    rows = inputs[0].shape[0]
    answers = batching.run(runner, signature.batching, inputs, rows)
    differences = {}
    for spec, answer, wanted in zip(signature.outputs, answers, expected, strict=True):
        if answer.shape != wanted.shape:
            raise ModelError(
                f"output {spec.name!r} has shape {show_shape(answer.shape)} in LiteRT and "
                f"{show_shape(wanted.shape)} in TensorFlow"
            )
        differences[spec.name] = difference(answer, wanted)
    parity = Parity(rows, tolerance, differences)
    for name, found in differences.items():
        if not found.relative <= tolerance:
            raise ModelError(
                f"output {name!r} differs from TensorFlow's by {found.relative:.2g} of its scale "
                f"({found.absolute:.2g}), more than the tolerance of {tolerance:g}; model.toml can set another"
            )
    return parity


def difference(answer: Array, wanted: Array) -> Difference:
    """Compare two arrays of one shape. Values that are not finite differ by infinity unless they are the same."""
    have, want = answer.astype(np.float64), wanted.astype(np.float64)
    finite = np.isfinite(have) & np.isfinite(want)
    same = (have == want) | (np.isnan(have) & np.isnan(want))
    if not (finite | same).all():
        return Difference(float("inf"), float("inf"))
    absolute = float(np.abs(have[finite] - want[finite]).max(initial=0.0))
    scale = float(np.abs(want[finite]).max(initial=0.0))
    return Difference(absolute, absolute / scale if scale else absolute)
