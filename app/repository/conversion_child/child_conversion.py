"""One conversion, from the file to the report.

TensorFlow is imported in its course, after the first stage has been told. So no file of the child imports it, or what
comes with it, at its top: that would be before the limits are set.
"""

import contextlib
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from child_checks import check_file
from child_ladder import Ask, Climb, Ladder
from child_models import KerasModel, Model, load_saved_model
from child_reasons import Inexpressible, Refused, names_operations
from child_records import fitting, together
from child_reference import Reference, described, learn_shapes, references, timings, write_parity
from child_sandbox import READS, fence, readable
from child_saved import copy_alone
from child_signature import Tensors
from child_tflite import INT8, NONE, calibration_of


def convert(request: dict[str, Any], stage: Callable[[str], None], ask: Ask) -> dict[str, Any]:
    """Load, compute reference answers, and convert; the report.

    Raises:
        Refused: why nothing can be made of the model.
        Inexpressible: TensorFlow runs it, and TFLite does not.
    """
    source, out = Path(request["source"]), Path(request["out"])
    check_file(source, request["kind"])
    work = out / "work"
    work.mkdir()
    clock = Clock(stage)
    clock.next("importing TensorFlow")
    import tensorflow as tf

    # After the import, which finds its libraries wherever the system keeps them, and before TensorFlow has threads.
    data = [path for path in (request.get("calibration"), request.get("samples")) if path]
    fence(READS, [*readable(source, out), *data])
    clock.next(f"loading {source.name}")
    is_saved = request["kind"] == "saved_model"
    model = load_saved_model(tf, source, work) if is_saved else KerasModel(tf, source, work)
    clock.next("computing reference answers")
    model, found, given = answered(model, request)
    write_parity(found, out / "parity.npz")
    times = timings(model, found[0])
    clock.next("converting")
    calibration = calibration_of(found, given)
    ladder = Ladder(tf, model, found, calibration, out, work, ask, clock.within)
    climb = ladder.run(request["variants"])
    clock.next("")
    if not climb.done:
        variants = request["variants"]
        if variants and NONE not in variants and not names_operations(climb.reason):
            # It may be expressible but for what was asked of it.
            raise Refused(climb.reason)
        copy_alone(model.saved, out / "engine")
        shutil.rmtree(work)
        why = climb.reason if variants else "model.toml wants TensorFlow to run it"
        raise Inexpressible(why, engine_of(model, climb))
    shutil.rmtree(work)
    return {
        "tensorflow": tf.__version__,
        "keras": model.keras_version,
        "trained_in": model.trained_in,
        "stateful": model.stateful,
        "random": any(each.random for each in found),
        "inputs": list(model.default.inputs),
        "outputs": model.default.outputs,
        "signatures": described(found, [each for each in found if each.signature.name not in climb.left_out]),
        "signatures_left_out": model.left_out | climb.left_out,
        "aliases": model.aliases,
        "variants": climb.variants,
        "rungs_failed": climb.rungs_failed,
        "calibrated_with": calibration.source if INT8 in request["variants"] else None,
        "seconds": clock.seconds,
        "timings_us": times,
    }


def answered(model: Model, request: dict[str, Any]) -> tuple[Model, list[Reference], Tensors | None]:
    """The model in the form in which TensorFlow runs it, what it answers, and the user's calibration data."""
    try:
        learn_shapes(model)
        samples = None
        with contextlib.suppress(Refused):
            # The server says which of them it leaves out.
            samples = read(model, request.get("samples"), "samples")
        calibration = read(model, request.get("calibration"), "calibration data")
        return model, references(model, together(samples, calibration)), calibration
    except Refused:
        if not model.is_v1:
            raise
    return answered(model.v1_again(), request)


def read(model: Model, path: str | None, what: str) -> Tensors | None:
    """Records that the user gave for the default signature, `{input: [rows, *record]}`."""
    import numpy as np

    if path is None:
        return None
    with np.load(path, allow_pickle=False) as arrays:
        return fitting(model.default, dict(arrays), what)


def engine_of(model: Model, climb: Climb) -> dict[str, Any]:
    """What TensorFlow needs to serve the model from the folder `engine`."""
    signature = model.default
    specs = {
        name: (spec.dtype, spec.shape.as_list() if spec.shape.rank is not None else None)
        for name, spec in signature.inputs.items()
    }
    outputs = signature.function.structured_outputs
    shapes = dict(zip(signature.outputs, signature.output_shapes, strict=True))
    return {
        "kind": "v1" if model.is_v1_again else "saved_model",
        "saved_model": "engine",
        "signature": signature.name,
        "inputs": {name: tensor(dtype, shape) for name, (dtype, shape) in specs.items()},
        "outputs": {name: tensor(outputs[name].dtype, shapes[name]) for name in signature.outputs},
        "stateful": signature.keeps_state,
        "batching": signature.batching,
        "rungs_failed": climb.rungs_failed,
    }


def tensor(dtype: Any, shape: list[int | None] | None) -> dict[str, Any]:
    """A tensor as JSON: -1 for a free dimension, null for a shape of unknown rank."""
    return {"dtype": dtype.name, "shape": None if shape is None else [-1 if size is None else size for size in shape]}


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

    def within(self, name: str) -> None:
        """Tell of a part of the stage under way."""
        self._stage(name)
