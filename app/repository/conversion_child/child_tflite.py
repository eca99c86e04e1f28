"""TFLite's converter, and the variants of a model that it makes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from child_reference import Reference
from child_signature import Tensors

NONE, FLOAT16, DYNAMIC, INT8 = "none", "float16", "dynamic", "int8"

_MOST = 200


@dataclass(frozen=True)
class Calibration:
    """Records by which the ranges of int8 values are found.

    Attributes:
        source: `calibration` or `samples`, which the user gave, or `noise`.
    """

    source: str
    by_signature: dict[str, Tensors]


def calibration_of(found: list[Reference], given: Tensors | None) -> Calibration:
    """The user's own data for the default signature, else the user's samples, else noise for every signature."""
    name, records = found[0].signature.name, found[0].records
    if given:
        return Calibration("calibration", {name: {key: value[:_MOST] for key, value in given.items()}})
    if records.real:
        return Calibration("samples", {name: {key: value[: records.real] for key, value in records.tensors.items()}})
    return Calibration("noise", {each.signature.name: _quiet(each) for each in found})


def _quiet(reference: Reference) -> Tensors:
    """Records without those that would stretch every range."""
    return {key: value[: reference.rows - reference.records.loud] for key, value in reference.records.tensors.items()}


def to_tflite(
    tf: Any,
    saved: Path,
    keys: list[str],
    variant: str,
    stateful: bool,
    calibration: Calibration,
    found: list[Reference],
) -> bytes:
    """Convert signatures of a SavedModel; what TFLite lacks raises."""
    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved), signature_keys=keys)
    converter.experimental_enable_resource_variables = stateful
    if variant != NONE:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if variant == FLOAT16:
        converter.target_spec.supported_types = [tf.float16]
    if variant == INT8:
        batching = {each.signature.name: each.signature.batching for each in found}
        converter.representative_dataset = representative(calibration, keys, batching)
    try:
        content: bytes = converter.convert()
    except Exception as error:
        texts = any(spec.dtype == tf.string for each in found for spec in each.signature.inputs.values())
        if "TensorListReserve" not in str(error) or not texts:
            raise
        # The converter gives up at the first list, and has not looked yet at what texts need.
        converter._experimental_lower_tensor_list_ops = False
        content = converter.convert()
    return content


def representative(
    calibration: Calibration, keys: list[str], batching: dict[str, str]
) -> Callable[[], Iterator[tuple[str, Tensors]]]:
    """The records as the converter takes them: one by one, each with its signature's name."""

    def records() -> Iterator[tuple[str, Tensors]]:
        for key in keys:
            tensors = calibration.by_signature.get(key, {})
            for row in range(min((len(value) for value in tensors.values()), default=0)):
                whole = batching[key] == "none"
                yield key, {name: value[row] if whole else value[row : row + 1] for name, value in tensors.items()}

    return records
