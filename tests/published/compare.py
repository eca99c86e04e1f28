"""How far answers are from the right ones."""

from typing import Any

import numpy as np

from app.tensors import Array
from tests.published.reference import Reference

_LEAST = 1e-3
"""Of the scale that an output usually has: a row that is nearly zero everywhere is measured against this much."""


def worst(reference: Reference, right: dict[str, Array], rows: list[int], predictions: list[Any]) -> float:
    """The largest difference of the answers to `rows`, relative to the largest absolute value of its row.

    Infinite where an answer has another form, or where numbers that are not finite, texts or integers are others.

    Args:
        right: the answers by output, `[len(rows), *record]`.
        predictions: as `/predict` gives them.
    """
    if len(predictions) != len(rows):
        return np.inf
    found = 0.0
    for name, wanted in right.items():
        values = [_output(each, name, len(right)) for each in predictions]
        found = max(found, _differ(values, wanted, _scale(reference.alone[name])))
    return found


def _output(prediction: Any, name: str, outputs: int) -> Any:
    if outputs == 1:
        return prediction
    return prediction.get(name) if isinstance(prediction, dict) else None


def _scale(alone: Array) -> float:
    """What the largest value of a row usually is."""
    if alone.dtype.kind != "f":
        return 1.0
    sizes = np.abs(np.where(np.isfinite(alone), alone, 0)).reshape(len(alone), -1).max(1, initial=0)
    return float(np.median(sizes))


def _differ(values: list[Any], wanted: Array, scale: float) -> float:
    if wanted.dtype.kind != "f":
        return 0.0 if np.array(values).tolist() == wanted.tolist() else np.inf
    try:
        given = np.array(values)
        if given.dtype.kind not in "iufO" or any(isinstance(each, str) for each in given.flat):
            return np.inf
        # `/predict` writes null for what is not finite.
        have = given.astype(np.float64).astype(wanted.dtype).astype(np.float64)
    except (TypeError, ValueError):
        return np.inf
    finite = np.isfinite(wanted)
    if have.shape != wanted.shape or not np.array_equal(np.isfinite(have), finite):
        return np.inf
    far = np.where(finite, np.abs(np.where(finite, have, 0) - np.where(finite, wanted, 0)), 0)
    largest = np.abs(np.where(finite, wanted, 0)).reshape(len(wanted), -1).max(1, initial=0)
    allowed = np.maximum(np.maximum(largest, _LEAST * scale), np.finfo(np.float32).tiny)
    return float((far.reshape(len(wanted), -1).max(1, initial=0) / allowed).max(initial=0))
