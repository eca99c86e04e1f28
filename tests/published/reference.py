"""What the published models answer outside of Litepool: TensorFlow, or the plain interpreter for .tflite files.

TensorFlow stays out of the pytest process: run as `python -m tests.published.reference FOLDER OUT`, this writes the
answers to all records of all models in FOLDER, a models folder; `read` gives them to the tests.
"""

import json
import shutil
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from app.tensors import Array
from tests.published.catalogue import SERVED, Published
from tests.published.records import record, records

Run = Callable[[dict[str, Array]], dict[str, Array]]
"""A batch by input, to a batch by output."""


@dataclass(frozen=True)
class Reference:
    """A model's records of one size, and the right answers to them.

    Args:
        alone: the answers to each record on its own, `[rows, *record]` by output.
        batches: of each size of a batch, the answers to the first so many records together.
    """

    inputs: dict[str, Array]
    alone: dict[str, Array]
    batches: dict[int, dict[str, Array]]

    def record(self, row: int) -> Any:
        return record(self.inputs, row)


def read(model: Published, file: Path) -> dict[int, Reference]:
    """What the program wrote of a model, by size of its free dimensions."""
    found = {}
    with np.load(file, allow_pickle=False) as arrays:
        for size in model.sizes:
            answers: dict[int, dict[str, Array]] = {count: {} for count in (0, *model.batches)}
            for key in arrays.files:
                name, of, count, output = key.split("|")
                if (name, of) == (model.name, str(size)):
                    answers[int(count)][output] = arrays[key]
            found[size] = Reference(records(model, size), answers.pop(0), answers)
    return found


def _answers(model: Published, run: Run) -> dict[str, Array]:
    """By `model|size|batch|output`, where batch 0 is each record alone."""
    found: dict[str, Array] = {}
    for size in model.sizes:
        inputs = records(model, size)
        rows = [run({name: array[row : row + 1] for name, array in inputs.items()}) for row in range(model.rows)]
        alone = {output: np.concatenate([each[output] for each in rows]) for output in rows[0]}
        made = {0: alone}
        for count in model.batches:
            if model.one_by_one:
                made[count] = {output: array[:count] for output, array in alone.items()}
            else:
                made[count] = run({name: array[:count] for name, array in inputs.items()})
        for count, outputs in made.items():
            found |= {f"{model.name}|{size}|{count}|{output}": _plain(array) for output, array in outputs.items()}
    return found


def _plain(array: Array) -> Array:
    """Texts as NumPy keeps them without pickling."""
    return np.char.decode(array.astype("S"), "utf-8") if array.dtype == object else array


def _interpreter(path: Path) -> Run:
    from ai_edge_litert.interpreter import Interpreter

    def run(inputs: dict[str, Array]) -> dict[str, Array]:
        # A new one each time: some models keep what they have seen.
        interpreter = Interpreter(str(path), num_threads=1)
        details = interpreter.get_input_details()
        names = _names(interpreter, "inputs", details)
        for detail in details:
            interpreter.resize_tensor_input(detail["index"], inputs[names[detail["name"]]].shape)
        interpreter.allocate_tensors()
        for detail in details:
            interpreter.set_tensor(detail["index"], inputs[names[detail["name"]]])
        interpreter.invoke()
        details = interpreter.get_output_details()
        names = _names(interpreter, "outputs", details)
        return {names[detail["name"]]: interpreter.get_tensor(detail["index"]) for detail in details}

    return run


def _names(interpreter: Any, side: str, details: list[dict[str, Any]]) -> dict[str, str]:
    """Names in the signature by names of tensors, which are all there is without a signature."""
    signatures = interpreter._get_full_signature_list()
    if not signatures:
        return {detail["name"]: detail["name"] for detail in details}
    tensors = next(iter(signatures.values()))[side]
    indices = {index: name for name, index in tensors.items()}
    return {detail["name"]: indices[detail["index"]] for detail in details}


def _keras(path: Path) -> Run:
    import keras
    import tensorflow as tf

    with TemporaryDirectory() as folder:
        model = keras.models.load_model(_of_today(path, Path(folder)), compile=False)
    call = tf.function(model)

    def run(inputs: dict[str, Array]) -> dict[str, Array]:
        return {"output": call(next(iter(inputs.values())) if len(inputs) == 1 else inputs).numpy()}

    return run


def _of_today(path: Path, folder: Path) -> Path:
    """A copy of a file of Keras 2 that Keras 3 understands, and understands rightly.

    Keras 3 refuses `time_major`, even where it says what is so anyway. And of a sequential model whose first layer has
    the shape of the input, as early files have it, it takes the batch for a dimension of the record.
    """
    import h5py

    if path.suffix == ".keras":
        return path
    copy = folder / path.name
    shutil.copyfile(path, copy)
    with h5py.File(copy, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        layers = config["config"]["layers"]
        for layer in layers:
            assert not layer["config"].pop("time_major", False)
        first = layers[0]["config"]
        if config["class_name"] == "Sequential" and layers[0]["class_name"] != "InputLayer":
            shape = first.pop("batch_input_shape")
            about = {"name": f"{first['name']}_input", "batch_input_shape": shape, "dtype": "float32"}
            layers.insert(0, {"class_name": "InputLayer", "config": about})
        del file.attrs["model_config"]
        file.attrs["model_config"] = json.dumps(config).encode()
    return copy


def _saved_model(path: Path) -> Run:
    import tensorflow as tf

    try:
        loaded = tf.saved_model.load(path)
    except AttributeError:
        return _session(path)
    call = loaded.signatures["serving_default"]

    def run(inputs: dict[str, Array]) -> dict[str, Array]:
        return {name: tensor.numpy() for name, tensor in call(**_constants(inputs)).items()}

    def _constants(inputs: dict[str, Array]) -> dict[str, Any]:
        return {name: tf.constant(array.tolist() if array.dtype == object else array) for name, array in inputs.items()}

    return run


def _session(path: Path) -> Run:
    """A SavedModel as TensorFlow 1 loads it, which looks at nothing but its graph."""
    import tensorflow as tf

    session = tf.compat.v1.Session(graph=tf.Graph())
    with session.graph.as_default():
        signature = tf.compat.v1.saved_model.load(session, ["serve"], str(path)).signature_def["serving_default"]
    fetched = {name: info.name for name, info in signature.outputs.items()}

    def run(inputs: dict[str, Array]) -> dict[str, Array]:
        found = session.run(fetched, {signature.inputs[name].name: array for name, array in inputs.items()})
        return dict(found)

    return run


def main(folder: str, out: str) -> None:
    # Keras would rather have every input in the structure that the file remembers.
    warnings.filterwarnings("ignore", category=UserWarning, module="keras")
    found: dict[str, Any] = {}
    for model in SERVED:
        path = Path(folder) / model.name / model.file
        if not path.exists():
            continue
        load = _interpreter if not model.tensorflow else _saved_model if model.format == "SavedModel" else _keras
        found |= _answers(model, load(path))
    np.savez(out, **found)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
