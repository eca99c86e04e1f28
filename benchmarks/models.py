"""The models that every server is measured with, their records, and the answers that are right.

Both are built once into the cache by `benchmarks.convert`, which runs in a process of its own: this one never imports
TensorFlow. The right answers are the TFLite interpreter's, in a process with nothing else in it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from benchmarks.paths import CACHE, PACKAGE, ROOT

Floats = NDArray[np.float32]
VARIANTS = ("float32", "int8")


@dataclasses.dataclass(frozen=True)
class Model:
    """A model to measure with.

    `batches` are the sizes of the client's own batches, `rates` the arrivals per second that the open loop may try.
    """

    name: str
    record: tuple[int, ...]
    outputs: int
    batches: tuple[int, int]
    rates: tuple[int, ...]
    about: str

    @property
    def keras(self) -> Path:
        return ROOT / "models" / "mlp.keras" if self.name == "mlp" else CACHE / "models" / f"{self.name}.keras"

    def tflite(self, variant: str) -> Path:
        return CACHE / "models" / f"{self.name}.{variant}.tflite"


MLP = Model(
    name="mlp",
    record=(256,),
    outputs=32,
    batches=(32, 256),
    rates=(5, 10, 20, 50, 100, 200, 500, 1000, 2000, 4000, 8000, 12000, 16000, 20000, 24000, 32000, 40000, 50000),
    about="256 floats to 32, dense layers",
)
CONV = Model(
    name="conv",
    record=(96, 96, 3),
    outputs=10,
    batches=(8, 32),
    rates=(2, 5, 10, 20, 30, 40, 50, 60, 80, 100, 120, 160, 200, 300, 400),
    about="a picture of 96x96x3 to 10 floats, convolutions",
)
MODELS = {model.name: model for model in (MLP, CONV)}


def prepare(model: Model) -> None:
    """Build what of the model is not in the cache yet; again when its Keras file has changed."""
    stamp = CACHE / "models" / f"{model.name}.stamp"
    wanted = [model.keras, *(model.tflite(variant) for variant in VARIANTS)]
    if all(path.exists() for path in wanted) and stamp.exists() and stamp.read_text() == fingerprint(model):
        return
    stamp.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, "-m", "benchmarks.convert", model.name], cwd=ROOT, check=True)
    stamp.write_text(fingerprint(model))


def fingerprint(model: Model) -> str:
    """What the cached files were made of, and by what."""
    return hashlib.sha256(model.keras.read_bytes() + (PACKAGE / "convert.py").read_bytes()).hexdigest()


def records(model: Model, count: int) -> Floats:
    """Records that are unlike each other, so that an answer given to the wrong one shows.

    Rounded to 4 decimals, because that is the text people send; float32 holds what that text says.
    """
    random = np.random.default_rng(20240229)
    if len(model.record) == 1:
        return np.asarray(random.uniform(-1, 1, (count, *model.record)).round(4), np.float32)
    rows, columns, channels = model.record
    down, across = np.meshgrid(np.linspace(0, 1, rows), np.linspace(0, 1, columns), indexing="ij")
    waves, phase = random.uniform(2, 40, (2, count, 1, 1)), random.uniform(0, 6, (count, 1, 1))
    pattern = np.sin(waves[0] * down + waves[1] * across + phase)[..., None]
    level, contrast = random.uniform(0.2, 0.8, (count, 1, 1, channels)), random.uniform(0, 0.5, (count, 1, 1, channels))
    noise = random.uniform(-0.1, 0.1, (count, rows, columns, channels))
    return np.asarray((level + contrast * pattern + noise).clip(0, 1).round(4), np.float32)


class Reference:
    """The interpreter itself, one thread: what a right answer is, and what the invoke alone costs. For one thread."""

    def __init__(self, path: Path) -> None:
        self._interpreter = Interpreter(model_path=str(path), num_threads=1)
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._output = self._interpreter.get_output_details()[0]["index"]

    def load(self, batch: Floats) -> None:
        self._interpreter.resize_tensor_input(self._input, batch.shape)
        self._interpreter.allocate_tensors()
        self._interpreter.set_tensor(self._input, batch)

    def invoke(self) -> None:
        self._interpreter.invoke()

    def answer(self, batch: Floats) -> Floats:
        self.load(batch)
        self.invoke()
        return np.array(self._interpreter.get_tensor(self._output), dtype=np.float32)
