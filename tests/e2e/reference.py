"""Seeded records for each shipped model, and TensorFlow's answers to them.

TensorFlow stays out of the pytest process: run as `python -m tests.e2e.reference FILE`, this writes what Keras answers
to all records of all models; `read` gives it to the tests.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from app.tensors import Array
from tests.e2e.process import MODELS

RECORDS = 1000

FILES = {
    "mlp": MODELS / "mlp.keras",
    "digits": MODELS / "digits" / "digits.keras",
    "diabetes": MODELS / "diabetes" / "diabetes.keras",
}

_TOLERANCE = 1e-5
"""Largest difference from TensorFlow, relative to the largest absolute value of an output."""

_BODY = ((19, 1, 18, 62), (79, 2, 42.2, 133))
_SERUM = ((97, 41.6, 22, 2, 3.2581, 58), (301, 242.4, 99, 9.09, 6.107, 124))
"""Smallest and largest values that the patients of the diabetes data have."""


def records(name: str) -> dict[str, Array]:
    """The inputs of `RECORDS` records for a model, by name."""
    draw = np.random.default_rng(20)
    if name == "mlp":
        return {"x": draw.standard_normal((RECORDS, 256), np.float32)}
    if name == "digits":
        ink = draw.integers(0, 17, (RECORDS, 8, 8)) * (draw.random((RECORDS, 8, 8)) < 0.5)
        return {"image": ink.astype(np.float32)}
    return {
        "body": draw.uniform(*_BODY, (RECORDS, 4)).astype(np.float32),
        "serum": draw.uniform(*_SERUM, (RECORDS, 6)).astype(np.float32),
    }


@dataclass(frozen=True)
class Reference:
    """A model's records and TensorFlow's answers, as requests and answers of `/predict` have them."""

    inputs: dict[str, Array]
    outputs: dict[str, Array]

    def record(self, index: int) -> Any:
        """One record: bare for a model with one input."""
        values = {name: array[index] for name, array in self.inputs.items()}
        return next(iter(values.values())) if len(values) == 1 else values

    def instances(self, rows: Array) -> list[Any]:
        return [self.record(int(row)) for row in rows]

    def misses(self, rows: Array, predictions: list[Any]) -> list[str]:
        """What is wrong with the answers to `rows`; nothing, when all are TensorFlow's."""
        if len(predictions) != len(rows):
            return [f"{len(predictions)} answers to {len(rows)} records"]
        found = []
        for name, wanted in self.outputs.items():
            have = np.array([each[name] if len(self.outputs) > 1 else each for each in predictions], np.float64)
            if have.shape != wanted[rows].shape:
                found.append(f"{name}: shape {have.shape}")
                continue
            far = np.abs(have - wanted[rows]).max(initial=0) / np.abs(wanted).max()
            if not far <= _TOLERANCE:
                found.append(f"{name}: {far:.2g} of the scale away")
        return found


def read(path: Path) -> dict[str, Reference]:
    """What the program wrote, by model."""
    with np.load(path, allow_pickle=False) as arrays:
        return {name: Reference(records(name), dict(_outputs(arrays, name))) for name in FILES}


def _outputs(arrays: Any, name: str) -> Iterator[tuple[str, Array]]:
    for key in arrays.files:
        model, _, output = key.partition("/")
        if model == name:
            yield output, arrays[key]


def main(path: str) -> None:
    import keras

    answers: dict[str, Any] = {}
    for name, file in FILES.items():
        model = keras.models.load_model(file)
        inputs = records(name)
        outputs = model(inputs if len(inputs) > 1 else next(iter(inputs.values())))
        named = outputs if isinstance(outputs, dict) else {model.output_names[0]: outputs}
        answers |= {f"{name}/{output}": np.asarray(values) for output, values in named.items()}
    np.savez(path, **answers)


if __name__ == "__main__":
    main(sys.argv[1])
