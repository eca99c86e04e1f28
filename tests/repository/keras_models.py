"""Makes the models that the slow tests of the repository convert. A program of its own, for it imports TensorFlow.

    python keras_models.py FOLDER

In FOLDER/good lie models, and beside each, by the same name, an `.npz` file of named inputs (`in NAME`) and of what
TensorFlow itself answers to them (`out NAME`). In FOLDER/bad lie models that nobody should serve; FOLDER/marks/<name>
shows that the code in the bad model <name> runs wherever it is let.
"""

import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

ROWS = 5

Tensors = dict[str, Any]


def main(folder: Path) -> None:
    keras.utils.set_random_seed(7)
    for name in ("good", "bad", "marks"):
        (folder / name).mkdir(parents=True)
    make_keras(folder / "good")
    make_saved_models(folder / "good")
    make_bad_keras(folder)
    make_bad_saved_models(folder)


# Models to serve


def make_keras(good: Path) -> None:
    dense = keras.Sequential(
        [
            keras.Input((8,), name="features"),
            keras.layers.Dense(16, activation="elu", kernel_initializer="he_normal"),
            keras.layers.Dense(3, activation="softmax", name="scores"),
        ]
    )
    dense.save(good / "sequential.keras")
    keep(good, "sequential.keras", dense, {"features": noise(8)}, ["scores"])
    dense.export(str(good / "exported"), verbose=False)
    keep(good, "exported", dense, {"features": noise(8)}, ["output_0"])

    wide = keras.Sequential([keras.Input((64,), name="x"), keras.layers.Dense(64, name="y")])
    for quantization in ("float16", "dynamic", "strict"):
        (good / quantization).mkdir()
        wide.save(good / quantization / "wide.keras")
        keep(good, quantization, wide, {"x": noise(64)}, ["y"])

    image = keras.Input((6, 6, 2), name="image")
    plane = keras.layers.Conv2D(4, 3, activation="relu")(image)
    conv = keras.Model(image, keras.layers.Dense(2, name="sides")(keras.layers.Flatten()(plane)))
    # Keras itself knows suffixes in small letters only.
    conv.save(good / "conv.keras")
    (good / "conv.keras").rename(good / "conv.KERAS")
    keep(good, "conv.KERAS", conv, {"image": noise(6, 6, 2)}, ["sides"])

    words = keras.Input((4,), dtype="int32", name="words")
    embedded = keras.layers.Flatten()(keras.layers.Embedding(10, 3)(words))
    embedding = keras.Model(words, keras.layers.Dense(2, name="topic")(embedded))
    embedding.save(good / "embedding.keras")
    ids = np.random.default_rng(3).integers(0, 10, (ROWS, 4)).astype(np.int32)
    keep(good, "embedding.keras", embedding, {"words": ids}, ["topic"])

    picture = keras.Input((None, None, 3), name="picture")
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3, padding="same")(picture))
    free = keras.Model(picture, keras.layers.Dense(2, name="kind")(pooled))
    free.save(good / "free_inner.keras")
    keep(good, "free_inner.keras", free, {"picture": noise(9, 7, 3)}, ["kind"])

    series = keras.Input(batch_shape=(1, 5, 2), name="series")
    lstm = keras.Model(series, keras.layers.Dense(2, name="next")(keras.layers.LSTM(3)(series)))
    lstm.save(good / "lstm_of_one.keras")
    values = noise(5, 2)
    arrays = {"in series": values, "out next": [np.asarray(lstm(row[np.newaxis]))[0] for row in values]}
    np.savez(good / "lstm_of_one.keras.npz", allow_pickle=False, **arrays)

    make_several(good)


def make_several(good: Path) -> None:
    """Two inputs whose places, if taken for each other, fit; outputs of one shape, in no alphabetical order."""
    left, right = keras.Input((3,), name="left"), keras.Input((3,), name="right")
    total = keras.layers.Add(name="total")([left, right])
    difference = keras.layers.Subtract(name="difference")([left, right])
    tensors = {"right": noise(3), "left": noise(3, seed=1)}
    as_list = keras.Model([right, left], [total, difference])
    as_list.save(good / "several_list.keras")
    keep(good, "several_list.keras", as_list, tensors, ["total", "difference"])
    as_list.save(good / "old.h5")
    (good / "old.h5").rename(good / "old.HDF5")
    keep(good, "old.HDF5", as_list, tensors, ["total", "difference"])
    as_dict = keras.Model({"right": right, "left": left}, {"total": total, "difference": difference})
    as_dict.save(good / "several_dict.keras")
    keep(good, "several_dict.keras", as_dict, tensors, ["total", "difference"])
    aliases = keras.Model({"a": left, "b": right}, {"sum": total, "minus": difference})
    aliases.save(good / "aliases.keras")
    # An input goes by its own name, and not by its key.
    keyed = {"a": tensors["left"], "b": tensors["right"]}
    keep(good, "aliases.keras", aliases, keyed, ["sum", "minus"], {"a": "left", "b": "right"})
    # One layer called twice: its name cannot be that of both outputs.
    twice = keras.layers.Dense(2, name="twice")
    shared = keras.Model([left, right], [twice(left), twice(right)])
    shared.save(good / "shared.keras")
    keep(good, "shared.keras", shared, tensors, ["output_0", "output_1"])


class Scaler(tf.Module):  # type: ignore[misc]
    """Two signatures, so that serving the wrong one is seen."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = tf.Variable([2.0, 3.0])

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")])  # type: ignore[untyped-decorator]
    def scale(self, x: Any) -> Tensors:
        return {"scaled": x * self.factor}

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="z")])  # type: ignore[untyped-decorator]
    def negate(self, z: Any) -> Tensors:
        return {"negated": -z}


def make_saved_models(good: Path) -> None:
    scaler = Scaler()
    values = noise(2)
    arrays = {"in x": values, "out scaled": scaler.scale(tf.constant(values))["scaled"].numpy()}
    both = {"negate": scaler.negate, "serving_default": scaler.scale}
    tf.saved_model.save(scaler, str(good / "module"), signatures=both)
    np.savez(good / "module.npz", allow_pickle=False, **arrays)


def noise(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal((ROWS, *shape)).astype(np.float32)


def keep(
    good: Path, name: str, model: Any, inputs: Tensors, outputs: list[str], renamed: dict[str, str] | None = None
) -> None:
    """Write what the model answers."""
    result = model(inputs if len(inputs) > 1 else next(iter(inputs.values())), training=False)
    answers = result if isinstance(result, dict) else dict(zip(outputs, tf.nest.flatten(result), strict=True))
    arrays = {f"in {(renamed or {}).get(key, key)}": value for key, value in inputs.items()}
    arrays |= {f"out {key}": np.asarray(answers[key]) for key in outputs}
    np.savez(good / f"{name}.npz", allow_pickle=False, **arrays)


# Models to refuse


@keras.saving.register_keras_serializable(package="Ours")
class Doubled(keras.layers.Layer):  # type: ignore[misc]
    def call(self, inputs: Any) -> Any:
        return inputs * 2


def make_bad_keras(folder: Path) -> None:
    bad = folder / "bad"
    for file in ("lambda.keras", "lambda.h5"):
        make_lambda(bad / file, folder / "marks" / file)
    custom = keras.Sequential([keras.Input((2,)), Doubled()])
    custom.save(bad / "custom.keras")
    custom.save(bad / "custom.h5")
    text = keras.Input((1,), dtype="string", name="words")
    found = keras.layers.StringLookup(vocabulary=["a", "b"])(text)
    keras.Model(text, keras.layers.Embedding(4, 2)(found)).save(bad / "strings.keras")
    keras.Sequential([keras.Input((None, 2)), keras.layers.LSTM(3)]).save(bad / "lstm.keras")
    plain = keras.Input((2,), name="x")
    keras.Model(plain, keras.layers.Dense(1, name="out a")(plain)).save(bad / "odd_layer.keras")
    odd = [keras.Input((2,), name="one-two"), keras.Input((2,), name="three four")]
    keras.Model(odd, keras.layers.Add()(odd)).save(bad / "odd_names.keras")


def make_lambda(path: Path, mark: Path) -> None:
    """A layer whose code makes a file. Without safe mode, loading the model shows that it does."""
    code = f"lambda x: (__import__('pathlib').Path({str(mark)!r}).touch(), x)[1]"
    keras.Sequential([keras.Input((2,)), keras.layers.Lambda(eval(code))]).save(path)
    mark.unlink()
    keras.saving.load_model(path, safe_mode=False)(np.zeros((1, 2), np.float32))
    assert mark.is_file()


def make_bad_saved_models(folder: Path) -> None:
    spec = tf.TensorSpec([None, 2], tf.float32, name="x")
    secret = folder / "secret"
    secret.write_text("1.0")

    def touches_files(x: Any) -> Any:
        written = tf.io.write_file(str(folder / "written"), "")
        printed = tf.print("x", output_stream=f"file://{folder / 'printed'}")
        with tf.control_dependencies([written, printed]):
            return x + tf.strings.to_number(tf.io.read_file(str(secret)))

    def runs_python(x: Any) -> Any:
        return tf.ensure_shape(tf.numpy_function(lambda value: value, [x], tf.float32), [None, 2])

    def needs_other_ops(x: Any) -> Any:
        return tf.linalg.inv(tf.math.erfinv(x))

    for function in (touches_files, runs_python):
        save_function(folder / "bad" / function.__name__, function, spec)
    save_function(folder / "bad" / "other_ops", needs_other_ops, tf.TensorSpec([2, 2], tf.float32, name="x"))

    scaler = Scaler()
    signatures = {"scale": scaler.scale, "negate": scaler.negate}
    tf.saved_model.save(scaler, str(folder / "bad" / "undecided"), signatures=signatures)
    tf.saved_model.save(tf.Module(), str(folder / "bad" / "no_signature"))


def save_function(path: Path, function: Any, spec: Any) -> None:
    module = tf.Module()
    module.serve = tf.function(function, input_signature=[spec])
    signature = tf.function(lambda x: {"y": module.serve(x)}, input_signature=[spec])
    tf.saved_model.save(module, str(path), signatures=signature)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
