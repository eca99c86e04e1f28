"""Makes the models that the slow tests of the repository convert. A program of its own, for it imports TensorFlow.

    python keras_models.py FOLDER

In FOLDER/good and FOLDER/ladder lie models, and beside most, by the same name, an `.npz` file of named inputs (`in
NAME`) and of what TensorFlow itself answers to them (`out NAME`). In FOLDER/bad lie models that nobody should serve;
FOLDER/marks/<name> shows that the code in the bad model <name> runs wherever it is let.
"""

import json
import sys
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

ROWS = 5

Tensors = dict[str, Any]


def main(folder: Path) -> None:
    keras.utils.set_random_seed(7)
    for name in ("good", "bad", "marks", "ladder"):
        (folder / name).mkdir(parents=True)
    make_keras(folder / "good")
    make_saved_models(folder / "good")
    make_bad_keras(folder)
    make_bad_saved_models(folder)
    make_recurrent(folder / "ladder")
    make_mended(folder / "ladder")
    make_mixed(folder / "ladder")
    make_functions(folder / "ladder")
    make_vocabularies(folder / "ladder")
    make_v1(folder / "ladder")


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

    text = keras.Input((1,), dtype="string", name="words")
    found = keras.layers.StringLookup(vocabulary=["a", "b"])(text)
    meaning = keras.Model(text, keras.layers.Embedding(4, 2, "he_normal", name="meaning")(found))
    meaning.save(good / "strings.keras")
    keep(good, "strings.keras", meaning, {"words": np.array([[b"a"], [b"b"], [b"other"], [b""]])}, ["meaning"])

    steps = keras.Input((None, 2), name="steps")
    recurrent = keras.Model(steps, keras.layers.LSTM(3, name="last")(steps))
    recurrent.save(good / "lstm.keras")
    keep(good, "lstm.keras", recurrent, {"steps": noise(7, 2)}, ["last"])

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
    tf.saved_model.save(scaler, str(good / "undecided"), signatures={"scale": scaler.scale, "negate": scaler.negate})
    np.savez(good / "undecided.npz", allow_pickle=False, **{"in z": values, "out negated": -values})

    def needs_other_ops(x: Any) -> Any:
        return tf.linalg.inv(tf.math.erfinv(x))

    save_function(good / "other_ops", needs_other_ops, tf.TensorSpec([2, 2], tf.float32, name="x"))
    squares = np.random.default_rng(5).uniform(-0.9, 0.9, (ROWS, 2, 2)).astype(np.float32)
    arrays = {"in x": squares, "out y": [needs_other_ops(square).numpy() for square in squares]}
    np.savez(good / "other_ops.npz", allow_pickle=False, **arrays)


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


# Models for the rungs of the conversion's ladder, and for TensorFlow itself


def make_recurrent(ladder: Path) -> None:
    layers = keras.layers
    series = keras.Input((5, 2), name="series")
    lstm = keras.Model(series, layers.Dense(2, name="next")(layers.LSTM(3)(layers.Masking()(series))))
    masked = noise(5, 2)
    masked[:, 3:] = 0
    lstm.save(ladder / "lstm.keras")
    keep(ladder, "lstm.keras", lstm, {"series": masked}, ["next"])

    free = keras.Input((None, 2), name="series")
    gru = keras.Model(free, layers.Dense(2, name="next")(layers.GRU(3)(layers.Masking()(free))))
    gru.export(str(ladder / "gru"), verbose=False)
    keep(ladder, "gru", gru, {"series": masked}, ["output_0"])

    words = keras.Input((None,), dtype="int32", name="words")
    read = layers.Bidirectional(layers.LSTM(3))(layers.Embedding(20, 4, mask_zero=True)(words))
    both_ways = keras.Model(words, layers.Dense(2, name="topic")(read))
    both_ways.save(ladder / "bidirectional.keras")
    ids = np.random.default_rng(3).integers(1, 20, (ROWS, 6)).astype(np.int32)
    ids[:, 4:] = 0
    keep(ladder, "bidirectional.keras", both_ways, {"words": ids}, ["topic"])

    plain = keras.Model(series, layers.Dense(2, name="next")(layers.LSTM(3)(series)))
    plain.save(ladder / "legacy.h5")
    keep(ladder, "legacy.h5", plain, {"series": noise(5, 2)}, ["next"])
    with h5py.File(ladder / "legacy.h5", "r+") as file:
        config = json.loads(file.attrs["model_config"])
        (layer,) = (each for each in config["config"]["layers"] if each["class_name"] == "LSTM")
        layer["config"]["time_major"] = False
        file.attrs["model_config"] = json.dumps(config)

    # Two inputs and two outputs, in no alphabetical order, of which one is a state.
    state = keras.Input((3,), name="before")
    steps, last = layers.GRU(3, return_sequences=True, return_state=True)(series, initial_state=state)
    decoder = keras.Model([series, state], [layers.Dense(2, name="steps")(steps), layers.Dense(3, name="after")(last)])
    decoder.save(ladder / "decoder.keras")
    keep(ladder, "decoder.keras", decoder, {"series": noise(5, 2), "before": noise(3)}, ["steps", "after"])

    every = layers.TimeDistributed(layers.Dense(2), name="each")(layers.GRU(3, return_sequences=True)(free))
    each_step = keras.Model(free, every)
    each_step.save(ladder / "each_step.keras")
    keep(ladder, "each_step.keras", each_step, {"series": noise(16, 2)}, ["each"])

    text = keras.Input((1,), dtype="string", name="words")
    found = layers.StringLookup(vocabulary=["a", "b"])(text)
    keras.Model(text, layers.Embedding(4, 2)(found)).save(ladder / "vocabulary.keras")


def make_mended(ladder: Path) -> None:
    """What Keras, or a loader, trips over though there is nothing wrong with the model."""
    layers = keras.layers
    series = keras.Input((5, 2), name="series")
    cells = layers.RNN([layers.LSTMCell(3, dropout=0.4), layers.GRUCell(2, recurrent_dropout=0.4)])
    dropping = keras.Model(series, layers.Dense(2, name="next")(layers.Bidirectional(cells)(series)))
    dropping.save(ladder / "dropping.keras")
    keep(ladder, "dropping.keras", dropping, {"series": noise(5, 2)}, ["next"])
    kept = keras.Model(series, layers.LSTM(3, dropout=0.4, name="next")(series, training=True))
    kept.save(ladder / "dropping_on.keras")

    first = keras.Sequential([keras.Input((5, 2), name="dense_input"), layers.Dense(3), layers.Dense(2, name="next")])
    first.save(ladder / "shapely.h5")
    keep(ladder, "shapely.h5", first, {"dense_input": noise(5, 2)}, ["next"])
    with h5py.File(ladder / "shapely.h5", "r+") as file:
        config = json.loads(file.attrs["model_config"])
        stack = config["config"]["layers"]
        # As Keras 2 wrote a sequence whose first layer was given the shape of the input.
        del stack[0]
        stack[0]["config"] |= {"name": "dense", "dtype": "float32", "batch_input_shape": [None, 5, 2]}
        del config["config"]["build_input_shape"]
        file.attrs["model_config"] = json.dumps(config)


def make_mixed(ladder: Path) -> None:
    """Variables in 32 bits, and what is computed with them in 16."""
    layers = keras.layers
    keras.mixed_precision.set_global_policy("mixed_float16")
    picture = keras.Input((6, 6, 2), name="picture")
    inner = keras.Sequential([layers.Conv2D(4, 3, activation="relu"), layers.BatchNormalization(), layers.Flatten()])
    mixed = keras.Model(picture, layers.Dense(3, activation="softmax", name="kind")(inner(picture)))
    keras.mixed_precision.set_global_policy("float32")
    mixed.save(ladder / "mixed.keras")
    keep(ladder, "mixed.keras", mixed, {"picture": noise(6, 6, 2)}, ["kind"])


def make_vocabularies(ladder: Path) -> None:
    """Tables that are filled from a file among the assets."""
    vocabulary = ladder / "vocabulary.txt"
    vocabulary.write_text("a\nb\n")
    module = tf.Module()
    lines = tf.lookup.TextFileInitializer(
        str(vocabulary), tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER
    )
    module.table = tf.lookup.StaticHashTable(lines, -1)
    spec = tf.TensorSpec([None], tf.string, name="word")
    serve = tf.function(lambda word: {"id": module.table.lookup(word)}, input_signature=[spec])
    tf.saved_model.save(module, str(ladder / "asset"), signatures={"serving_default": serve})
    # What was loaded calls what was saved: the file's name is handed through two functions.
    again = tf.saved_model.load(str(ladder / "asset"))
    tf.saved_model.save(again, str(ladder / "asset_again"), signatures=again.signatures)

    v1 = tf.compat.v1
    with v1.Session(graph=tf.Graph()) as session:
        word = v1.placeholder(tf.string, [None], name="word")
        lines = tf.lookup.TextFileInitializer(
            str(vocabulary),
            tf.string,
            tf.lookup.TextFileIndex.WHOLE_LINE,
            tf.int64,
            tf.lookup.TextFileIndex.LINE_NUMBER,
        )
        found = tf.lookup.StaticHashTable(lines, -1).lookup(word)
        found += v1.get_local_variable("offset", initializer=tf.constant(5, tf.int64))
        session.run([v1.tables_initializer(), v1.local_variables_initializer()])
        builder = v1.saved_model.Builder(str(ladder / "v1_asset"))
        builder.add_meta_graph_and_variables(
            session,
            ["serve"],
            signature_def_map={
                "serving_default": v1.saved_model.signature_def_utils.predict_signature_def(
                    {"word": word}, {"id": found}
                )
            },
            assets_collection=[session.graph.get_tensor_by_name("asset_path:0")],
            main_op=v1.tables_initializer(),
        )
        builder.save()
    # The copies among the assets are what counts.
    vocabulary.write_text("b\na\n")


def add_slot(saved: Path) -> None:
    """Note down a variable of an optimizer's, as of one whose class the loader does not know."""
    proto = saved_model_pb2.SavedModel()
    proto.ParseFromString((saved / "saved_model.pb").read_bytes())
    nodes = proto.meta_graphs[0].object_graph_def.nodes
    variable = next(number for number, node in enumerate(nodes) if node.HasField("variable"))
    nodes[0].slot_variables.add(
        original_variable_node_id=variable, slot_name="momentum", slot_variable_node_id=variable
    )
    (saved / "saved_model.pb").write_bytes(proto.SerializeToString())


class Functions(tf.Module):  # type: ignore[misc]
    """One signature each."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = tf.Variable(np.arange(12, dtype=np.float32).reshape(4, 3))
        self.square = tf.Variable(noise(64)[:1].T @ noise(64, seed=1)[:1])
        self.odd = tf.Variable(np.ones((2, 3), np.float32), shape=tf.TensorShape(None))
        self.total = tf.Variable([0.0, 0.0])
        pairs = tf.lookup.KeyValueTensorInitializer(tf.constant(["a", "b"]), tf.constant([1, 2], tf.int64))
        self.table = tf.lookup.StaticHashTable(pairs, -1)

    def picked(self, x: Any, b: Any) -> Tensors:
        # TFLite's converter has no such operation on a variable, and has it on a constant.
        return {"z": tf.gather_nd(self.rows, x[:, None]), "a": tf.gather(self.rows, b)}

    def counted(self, x: Any) -> Tensors:
        return {"total": self.total.assign_add(tf.reduce_sum(x, 0)), "y": x * 2.0}

    def shapeless(self, x: Any) -> Tensors:
        return {"y": tf.matmul(x, self.odd)}

    def looked_up(self, word: Any) -> Tensors:
        return {"id": self.table.lookup(word)}

    def lower(self, word: Any) -> Tensors:
        return {"low": tf.strings.lower(word)}

    def found(self, x: Any) -> Tensors:
        # As many answers as there are values above 0, whatever the records.
        return {"y": tf.where(x > 0)}

    def counted_up(self, x: Any) -> Tensors:
        return {"y": tf.range(x)}

    def in_double(self, x: Any) -> Tensors:
        return {"y": tf.matmul(x, tf.ones([2, 2], tf.float64))}

    def shaken(self, x: Any) -> Tensors:
        return {"y": x + tf.random.uniform(tf.shape(x))}

    def squared(self, x: Any) -> Tensors:
        return {"y": tf.nn.relu(tf.matmul(x, self.square))}

    def doubled(self, x: Any) -> Tensors:
        return {"twice": x * 2.0}


def make_functions(ladder: Path) -> None:
    module = Functions()
    pair, wide = tf.TensorSpec([None, 2], tf.float32, name="x"), tf.TensorSpec([None, 64], tf.float32, name="x")
    ids, words = tf.TensorSpec([None], tf.int32), tf.TensorSpec([None], tf.string, name="word")
    specs = {"picked": [ids, ids], "looked_up": [words], "lower": [words], "squared": [wide]}
    specs |= {"counted_up": [tf.TensorSpec([], tf.int32)], "in_double": [tf.TensorSpec([None, 2], tf.float64)]}
    made = {}
    names = ["picked", "counted", "shapeless", "looked_up", "lower", "shaken", "squared", "doubled"]
    for name in [*names, "found", "counted_up", "in_double"]:
        made[name] = tf.function(getattr(module, name), input_signature=specs.get(name, [pair]))
        tf.saved_model.save(module, str(ladder / name), signatures={"serving_default": made[name]})
    tf.saved_model.save(module, str(ladder / "slotted"), signatures={"serving_default": made["squared"]})
    add_slot(ladder / "slotted")
    several = {"serving_default": made["shapeless"], "again": made["shapeless"], "doubled": made["doubled"]}
    several |= {"counted": made["counted"], "lower": made["lower"]}
    tf.saved_model.save(module, str(ladder / "several"), signatures=several)
    rows = np.array([3, 0, 2, 1, 2], np.int32)
    answers = module.picked(tf.constant(rows), tf.constant(rows[::-1]))
    arrays = {"in x": rows, "in b": rows[::-1], "out z": answers["z"], "out a": answers["a"]}
    np.savez(ladder / "picked.npz", allow_pickle=False, **arrays)


def make_v1(ladder: Path) -> None:
    """As TensorFlow 1 wrote them."""
    v1 = tf.compat.v1
    save_v1(ladder / "v1_plain", lambda x, w: tf.nn.relu(x @ w))
    save_v1(ladder / "v1_tagged", lambda x, w: tf.nn.relu(x @ w), ("serve", "gpu"), "to_score")
    v1.disable_control_flow_v2()
    save_v1(ladder / "v1_loop", lambda x, w: tf.while_loop(lambda i, a: i < 3, lambda i, a: (i + 1, a @ w), [0, x])[1])
    v1.enable_control_flow_v2()

    def local(x: Any, w: Any) -> Any:
        # Its value is in no checkpoint, but in the operation that initialises it.
        bias = v1.get_variable("b", initializer=[1.0, 2.0, 3.0], collections=["local_variables"])
        return x @ w + bias

    save_v1(ladder / "v1_local", local)


def save_v1(path: Path, function: Any, tags: tuple[str, ...] = ("serve",), signature: str = "serving_default") -> None:
    v1 = tf.compat.v1
    with v1.Session(graph=tf.Graph()) as session:
        x = v1.placeholder(tf.float32, [None, 3], name="x")
        weights = v1.get_variable("w", initializer=np.random.default_rng(4).standard_normal((3, 3)).astype(np.float32))
        score = function(x, weights)
        session.run([v1.global_variables_initializer(), v1.local_variables_initializer()])
        values = noise(3)
        arrays = {"in feature": values, "out score": session.run(score, {x: values})}
        np.savez(path.with_suffix(".npz"), allow_pickle=False, **arrays)
        served = v1.saved_model.signature_def_utils.predict_signature_def({"feature": x}, {"score": score})
        builder = v1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(session, tags, signature_def_map={signature: served})
        if tags != ("serve",):
            # A second graph, as training leaves one, and no signature in it.
            builder.add_meta_graph(["train"], signature_def_map={})
        builder.save()


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

    for function in (touches_files, runs_python):
        save_function(folder / "bad" / function.__name__, function, spec)
    tf.saved_model.save(tf.Module(), str(folder / "bad" / "no_signature"))


def save_function(path: Path, function: Any, spec: Any) -> None:
    module = tf.Module()
    module.serve = tf.function(function, input_signature=[spec])
    signature = tf.function(lambda x: {"y": module.serve(x)}, input_signature=[spec])
    tf.saved_model.save(module, str(path), signatures=signature)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
