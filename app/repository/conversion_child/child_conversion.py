"""One conversion, from the file to the report.

TensorFlow is imported in its course, after the first stage has been told. So no file of the child imports it, or what
comes with it, at its top: that would be before the limits are set.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from child_checks import check_file
from child_models import KerasModel, Model, SavedModel
from child_reasons import Refused
from child_reference import write_parity
from child_sandbox import READS, fence, readable


def convert(request: dict[str, Any], stage: Callable[[str], None]) -> dict[str, Any]:
    """Load, convert, and compute reference answers."""
    source, out = Path(request["source"]), Path(request["out"])
    check_file(source, request["kind"])
    clock = Clock(stage)
    clock.next("importing TensorFlow")
    import tensorflow as tf

    # After the import, which finds its libraries wherever the system keeps them, and before TensorFlow has threads.
    fence(READS, readable(source, out))
    clock.next(f"loading {source.name}")
    model: Model = SavedModel(tf, source) if request["kind"] == "saved_model" else KerasModel(tf, source, out)
    check_inputs(model)
    clock.next("converting")
    content = to_tflite(tf, model, request["quantization"])
    (out / "model.tflite").write_bytes(content)
    clock.next("computing reference answers")
    timings = write_parity(model, out / "parity.npz")
    clock.next("")
    return {
        "tensorflow": tf.__version__,
        "keras": model.keras_version,
        "bytes": len(content),
        "inputs": list(model.inputs),
        "outputs": model.outputs,
        "seconds": clock.seconds,
        "timings_us": timings,
    }


class Clock:
    """Tells each stage as it begins, and keeps the seconds that each took."""

    def __init__(self, stage: Callable[[str], None]) -> None:
        self.seconds: dict[str, float] = {}
        self._stage = stage
        self._current = ""
        self._since = time.monotonic()

    def next(self, name: str) -> None:
        now = time.monotonic()
        if self._current:
            self.seconds[self._current.split()[0]] = round(now - self._since, 2)
        self._current, self._since = name, now
        if name:
            self._stage(name)


def check_inputs(model: Model) -> None:
    """Refuse what could be converted and not be served."""
    import numpy as np

    for name, spec in model.inputs.items():
        if np.dtype(spec.dtype.as_numpy_dtype).kind not in "fiub":
            raise Refused(f"input {name!r} holds {spec.dtype.name} values, which are not served: feed it numbers")


def to_tflite(tf: Any, model: Model, quantization: str) -> bytes:
    """Convert the saved model's one signature."""
    converter = tf.lite.TFLiteConverter.from_saved_model(str(model.saved), signature_keys=[model.signature])
    if quantization in ("dynamic", "float16"):
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantization == "float16":
        converter.target_spec.supported_types = [tf.float16]
    content: bytes = converter.convert()
    return content
